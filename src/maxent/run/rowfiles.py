"""The replay's rows in files of their own, which never change once written.

Rows are numbered from the beginning of the run, and a file holds at most `ROWS_PER_FILE` of them. A checkpoint writes
the new rows and names the files that hold the others.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maxent.errors import CheckpointError
from maxent.replay import ring
from maxent.replay.ring import Ring
from maxent.run import arrays, files
from maxent.run.arrays import FILE, Form
from maxent.run.files import COUNT
from maxent.types import Tree

ROWS_PER_FILE = 65_536
ENTRY = FILE | {"start": COUNT, "stop": COUNT}
FORM = {"written": COUNT, "files": [ENTRY]}
"""The form of a manifest's entry for the replay."""
NAME = re.compile(r"rows-\d{9,}-\d{9,}-[0-9a-f]{8}\.safetensors")

File = dict[str, Any]
"""A manifest's entry for a file."""


class Block(NamedTuple):
    """Rows of the replay that no file holds yet."""

    start: int
    stop: int
    arrays: dict[str, np.ndarray]


def of_ring(rows: Ring, known: Sequence[File]) -> Iterator[File | Block]:
    """The files that hold the ring's rows, and in their places those that none holds."""
    written, size = int(rows.written), ring.capacity(rows)
    oldest = max(0, written - size)
    # The newest file is written again: its last row changes where an episode was cut by a resume.
    whole = {(file["start"] // ROWS_PER_FILE, file["stop"]): file for file in known[:-1]}
    for number in range(oldest // ROWS_PER_FILE, -(-written // ROWS_PER_FILE)):
        start, stop = max(number * ROWS_PER_FILE, oldest), min((number + 1) * ROWS_PER_FILE, written)
        file = whole.get((number, stop))
        if file is not None and file["start"] <= start:
            yield file
        else:
            # Blocks have one length, so that they are compiled once; what of the last is beyond its rows is cut off.
            block = _block(_arrays(rows), np.int32(start % size), count=min(ROWS_PER_FILE, size))
            yield Block(start, stop, {name: leaf[: stop - start] for name, leaf in arrays.copies(block).items()})


def write(folder: Path, rows: Iterable[File | Block]) -> Iterator[File]:
    """Write what no file holds; the entries of all files."""
    folder.mkdir(exist_ok=True)
    for part in rows:
        if isinstance(part, Block):
            path = folder / f"rows-{part.start:09d}-{part.stop:09d}.safetensors"
            yield arrays.write(path, part.arrays, digest_in_name=True) | {"start": part.start, "stop": part.stop}
        else:
            yield part
    files.sync(folder)


def read(checkpoint: Path, replay: dict[str, Any], template: Ring) -> Ring:
    """The rows that a checkpoint's manifest names, in a ring of the template's shape.

    Raises:
        CheckpointError: where a file is damaged or does not fit.
    """
    rows, written = ring.capacity(template), replay["written"]
    oldest = max(0, written - rows)
    if replay["files"][0]["start"] > oldest:
        raise CheckpointError(
            f"the checkpoint {checkpoint} has not all of the replay's rows {oldest} to {written}: keep the buffer_size "
            "that it was saved with"
        )
    full = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), _arrays(template))
    for file in replay["files"]:
        start, stop = max(file["start"], oldest), file["stop"]
        if start >= stop:
            continue
        wanted = {
            name: Form((stop - file["start"], *leaf.shape[1:]), leaf.dtype) for name, leaf in arrays.named(full).items()
        }
        found = arrays.read(checkpoint.parent / "replay", file, wanted)
        for name, leaf in arrays.named(full).items():
            leaf[np.arange(start, stop) % rows] = found[name][start - file["start"] :]
    return Ring(**jax.tree.map(jnp.array, full), written=jnp.uint32(written))


def sound(replay: dict[str, Any]) -> bool:
    """Whether a manifest's entry has its form, and its files hold every row from some on to the last written, once."""
    if not files.fits(replay, FORM):
        return False
    bounds = [(file["start"], file["stop"]) for file in replay["files"]]
    follows = all(before[1] == after[0] for before, after in zip(bounds, bounds[1:]))
    named = all(NAME.fullmatch(file["name"]) for file in replay["files"])
    return bool(bounds) and follows and named and all(a < b for a, b in bounds) and bounds[-1][1] == replay["written"]


def has_size(replay: Path, file: File) -> bool:
    """Whether a file of the replay is still there, as long as it was."""
    with suppress(OSError):
        return bool((replay / file["name"]).stat().st_size == file["bytes"])
    return False


@partial(jax.jit, static_argnames="count")
def _block(rows: Tree, first: Array, *, count: int) -> Tree:
    """So many rows from one on, without the whole ring leaving the device."""
    size = jax.tree.leaves(rows)[0].shape[0]
    at = (first + jnp.arange(count)) % size
    return jax.tree.map(lambda leaf: leaf[at], rows)


def _arrays(rows: Ring) -> dict[str, Tree]:
    """Everything of a ring that has an entry a row."""
    return {name: value for name, value in rows._asdict().items() if name != "written"}
