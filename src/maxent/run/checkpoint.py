"""Checkpoints: safetensors and JSON, atomic, with checksums. Nothing that is read can run code.

    checkpoints/
      step-000020000/           the newest of these is the last checkpoint
        checkpoint.json         format, step, the loop's counters, and every file with its size and SHA-256
        state.safetensors       the algorithm's state, one array an entry, named by its path in the state
        moment.safetensors      the actor's memory, the last step, and the actions of the running episodes
      best-000018000/           the best evaluation so far, without a replay
      replay/
        rows-000000000-000020001-3f2a9c1b.safetensors

Replay rows are numbered from the beginning of the run and stored in files of at most `ROWS_PER_FILE`, which never
change once written: a checkpoint writes the new rows and names the files that hold the others.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from maxent.errors import CheckpointError
from maxent.replay import ring
from maxent.replay.ring import Ring
from maxent.types import Tree

T = TypeVar("T")
FORMAT, VERSION = "maxent-checkpoint", 2
MANIFEST, STATE, MOMENT = "checkpoint.json", "state.safetensors", "moment.safetensors"
FILE = {"name": str, "bytes": int, "sha256": str}
REPLAY = {"written": int, "files": [FILE | {"start": int, "stop": int}]}
FORM = {"step": int, "counters": object, "state": FILE, "moment": FILE, "replay": (dict, type(None))}
ROWS_PER_FILE = 65_536


def save(
    folder: Path,
    step: int,
    state: Tree,
    moment: Tree,
    counters: dict[str, Any],
    rows: Ring | None,
    kind: str = "step",
) -> Path:
    """Write a checkpoint aside, then rename it into `folder`; an existing one of that step and kind is replaced.

    Raises:
        OSError: where the disk refuses; earlier checkpoints are then as they were.
    """
    older = sorted(folder.glob(f"{kind}-{step:09d}*"))
    again = int(older[-1].name[len(f"{kind}-{step:09d}-") :] or 0) + 1 if older else 0
    final = folder / (f"{kind}-{step:09d}" + (f"-{again:02d}" if again else ""))
    aside = folder / f".{final.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "counters": counters,
        "state": _write(aside / STATE, save_arrays(_named(state))),
        "moment": _write(aside / MOMENT, save_arrays(_named(moment))),
        "replay": None if rows is None else {"written": int(rows.written), "files": _save_rows(folder, rows)},
    }
    _write(aside / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode())
    _sync(aside)
    aside.rename(final)
    _sync(folder)
    for path in older:
        shutil.rmtree(path)
    return final


def find(folder: Path, kind: str = "step") -> list[Path]:
    """The checkpoints of that kind, oldest first."""
    return sorted(p for p in folder.glob(f"{kind}-*") if (p / MANIFEST).is_file())


def candidates(folder: Path, best: bool = False) -> list[Path]:
    """The last checkpoint, or that of the best evaluation, and those before it, newest first.

    Raises:
        CheckpointError: where there is none.
    """
    found = find(folder, "best" if best else "step")
    if not found:
        raise CheckpointError(f"{folder.parent} has no {'best' if best else 'last'} checkpoint")
    return found[::-1]


def first_whole(found: list[Path], load: Callable[[Path], T], warn: Callable[[str], None]) -> tuple[Path, T]:
    """The first of the checkpoints that can be loaded and what it holds; the others are told of.

    Raises:
        CheckpointError: the first one's, where none can.
    """
    errors: list[CheckpointError] = []
    for path in found:
        try:
            loaded = load(path)
        except CheckpointError as error:
            errors.append(error)
            continue
        if errors:
            warn(f"{'; '.join(str(error) for error in errors)}; going back to {path.name}")
        return path, loaded
    raise errors[0]


def set_aside(checkpoint: Path) -> None:
    """Keep a damaged checkpoint out of the way of those to come."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)


def prune(folder: Path, kept: Path, keep: int) -> None:
    """Delete the checkpoints of a kind but the one just written and the newest before it, `keep` in all; and the
    replay files that none left names.
    """
    for path in find(folder):
        try:
            read_manifest(path)
        except CheckpointError:
            set_aside(path)
    others = [path for path in find(folder, kept.name.partition("-")[0]) if path != kept]
    for path in others[: max(0, len(others) + 1 - keep)]:
        shutil.rmtree(path)
    named = {f["name"] for p in find(folder) for f in (read_manifest(p)["replay"] or {"files": []})["files"]}
    for path in (folder / "replay").glob("rows-*"):
        if path.name not in named:
            path.unlink()


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest, its format checked.

    Raises:
        CheckpointError: in one line, where it is missing, damaged, or of another version.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        found, version = manifest["format"], manifest["version"]
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {checkpoint}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"the checkpoint {checkpoint} has a damaged {MANIFEST}") from None
    if found != FORMAT or version != VERSION:
        raise CheckpointError(
            f"the checkpoint {checkpoint} has the format {found} {version}, and this version reads {FORMAT} {VERSION}; "
            "use the version of maxent-rl that run.json names"
        )
    replay = manifest.get("replay")
    if not fits(manifest, FORM) or not (replay is None or fits(replay, REPLAY)):
        raise CheckpointError(f"the checkpoint {checkpoint} has a damaged {MANIFEST}")
    return manifest


def fits(value: Any, form: Any) -> bool:
    """Whether a value read from JSON has a form: a type, a dictionary of forms, or a list of one."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(key in value and fits(value[key], sub) for key, sub in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(entry, form[0]) for entry in value)
    return isinstance(value, form)


def load_tree(checkpoint: Path, part: str, template: Tree, growing: str = "") -> Tree:
    """The `state` or the `moment`, in the structure of the template, whose names, shapes and dtypes it must have.

    The array named `growing` may have any length.

    Raises:
        CheckpointError: where a file is damaged or does not fit.
    """
    manifest = read_manifest(checkpoint)
    arrays = _read(checkpoint, manifest[part])
    leaves = []
    for name, leaf in _named_leaves(template):
        if name not in arrays:
            raise CheckpointError(f"the checkpoint {checkpoint} has no {name}: it was made with another config")
        array = arrays.pop(name)
        own, asked = (array.shape[1:], leaf.shape[1:]) if name == growing else (array.shape, leaf.shape)
        if own != asked or array.ndim != len(leaf.shape) or array.dtype != leaf.dtype:
            raise CheckpointError(
                f"the checkpoint {checkpoint} has {name} as {array.dtype}{list(array.shape)}, and the config asks for "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
        leaves.append(array)
    if arrays:
        raise CheckpointError(
            f"the checkpoint {checkpoint} has {next(iter(arrays))}, which the config does not ask for"
        )
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def load_rows(checkpoint: Path, template: Ring) -> Ring | None:
    """The replay, in a ring of the template's shape; None where the checkpoint was saved without.

    Raises:
        CheckpointError: where a file is damaged or does not fit.
    """
    saved = read_manifest(checkpoint)["replay"]
    if saved is None:
        return None
    rows, written = ring.capacity(template), saved["written"]
    oldest = covered = max(0, written - rows)
    for file in saved["files"]:
        covered = max(covered, file["stop"]) if file["start"] <= covered else covered
    if covered != written:
        raise CheckpointError(
            f"the checkpoint {checkpoint} has not all of the replay's rows {oldest} to {written}: keep the buffer_size "
            "that it was saved with"
        )
    full = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), _arrays(template))
    named = dict(_named_leaves(full))
    for file in saved["files"]:
        arrays = _read(checkpoint.parent / "replay", file)
        start, stop = max(file["start"], oldest), file["stop"]
        for name, array in named.items():
            found = arrays.get(name)
            if found is None or found.dtype != array.dtype or found.shape != (stop - file["start"], *array.shape[1:]):
                raise CheckpointError(
                    f"the replay file {file['name']} of {checkpoint} does not fit the environment: {name}"
                )
            if start < stop:
                array[np.arange(start, stop) % rows] = found[start - file["start"] :]
    return Ring(**jax.tree.map(jnp.array, full), written=jnp.uint32(written))


def _save_rows(folder: Path, rows: Ring) -> list[dict[str, Any]]:
    """Write the rows that no file holds yet; all files that hold a row of the ring."""
    (folder / "replay").mkdir(exist_ok=True)
    written, size = int(rows.written), ring.capacity(rows)
    oldest = max(0, written - size)
    known = {}
    for path in find(folder)[-1:]:
        saved = read_manifest(path)["replay"] or {"files": []}
        # The newest file is written again: its last row changes where an episode was cut by a resume.
        known = {(f["start"] // ROWS_PER_FILE, f["stop"]): f for f in saved["files"][:-1]}
    arrays = _named_leaves(_arrays(rows))
    files = []
    for number in range(oldest // ROWS_PER_FILE, -(-written // ROWS_PER_FILE)):
        start, stop = max(number * ROWS_PER_FILE, oldest), min((number + 1) * ROWS_PER_FILE, written)
        file = known.get((number, stop))
        if file is None or file["start"] > start:
            at = np.arange(start, stop) % size
            content = save_arrays({name: np.asarray(leaf)[at] for name, leaf in arrays})
            name = f"rows-{start:09d}-{stop:09d}-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
            file = _write(folder / "replay" / name, content) | {"start": start, "stop": stop}
        files.append(file)
    return files


def _arrays(rows: Ring) -> dict[str, Tree]:
    """Everything of a ring that has an entry a row."""
    return {name: value for name, value in rows._asdict().items() if name != "written"}


def _named_leaves(tree: Tree) -> list[tuple[str, Any]]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]


def _named(tree: Tree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf, order="C") for name, leaf in _named_leaves(jax.device_get(tree))}


def _write(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file aside, flush it to the disk and rename it; its entry for the manifest."""
    aside = path.with_name(f".{path.name}.partial")
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    return {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _read(folder: Path, entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file that a manifest names, its size and checksum compared first."""
    name, size, checksum = entry["name"], entry["bytes"], entry["sha256"]
    if Path(name).name != name:
        raise CheckpointError(f"the checkpoint in {folder} names the file {name!r} outside its folder")
    path = folder / name
    try:
        if path.stat().st_size != size:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, and its manifest says {size}: it is damaged"
            )
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != checksum:
        raise CheckpointError(f"{path} does not have the checksum of its manifest: it is damaged")
    try:
        return load_arrays(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from None


def _sync(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
