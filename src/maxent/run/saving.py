"""A run as its checkpoints hold it: taken from its loop and its history, compared with them, and given back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maxent.envs.contract import Episode
from maxent.errors import CheckpointError
from maxent.loops.loop import Loop
from maxent.loops.pieces import Learned
from maxent.loops.programs import LEARNED
from maxent.replay.ring import Ring
from maxent.run import checkpoint, files
from maxent.run.files import COUNT
from maxent.run.history import COUNTERS, EPISODE, History
from maxent.run.rowfiles import File
from maxent.types import Tree

FORM = COUNTERS | {
    "step": COUNT, "updates": COUNT, "learns_from": COUNT, "ahead": COUNT, "attempt": COUNT, "pending": [EPISODE],
}  # fmt: skip
"""The form of a checkpoint's counters."""
BY_MEMBER = ("episodes", "recent", "best", "largest_bonus")


class Saved(NamedTuple):
    """What a checkpoint holds, read and found sound."""

    counters: dict[str, Any]
    learned: Learned
    moment: Tree
    rows: Ring | None


def taken(
    kind: str, loop: Loop, history: History, attempt: int, with_rows: bool, known: Sequence[File]
) -> checkpoint.Snapshot:
    """All that a checkpoint of now holds."""
    counters = history.counters() | {
        "step": loop.step,
        "updates": loop.updates,
        "learns_from": loop.learns_from,
        "ahead": loop.ahead,
        "attempt": attempt,
        "pending": [list(e) for e in loop.finished],
    }
    rows = loop.ring if with_rows else None
    return checkpoint.take(kind, loop.step, loop.learned, loop.moment, counters, rows, known)


def read(found: Path, loop: Loop) -> Saved:
    """Everything that a checkpoint holds, compared with what the settings ask for.

    Raises:
        CheckpointError: where it is damaged, or of other settings.
    """
    own = counters(found)
    members, envs = loop.shape
    episodes = [*own["pending"], *sum(own["recent"], [])]
    beyond = any(member >= members or env >= envs for member, env, *_ in episodes)
    if beyond or any(len(own[name]) != members for name in BY_MEMBER):
        raise CheckpointError(f"the checkpoint {found} has damaged counters")
    learned = checkpoint.load_tree(found, "state", loop.learned)
    moment = checkpoint.load_tree(found, "moment", loop.moment, "journal/actions", own["step"] * members)
    if not loop.accepts(moment):
        raise CheckpointError(f"the checkpoint {found} has a damaged journal")
    return Saved(own, loop.programs.placed(learned, LEARNED), moment, checkpoint.load_rows(found, loop.ring))


def give_back(saved: Saved, loop: Loop, history: History) -> int:
    """Let a loop and its history go on from there; how many running episodes could not be brought back."""
    counters = saved.counters
    loop.learned, loop.whole = saved.learned, True
    loop.step, loop.updates = counters["step"], counters["updates"]
    loop.learns_from, loop.ahead = counters["learns_from"], counters["ahead"]
    cut = int((~loop.resume(saved.moment, saved.rows)).sum())
    loop.finished = [Episode(*e) for e in counters["pending"]]
    history.restore(counters)
    return cut


def counters(found: Path) -> dict[str, Any]:
    """The counters of a checkpoint, their form checked.

    Raises:
        CheckpointError: where they are damaged.
    """
    manifest = checkpoint.read_manifest(found)
    own = manifest["counters"]
    if not files.fits(own, FORM) or own["step"] != manifest["step"]:
        raise CheckpointError(f"the checkpoint {found} has damaged counters")
    return own
