"""The command's own parts: its words, and what it prints."""
