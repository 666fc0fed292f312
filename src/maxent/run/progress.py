"""A training's progress: a bar where there is a terminal, else a line now and then."""

import sys
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from maxent.run.driver import Progress

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
            left = max(progress.total - progress.step, 0) / progress.rows[0]["steps_per_second"]
            minutes, seconds = divmod(round(left), 60)
            hours, minutes = divmod(minutes, 60)
            print(
                f"step {progress.step:,}/{progress.total:,}  {numbers}  {hours}:{minutes:02}:{seconds:02} left",
                flush=True,
            )


def _numbers(progress: Progress) -> str:
    parts = [f"{progress.rows[0]['steps_per_second']:,.0f} steps/s"]
    for label, name, form in (("return", "return_mean", "{:,.1f}"), ("temperature", "temperature", "{:.3g}")):
        values: list[Any] = [row[name] for row in progress.rows if row.get(name, "") != ""]
        if values:
            parts.append(f"{label} {form.format(np.mean(values))}")
    return "  ".join(parts)
