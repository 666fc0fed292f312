"""Compiled programs are shared by all tests of a session and its workers: most of them need the same few.

They are compiled with fewer of LLVM's passes than a user's, since each runs a few hundred times only; of XLA's own
passes none is left out.
"""

import os
import tempfile

import pytest


def pytest_configure(config):
    """Choose the folder before JAX is imported; the workers inherit it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="maxent-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"


@pytest.fixture(scope="session", autouse=True)
def _started():
    """JAX starts once a process: here always as for SAC with small networks, whichever test comes first."""
    from maxent import devices
    from maxent.config import SACConfig, TrainConfig

    devices.begin(TrainConfig("Pendulum-v1"), SACConfig(hidden_sizes=(8,)), 1)
