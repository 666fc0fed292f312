"""Files of named arrays: safetensors, which cannot run code. Only what was asked for is ever read."""

import hashlib
import math
import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from maxent.errors import CheckpointError
from maxent.run import files
from maxent.types import Tree

FILE = {"name": str, "bytes": range(2**63), "sha256": str}
"""The form of a manifest's entry for a file."""
ENTRY = 256
"""Bytes that suffice for one array in a file's header, beside its name."""


class Form(NamedTuple):
    """What an array must be."""

    shape: tuple[int | range, ...]
    """A range for a length that may be any in it."""
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """The most it can have."""
        lengths = (n[-1] if isinstance(n, range) else n for n in self.shape)
        return math.prod(lengths, start=self.dtype.itemsize)

    def fits(self, dtype: str, shape: list[int]) -> bool:
        """Whether an array that a file describes so is one."""
        lengths = [n if isinstance(n, range) else range(n, n + 1) for n in self.shape]
        return dtype == _code(self.dtype) and files.fits(shape, tuple(lengths))

    def __str__(self) -> str:
        lengths = (f"at most {n[-1]}" if isinstance(n, range) else str(n) for n in self.shape)
        return f"{_code(self.dtype)}[{', '.join(lengths)}]"


def named(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by their paths in it."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def copies(tree: Tree) -> dict[str, np.ndarray]:
    """The leaves as arrays of their own on the host: nothing that happens to the tree's changes them."""
    return {name: np.array(leaf, order="C") for name, leaf in named(tree).items()}


def write(path: Path, arrays: dict[str, np.ndarray], digest_in_name: bool = False) -> dict[str, Any]:
    """Write a file; its entry for a manifest.

    Raises:
        OSError: where the disk refuses; there is no such file then.
    """
    content = save(arrays)
    digest = files.digest(content)
    if digest_in_name:
        path = path.with_stem(f"{path.stem}-{digest[:8]}")
    files.replace(path, content)
    return {"name": path.name, "bytes": len(content), "sha256": digest}


def read(folder: Path, entry: Mapping[str, Any], wanted: Mapping[str, Form]) -> dict[str, np.ndarray]:
    """The arrays of a file that a manifest names: just those that are wanted, in their forms.

    Size, checksum and header are compared before anything as large as the file is held in memory.

    Raises:
        CheckpointError: where the file is damaged or does not fit.
    """
    path = folder / entry["name"]
    with files.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["bytes"]:
            raise CheckpointError(f"{path} has {size} bytes, and its manifest says {entry['bytes']}: it is damaged")
        most = 8 + sum(ENTRY + 6 * len(name) for name in wanted)
        data = sum(form.bytes for form in wanted.values())
        if size > most + data:
            raise CheckpointError(f"{path} does not fit the config: {size} bytes, for at most {data}")
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise CheckpointError(f"{path} does not have the checksum of its manifest: it is damaged")
        file.seek(0)
        try:
            misfit = _misfit(_header(file, most), wanted)
            if misfit:
                raise CheckpointError(f"{path} does not fit the config: {misfit}")
            file.seek(0)
            arrays = load(file.read())
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is no safetensors file: {error}") from None
    if any(array.dtype == bool and array.view(np.uint8).max(initial=0) > 1 for array in arrays.values()):
        raise CheckpointError(f"{path} is damaged: a truth value in it is neither 0 nor 1")
    return arrays


def _header(file: BufferedReader, most: int) -> dict[str, Any]:
    """The description of the arrays at the beginning of a safetensors file, at most so long."""
    length = int.from_bytes(file.read(8), "little")
    if length > most:
        raise ValueError(f"its header has {length} bytes")
    header = files.parse_json(file.read(length))
    if not files.fits(list(header.values()) if isinstance(header, dict) else None, [{"dtype": str, "shape": [int]}]):
        raise ValueError("its header names no arrays")
    return header


def _misfit(header: dict[str, Any], wanted: Mapping[str, Form]) -> str:
    """What is wrong with a file that has this header; empty where nothing is."""
    for name, form in wanted.items():
        if name not in header:
            return f"it has no {name}"
        dtype, shape = header[name]["dtype"], header[name]["shape"]
        if not form.fits(dtype, shape):
            return f"it has {name} as {dtype}{shape}, and {form} is asked for"
    unknown = [name for name in header if name not in wanted]
    return f"it has {unknown[0]!r}, which is not asked for" if unknown else ""


def _code(dtype: np.dtype) -> str:
    """What safetensors calls a dtype: F32, BF16, U8, BOOL."""
    return dtype.name.replace("float", "f").replace("uint", "u").replace("int", "i").upper()
