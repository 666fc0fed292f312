"""Keeps a run's checkpoints: takes them while it trains, and takes it back to them."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from maxent.config import TrainConfig
from maxent.errors import CheckpointError, TrainingFault
from maxent.loops.loop import Loop
from maxent.run import checkpoint, folder, saving
from maxent.run.history import History
from maxent.run.rowfiles import File
from maxent.run.writer import Writer

MOST_ATTEMPTS = 10
"""Times that a run goes back to a checkpoint before it stops."""


class Keeper:
    """The checkpoints of one run, in its folder."""

    def __init__(self, path: Path, config: TrainConfig, loop: Loop, history: History) -> None:
        self.path, self.loop, self.history = path, loop, history
        self.warn: Callable[[str], None] = warnings.warn
        """What is told that something could not be written or read."""
        self.attempt = 0
        """How often the run has gone back to a checkpoint after a fault: each time with other random numbers."""
        self._config = config
        self._cut = 0
        """Running episodes that `restore` could not bring back."""
        self._damaged: list[Path] = []
        self._writer = self._into(path)

    def write(self, path: Path | None = None) -> None:
        """Write a checkpoint of this moment, into another run's folder if one is given; return when it is there.

        Raises:
            OSError: where it cannot be written.
        """
        writer = self._writer if path is None else self._into(path)
        writer.write(self._snapshot("step", writer.known()))
        writer.wait()

    def write_meanwhile(self, kind: str) -> None:
        """Write one of this moment while the training goes on: "step", or "best", which holds no replay."""
        self.wait()
        self._writer.write(self._snapshot(kind, self._writer.known()).detached())

    def busy(self) -> bool:
        """Whether a checkpoint is being written right now."""
        return self._writer.busy()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written; where it cannot be, the training goes on without."""
        try:
            self._writer.wait()
        except OSError as error:
            self.warn(
                f"cannot write {error.filename} ({error.strerror}): training goes on in memory, and the next "
                "checkpoint is tried in its turn"
            )

    def restore(self, path: Path, best: bool = False) -> None:
        """Take up the last (or the best) whole checkpoint of a run folder.

        Raises:
            CheckpointError: where there is none, or every one is damaged.
        """
        candidates = checkpoint.candidates(path / folder.CHECKPOINTS, best)
        found, saved = checkpoint.first_whole(candidates, lambda path: saving.read(path, self.loop), self.warn)
        self._damaged = candidates[: candidates.index(found)] if not best else []
        self.attempt = saved.counters["attempt"]
        self.loop.roots = self.loop.programs.roots(self.loop.seeds, self.attempt)
        self._cut = saving.give_back(saved, self.loop, self.history)
        self._writer.know(found)

    def set_damaged_aside(self) -> None:
        """Put what `restore` had to skip out of the way of those to come."""
        for damaged in self._damaged:
            checkpoint.set_aside(damaged)
        self._damaged = []

    def tell_of_cuts(self) -> None:
        """Say once that running episodes could not be brought back, where that is so."""
        if self._cut:
            self.warn(
                f"{self._cut} of the running episodes could not be brought back: with the same seed and actions the "
                "environment went another way; they are cut, as by a time limit"
            )
        self._cut = 0

    def go_back(self, fault: TrainingFault) -> None:
        """Take up the last checkpoint with random numbers that were not used yet.

        Raises:
            TrainingFault: that fault, where it has come too often or there is nothing to go back to.
        """
        attempt, checkpoints = self.attempt + 1, self.path / folder.CHECKPOINTS
        if attempt > MOST_ATTEMPTS:
            raise fault
        try:
            self.restore(self.path)
            for best in checkpoint.find(checkpoints, "best"):
                if saving.counters(best)["step"] > self.loop.step:  # of the attempt that is given up
                    checkpoint.set_aside(best, "abandoned")
            if not checkpoint.find(checkpoints, "best"):
                self.history.forget_best()
        except (CheckpointError, OSError):
            raise fault from None
        self._writer.forget_after(self.loop.step)
        self.attempt = attempt
        self.loop.roots = self.loop.programs.roots(self.loop.seeds, attempt)
        self.warn(f"{fault}; going back to step {self.loop.step:,} with other random numbers")

    def _into(self, path: Path) -> Writer:
        return Writer(path / folder.CHECKPOINTS, self._config.keep_checkpoints)

    def _snapshot(self, kind: str, known: Sequence[File]) -> checkpoint.Snapshot:
        replays = self.loop.programs.algorithm.feed == "replay"
        with_rows = kind == "step" and (self._config.save_replay or not replays)
        return saving.taken(kind, self.loop, self.history, self.attempt, with_rows, known)
