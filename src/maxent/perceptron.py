"""Multilayer perceptrons with ReLU on a CPU: perceptron.c, compiled for the processor at hand, behind a JAX function.

XLA multiplies fast and shares a product between threads slowly; docs/update-speed.md has both beside each other. The C
compiler is the machine's own: that of the environment variable `CC`, else `cc`. Where there is none, or `CC` is empty,
XLA computes perceptrons as it does everything else. What is compiled is kept where JAX keeps its programs, if it does.
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

SOURCE = Path(__file__).with_name("perceptron.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-pthread")
HANDLERS = ("maxent_forward", "maxent_to_input", "maxent_gradients")
MOST_THREADS = 8
"""More have too little to do in one product of the usual size."""

Arrays = tuple[Array, ...]
_one_at_a_time = threading.Lock()
_loaded: list[ctypes.CDLL] = []
"""The library that XLA knows; it takes no second one."""


def applies(activation: str, layer_norm: bool) -> bool:
    """Whether `perceptron` computes networks of this kind on a CPU; where it is the first to ask, it compiles."""
    with _one_at_a_time:
        return activation == "relu" and not layer_norm and _load(os.environ.get("CC", "cc"))


@jax.custom_vjp
def perceptron(x: Array, weights: Arrays, biases: Arrays) -> Array:
    """max(0, x W_1 + b_1) W_2 + …: [batch, inputs] → [batch, outputs], all float32.

    What differs between networks under `vmap` has a leading axis, and what they share is not copied.
    """
    return _layers(x, weights, biases, keep=False)[0]


def _layers(x: Array, weights: Arrays, biases: Arrays, keep: bool) -> Sequence[Array]:
    """The output and, if they are to be kept, the hidden layers' activations."""
    *hidden, output = [_like(*x.shape[:-1], weight.shape[-1]) for weight in weights]
    arrays = [array for layer in zip(weights, biases, strict=True) for array in layer]
    return _call("maxent_forward", (output, *hidden) if keep else (output,), x, *arrays)


def _forward(x: Array, weights: Arrays, biases: Arrays) -> tuple[Array, tuple[Array, Arrays, Arrays]]:
    y, *activations = _layers(x, weights, biases, keep=True)
    return y, (x, weights, tuple(activations))


def _backward(kept: tuple[Array, Arrays, Arrays], gradient: Array) -> tuple[Array, Arrays, Arrays]:
    """Two calls, each left out by XLA where nobody looks at what it gives."""
    x, weights, activations = kept
    arguments = gradient, *weights, x, *activations
    (to_input,) = _call("maxent_to_input", (_like(*x.shape),), *arguments)
    shapes = [shape for weight in weights for shape in (weight.shape, weight.shape[-1:])]
    gradients = _call("maxent_gradients", tuple(_like(*shape) for shape in shapes), *arguments)
    return to_input, tuple(gradients[0::2]), tuple(gradients[1::2])


perceptron.defvjp(_forward, _backward)


def _call(name: str, results: tuple[jax.ShapeDtypeStruct, ...], *arguments: Array) -> Sequence[Array]:
    return jax.ffi.ffi_call(name, results, vmap_method="expand_dims")(*arguments)


def _like(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@cache
def _load(compiler: str) -> bool:
    """Make XLA know what that compiler makes of perceptron.c; False where it makes nothing that can be used."""
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
    name = f"perceptron-{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.so"
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
