"""Compiled programs are shared by all tests of a session and its workers: most of them need the same few."""

import os
import tempfile


def pytest_configure(config):
    """Choose the folder before JAX is imported; the workers inherit it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="maxent-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
