"""Environments: adapters that own everything an algorithm must not know, and the library's own tasks."""
