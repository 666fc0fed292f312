"""Checkpoints: safetensors and JSON, atomic, with checksums. Nothing that is read can run code.

    checkpoints/
      step-000020000/           the newest of these is the last checkpoint
        checkpoint.json         format, step, the loop's counters, every file with its size and SHA-256, and its own
        state.safetensors       the algorithm's state, one array an entry, named by its path in the state
        moment.safetensors      the actor's memory, the last step, and the actions of the running episodes
      best-000018000/           the best evaluation so far, without a replay
      replay/
        rows-000000000-000020001-3f2a9c1b.safetensors

The replay's rows are in files that never change once written (`maxent.run.rowfiles`): a checkpoint writes the new rows
and names the files that hold the others.
"""

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from maxent.errors import CheckpointError
from maxent.replay.ring import Ring
from maxent.run import arrays, files, rowfiles
from maxent.run.arrays import FILE, Form
from maxent.run.files import COUNT
from maxent.run.rowfiles import Block, File
from maxent.types import Tree

T = TypeVar("T")
FORMAT, VERSION = "maxent-checkpoint", 5
MANIFEST, STATE, MOMENT = "checkpoint.json", "state.safetensors", "moment.safetensors"
FORM = {
    "format": str, "version": int, "step": COUNT, "counters": object, "state": FILE, "moment": FILE,
    "replay": dict | None,
}  # fmt: skip
FOLDER = re.compile(r"(step|best)-(\d{9,})(?:-(\d{2,}))?")


class Snapshot(NamedTuple):
    """A run at one moment, all that a checkpoint holds: written now, or, once `detached`, whenever there is time."""

    kind: str
    step: int
    counters: dict[str, Any]
    state: dict[str, np.ndarray]
    moment: dict[str, np.ndarray]
    written: int
    """Rows of the replay written since the beginning of the run."""
    rows: Iterable[File | Block] | None
    """The files that hold the replay and the rows still to be written, in order; None for a checkpoint without."""

    def detached(self) -> "Snapshot":
        """The same with copies of the new rows, so that the run may go on: the next row takes the ring's arrays."""
        return self if self.rows is None else self._replace(rows=list(self.rows))


def take(
    kind: str,
    step: int,
    state: Tree,
    moment: Tree,
    counters: dict[str, Any],
    rows: Ring | None,
    known: Sequence[File] = (),
) -> Snapshot:
    """A snapshot; `known` are the replay's files of the checkpoint before, of the same run and in the same folder."""
    return Snapshot(
        kind, step, counters, arrays.copies(state), arrays.copies(moment),
        written=0 if rows is None else int(rows.written),
        rows=None if rows is None else rowfiles.of_ring(rows, known),
    )  # fmt: skip


def write(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint aside, then rename it into `folder`; an existing one of that step and kind is replaced.

    Raises:
        OSError: where the disk refuses; earlier checkpoints are then as they were, and nothing of this one is left.
    """
    folder.mkdir(exist_ok=True)
    older = [(again, path) for step, again, path in _listed(folder, snapshot.kind) if step == snapshot.step]
    name = f"{snapshot.kind}-{snapshot.step:09d}"
    final = folder / (f"{name}-{older[-1][0] + 1:02d}" if older else name)
    aside = folder / f".{final.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    replay_before = set((folder / "replay").glob("rows-*"))
    try:
        aside.mkdir()
        replay = None
        if snapshot.rows is not None:
            replay = {"written": snapshot.written, "files": list(rowfiles.write(folder / "replay", snapshot.rows))}
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "step": snapshot.step,
            "counters": snapshot.counters,
            "state": arrays.write(aside / STATE, snapshot.state),
            "moment": arrays.write(aside / MOMENT, snapshot.moment),
            "replay": replay,
        }
        content = json.dumps(sealed(manifest)).encode()
        if files.too_much(content):
            raise OSError(errno.EFBIG, "too large to be read again", str(aside / MANIFEST))
        files.replace(aside / MANIFEST, content)
        files.sync(aside)
        aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for path in set((folder / "replay").glob("rows-*")) - replay_before:
            with suppress(OSError):
                path.unlink()
        raise
    files.sync(folder)
    for _, path in older:
        _remove(path)
    return final


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of its own."""
    return manifest | {"sha256": files.digest(json.dumps(manifest, allow_nan=False).encode())}


def find(folder: Path, kind: str = "step") -> list[Path]:
    """The checkpoints of that kind, oldest first."""
    return [path for *_, path in _listed(folder, kind) if (path / MANIFEST).is_file() and not path.is_symlink()]


def begun(folder: Path) -> bool:
    """Whether there is a last checkpoint, be it damaged, or set aside as such."""
    return bool([*_listed(folder, "step"), *folder.glob("damaged-step-*")])


def last_step(folder: Path) -> int | None:
    """The step of the last checkpoint; None where there is none."""
    found = _listed(folder, "step")
    return found[-1][0] if found else None


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


def set_aside(checkpoint: Path, why: str = "damaged") -> None:
    """Keep a checkpoint that is damaged, or abandoned, out of the way of those to come."""
    aside = checkpoint.with_name(f"{why}-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)


def prune(folder: Path, kept: Path, keep: int) -> None:
    """Delete the checkpoints of a kind but the one just written and the newest before it, `keep` in all; the replay
    files that none left names; and what a process left that was killed while it wrote.
    """
    for path in find(folder):
        try:
            read_manifest(path)
        except CheckpointError:
            set_aside(path)
    others = [path for path in find(folder, _kind(kept)) if path != kept]
    for path in others[: max(0, len(others) + 1 - keep)]:
        _remove(path)
    named = {file["name"] for path in find(folder) for file in replay_files(path)}
    for path in (folder / "replay").glob("rows-*"):
        if path.name not in named:
            path.unlink()
    for path in (*folder.glob(".*.partial"), *(folder / "replay").glob(".*.partial")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest, its format checked.

    Raises:
        CheckpointError: in one line, where it is missing, damaged, or of another version.
    """
    manifest = files.read_json(checkpoint / MANIFEST)
    damaged = CheckpointError(f"the checkpoint {checkpoint} has a damaged {MANIFEST}")
    if not files.fits(manifest, {"format": str, "version": int}):
        raise damaged
    found, version = manifest["format"], manifest["version"]
    if found != FORMAT or version != VERSION:
        raise CheckpointError(
            f"the checkpoint {checkpoint} has the format {found} {version}, and this version reads {FORMAT} {VERSION}; "
            "use the version of maxent-rl that run.json names"
        )
    content = {name: manifest[name] for name in manifest if name != "sha256"}
    if content.keys() != FORM.keys() or not files.fits(manifest, FORM) or manifest != sealed(content):
        raise damaged
    if (manifest["state"]["name"], manifest["moment"]["name"]) != (STATE, MOMENT):
        raise damaged
    replay = manifest["replay"]
    if replay is not None and not rowfiles.sound(replay):
        raise damaged
    return manifest


def replay_files(checkpoint: Path) -> list[File]:
    """The files that hold a checkpoint's replay, in order of their rows.

    Raises:
        CheckpointError: where its manifest is damaged.
    """
    replay = read_manifest(checkpoint)["replay"]
    return [] if replay is None else replay["files"]


def load_tree(checkpoint: Path, part: str, template: Tree, growing: str = "", longest: int = 0) -> Tree:
    """The `state` or the `moment`, in the structure of the template, whose names, shapes and dtypes it must have.

    The array named `growing` may have any length up to the longest.

    Raises:
        CheckpointError: where a file is damaged or does not fit.
    """
    wanted = {
        name: Form((range(longest + 1), *leaf.shape[1:]) if name == growing else leaf.shape, np.dtype(leaf.dtype))
        for name, leaf in arrays.named(template).items()
    }
    found = arrays.read(checkpoint, read_manifest(checkpoint)[part], wanted)
    return jax.tree.unflatten(jax.tree.structure(template), [found[name] for name in wanted])


def load_rows(checkpoint: Path, template: Ring) -> Ring | None:
    """The replay, in a ring of the template's shape; None where the checkpoint was saved without.

    Raises:
        CheckpointError: where a file is damaged or does not fit.
    """
    replay = read_manifest(checkpoint)["replay"]
    return None if replay is None else rowfiles.read(checkpoint, replay, template)


def _listed(folder: Path, kind: str) -> list[tuple[int, int, Path]]:
    """What bears a checkpoint's name: step, how often it was written again, and path, in order."""
    named = [(FOLDER.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*")]
    return sorted((int(match[2]), int(match[3] or 0), path) for match, path in named if match)


def _kind(path: Path) -> str:
    return path.name.partition("-")[0]


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it is out of sight before the first of its files goes."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    checkpoint.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
