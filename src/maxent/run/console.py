"""What a training shows on the console: a bar where there is a terminal, else a line now and then."""

import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from maxent.errors import Terminated, TrainingFault
from maxent.run import checkpoint, folder, policy, video
from maxent.run.driver import Driver, Progress
from maxent.run.loggers import read_csv
from maxent.study import curves

INTERRUPTED, TERMINATED, FAULT = 130, 143, 3
"""The exit codes after a Ctrl-C and a SIGTERM, as shells count them, and where training has gone wrong."""
REPORTS_PER_LINE = 10
"""Reports between two plain lines."""


class ProgressBar:
    """A training's progress on the standard output, as a callback of the driver; used in a `with` block.

    Shown are the step, steps/s, the time left, the mean return of the last episodes and the temperature; of several
    members, their means.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._reports, self._total = 0, total
        self._bar: Bar | None = None
        if sys.stdout.isatty():
            columns = (
                BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True), TextColumn("left"),
            )  # fmt: skip
            self._bar = Bar(*columns, console=Console(), speed_estimate_period=120)
            self._task = self._bar.add_task("", total=total, completed=done, numbers="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show a report."""
        numbers = _numbers(progress)
        self._reports += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.step, numbers=numbers)
        elif self._reports % REPORTS_PER_LINE == 1 or progress.step >= progress.total:
            left = (progress.total - progress.step) / progress.rows[0]["steps_per_second"]
            minutes, seconds = divmod(round(left), 60)
            hours, minutes = divmod(minutes, 60)
            print(
                f"step {progress.step:,}/{progress.total:,}  {numbers}  {hours}:{minutes:02}:{seconds:02} left",
                flush=True,
            )


def train(run: Driver, total: int) -> int:
    """Train to the step `total` and say what came of it; the exit code of the command."""
    path = run.path
    if path is None:
        raise ValueError("a training on the console needs a run folder")
    run.warn = warn
    print(f"run     {path}", flush=True)
    try:
        with ProgressBar(total, run.loop.step) as bar:
            run.learn(total, [bar])
    except TrainingFault as fault:
        print(f"maxent: fault: {fault}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt as interrupt:
        again = f"saved at step {run.loop.step:,}; continue with: maxent resume {shlex.quote(str(path))}"
        saved = checkpoint.find(path / folder.CHECKPOINTS)
        print(f"maxent: interrupted, {again if saved else 'before anything was learned'}", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    print(f"result  {summary(path)}")
    curves.draw([path], path / folder.CURVE)
    print(f"curve   {path / folder.CURVE}")
    if run.config.video:
        trained = policy.load(path)
        out = video.default_path(path, trained)
        video.record(trained, out)
        print(f"video   {out}")
    return 0


def warn(message: str) -> None:
    """Say something that should be known and stops nothing, on the standard error."""
    print(f"maxent: warning: {message}", file=sys.stderr, flush=True)


def summary(run: Path) -> str:
    """The last evaluation of a run in one line; empty where there was none."""
    rows = read_csv(run / folder.EVALUATIONS)
    if not rows:
        return ""
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    returns, seeds = [float(row["return"]) for row in last], len({row["member"] for row in last})
    episodes = f"{len(last) // seeds} episodes" + (f" of each of {seeds} seeds" if seeds > 1 else "")
    return f"return {np.mean(returns):.1f} ± {np.std(returns):.1f} in {episodes} after {int(rows[-1]['step']):,} steps"


def _numbers(progress: Progress) -> str:
    parts = [f"{progress.rows[0]['steps_per_second']:,.0f} steps/s"]
    for label, name, form in (("return", "return_mean", "{:,.1f}"), ("temperature", "temperature", "{:.3g}")):
        values: list[Any] = [row[name] for row in progress.rows if row.get(name, "") != ""]
        if values:
            parts.append(f"{label} {form.format(np.mean(values))}")
    return "  ".join(parts)
