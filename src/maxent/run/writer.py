"""Writes a run's checkpoints beside its training: one at a time, in a thread of its own."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from maxent.errors import CheckpointError
from maxent.run import checkpoint, rowfiles
from maxent.run.checkpoint import Snapshot
from maxent.run.rowfiles import File


class Writer:
    """The one way into a folder of checkpoints.

    Hashing and writing let other threads run, so that the training goes on meanwhile; what fails is raised by `wait`.
    A snapshot of the best evaluation that could not be written is tried again with the next one, because that
    evaluation does not come back; one of a step is not.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._known: Sequence[File] = ()
        self._due: list[Snapshot] = []
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def known(self) -> list[File]:
        """The files that hold the replay in the last checkpoint of this run: the next one need not write them again."""
        replay = self.folder / "replay"
        return [file for file in self._known if rowfiles.has_size(replay, file)]

    def know(self, found: Path) -> None:
        """Go on from that checkpoint, which this run was restored from or has just written."""
        self._known = checkpoint.replay_files(found) if found.parent == self.folder else ()

    def write(self, *snapshots: Snapshot) -> None:
        """Begin to write these, and what is left of before; the last time must have been waited for."""
        kinds = {snapshot.kind for snapshot in snapshots}
        self._due = [left for left in self._due if left.kind not in kinds] + list(snapshots)
        self._pending = self._pool.submit(self._write_all)

    def busy(self) -> bool:
        """Whether something is being written right now."""
        return self._pending is not None and not self._pending.done()

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            OSError: where the last checkpoint could not be written.
        """
        if self._pending is None:
            return
        try:
            self._pending.result()
        finally:
            if self._pending.done():  # else this wait was interrupted, and the writing goes on
                self._pending = None

    def forget_after(self, step: int) -> None:
        """Drop what is left of steps that have been given up."""
        self._due = [left for left in self._due if left.step <= step]

    def _write_all(self) -> None:
        due, self._due = self._due, []
        try:
            while due:
                self._write(due[0])
                due.pop(0)
        except BaseException:
            self._due = [left for left in due if left.kind == "best"]
            raise

    def _write(self, snapshot: Snapshot) -> None:
        path = checkpoint.write(self.folder, snapshot)
        with suppress(OSError, CheckpointError):  # it is whole: what is missed here, the next one makes up for
            if snapshot.kind == "step":
                self.know(path)
            checkpoint.prune(self.folder, path, self.keep if snapshot.kind == "step" else 1)
