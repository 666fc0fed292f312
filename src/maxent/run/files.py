"""Files that are whole or not there, and files that grow by whole pieces; every error names its file."""

import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from maxent.errors import CheckpointError

COUNT = range(2**32)
"""Steps, updates and rows: what JAX counts in 32 bits."""
MOST_JSON = 6 << 20
"""Bytes of the largest JSON file that is read or written."""
BYTES_PER_BRACKET = 12
"""What stands between two opening brackets at least, on average: an empty list of three bytes takes a hundred."""


def replace(path: Path, content: bytes) -> None:
    """Write a file, or put it in another's place at once, and flush it to the disk.

    Raises:
        OSError: where the disk refuses; nothing has changed then.
    """
    aside = path.with_name(f".{path.name}.partial")
    with _named(path):
        try:
            with open(aside, "wb", buffering=0) as file:
                _write(file, content)
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


class Growing:
    """A file that is written at its end alone; a piece that cannot be written whole is taken back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: int | None = None
        """Where the piece began that could not be written; None where the last one was."""

    def empty(self) -> bool:
        """Whether there is nothing in it yet, or no file."""
        if self._whole is not None:
            return self._whole == 0
        return not self.path.exists() or not self.path.stat().st_size

    def append(self, piece: bytes) -> None:
        """Write a piece after the others.

        Raises:
            OSError: where the disk refuses; what is left of the piece goes at once, or before the next one.
        """
        with _named(self.path):
            with open(self.path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if self._whole is not None and size > self._whole:
                    size = file.truncate(self._whole)
                self._whole = size
                try:
                    _write(file, piece)
                except BaseException:
                    with suppress(OSError):
                        file.truncate(size)
                    raise
            self._whole = None


def sync(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if os.name == "posix":
        with _named(folder):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file to be read that lies in its folder itself: no link, no pipe, no folder.

    Raises:
        CheckpointError: where it is none, or cannot be read.
    """
    try:
        if path.parent.is_symlink():
            raise CheckpointError(f"{path.parent} is a link: what belongs to a run lies in its folder")
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CheckpointError(f"{path} is no file")
            yield file
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise CheckpointError(f"cannot read {path}: {error}") from None


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        CheckpointError: where it is missing, too large, or damaged: numbers that are not finite are damage.
    """
    with opened(path) as file:
        content = file.read(MOST_JSON + 1)
    try:
        if too_much(content):
            raise ValueError
        return parse_json(content)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is no JSON that a run writes") from None


def too_much(content: bytes) -> bool:
    """Whether a JSON text might take more memory than anything that a run writes."""
    brackets = content.count(b"[") + content.count(b"{")
    return len(content) > MOST_JSON or brackets > 64 + len(content) // BYTES_PER_BRACKET


def parse_json(content: bytes) -> Any:
    """The value of a JSON text in which no name stands twice and every number is finite.

    Raises:
        ValueError: where it is none.
        RecursionError: where it is nested too deeply.
    """
    return json.loads(content.decode(), parse_constant=_number, parse_float=_number, object_pairs_hook=_unique)


def fits(value: Any, form: Any) -> bool:
    """Whether a value read from JSON has a form.

    A form is a type, or several (`int | None`), a range for whole numbers, a dictionary of forms, a list of one for any
    number of values, or a tuple for a list of just so many.
    """
    if isinstance(form, dict):
        return isinstance(value, dict) and all(key in value and fits(value[key], sub) for key, sub in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(entry, form[0]) for entry in value)
    if isinstance(form, tuple):
        return isinstance(value, list) and len(value) == len(form) and all(map(fits, value, form))
    if isinstance(value, bool):
        return form is bool
    if isinstance(form, range):
        return isinstance(value, int) and value in form
    return isinstance(value, form) and (not isinstance(value, int | float) or abs(value) <= sys.float_info.max)


def digest(content: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not finite")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _write(file: FileIO, content: bytes) -> None:
    """All of it: an unbuffered file takes as much as there is room for and does not complain."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
