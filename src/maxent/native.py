"""What native.c computes on a CPU: the library is compiled for the processor at hand, and XLA calls it.

XLA multiplies fast and shares a product between threads slowly; docs/update-speed.md has both beside each other. The C
compiler is the machine's own: that of the environment variable `CC`, else `cc`. Where there is none, or `CC` is empty,
XLA computes everything. What is compiled is kept where JAX keeps its programs, if it does. Its other calls put some in
order, and are a running program's exchange with Python (loops/turns.py).
"""

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from maxent.types import Tree

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-fno-math-errno", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-pthread")
HANDLERS = (
    "maxent_forward", "maxent_to_input", "maxent_gradients", "maxent_adam",
    "maxent_after", "maxent_give", "maxent_take",
)  # fmt: skip
MOST_THREADS = 8
"""More have too little to do in one product of the usual size."""

_one_at_a_time = threading.Lock()
_loaded: list[ctypes.CDLL] = []
"""The library that XLA knows; it takes no second one."""


def available() -> bool:
    """Whether there is such a library; whoever is the first to ask has it compiled."""
    with _one_at_a_time:
        return _load(os.environ.get("CC", "cc"))


def takes(*trees: Tree) -> bool:
    """Whether it computes with these arrays, if any: in float32, on a CPU."""
    in_float32 = all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trees))
    return in_float32 and jax.default_backend() == "cpu" and available()


def after(first: Array, x: Array) -> Array:
    """x; where native.c is available on a CPU, nothing that needs x is computed before `first`."""
    if not takes():
        return x
    return jax.ffi.ffi_call("maxent_after", jax.ShapeDtypeStruct(x.shape, x.dtype))(first, x)


def library() -> ctypes.CDLL:
    """What XLA calls, for whoever calls it from Python; only where it is `available`."""
    return _loaded[0]


@cache
def _load(compiler: str) -> bool:
    """Make XLA know what that compiler makes of native.c; False where it makes nothing that can be used."""
    try:
        library = _library(shlex.split(compiler))
    except (OSError, ValueError, ImportError, subprocess.SubprocessError):
        return False
    if not _loaded:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        library.maxent_start(min(cores, MOST_THREADS))
        for name in HANDLERS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
        _loaded.append(library)
    return True


def _library(compiler: Sequence[str]) -> ctypes.CDLL:
    """What the compiler has made, before or now.

    Raises:
        OSError, subprocess.SubprocessError: where there is no such compiler, or it fails.
    """
    if not compiler:
        raise FileNotFoundError("no compiler")
    command = [*compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", str(SOURCE), "-lm", "-o"]
    versions = importlib.metadata.version("jaxlib"), _processor()
    made_of = "\0".join([SOURCE.read_text(encoding="utf-8"), *command, *versions])
    name = f"native-{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.so"
    folder = jax.config.jax_compilation_cache_dir or ""  # type: ignore[attr-defined]
    kept = Path(folder, name) if folder and "://" not in folder else None
    if kept:
        with suppress(OSError):
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as making:
        new = Path(making, name)
        subprocess.run([*command, str(new)], check=True, capture_output=True, timeout=120)
        if kept:
            with suppress(OSError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copy(new, kept.with_suffix(f".{os.getpid()}"))
                os.replace(copy, kept)
        return ctypes.CDLL(str(new))


def _processor() -> str:
    """What the code is for: several machines may keep their files in one place."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "\n".join(next((x for x in lines if x.startswith(name)), "") for name in ("model name", "flags", "Features"))
