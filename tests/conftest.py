"""Compiled programs are shared by all tests of a session and its workers: most of them need the same few.

They are compiled without LLVM's optimisations and by XLA's older emitters of kernels, since each runs a few hundred
times only, and in one piece, since every core has a worker. XLA's own passes are a user's.
"""

import os
import tempfile

import pytest

FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)


def pytest_configure(config):
    """Choose the folder before JAX is imported; the workers inherit it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="maxent-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"


@pytest.fixture(scope="module")
def shared_programs():
    """One set of compiled functions for all runs of a module with the same settings and spaces."""
    import tiny
    from maxent.run import driver

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(driver, "Programs", tiny.programs)
        yield


@pytest.fixture(scope="session", autouse=True)
def _started():
    """JAX starts once a process: here always as for SAC with small networks, whichever test comes first."""
    from maxent import devices
    from maxent.config import SACConfig, TrainConfig

    devices.begin(TrainConfig("Pendulum-v1"), SACConfig(hidden_sizes=(8,)), 1)
