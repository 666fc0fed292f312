"""Where a run's rows go: CSV files and TensorBoard. A row is a dictionary; every logger is given the same ones."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Row = dict[str, Any]

STABLE_BASELINES_NAMES = {
    "return_mean": "rollout/ep_rew_mean",
    "length_mean": "rollout/ep_len_mean",
    "success_rate": "rollout/success_rate",
    "steps_per_second": "time/fps",
    "updates": "train/n_updates",
    "temperature": "train/ent_coef",
    "temperature_loss": "train/ent_coef_loss",
    "obs_min": "rollout/obs_min",
    "obs_max": "rollout/obs_max",
    "obs_mean": "rollout/obs_mean",
}
"""Ours → theirs. What is not here goes under train/ with its own name."""
NOT_CURVES = ("step", "member", "seed", "setting", "episodes", "wall_time")


class Logger(Protocol):
    """Takes rows as they come."""

    def progress(self, rows: Sequence[Row]) -> None:
        """A period's rows, one a member."""
        ...

    def evaluation(self, rows: Sequence[Row]) -> None:
        """An evaluation's rows, one an episode."""
        ...

    def close(self) -> None:
        """Nothing comes any more."""
        ...


class CSVLogger:
    """progress.csv and evaluations.csv; those that are there are continued."""

    def __init__(self, progress: Path, evaluations: Path) -> None:
        self._paths = {"progress": progress, "evaluation": evaluations}

    def progress(self, rows: Sequence[Row]) -> None:
        """Append to progress.csv."""
        self._append("progress", rows)

    def evaluation(self, rows: Sequence[Row]) -> None:
        """Append to evaluations.csv."""
        self._append("evaluation", rows)

    def close(self) -> None:
        """Every row is on the disk already."""

    def _append(self, kind: str, rows: Sequence[Row]) -> None:
        path = self._paths[kind]
        new = not path.exists() or not path.stat().st_size
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            if new:
                writer.writeheader()
            writer.writerows(rows)


class TensorBoardLogger:
    """Event files that TensorBoard reads: one run, or one a member where there are several.

    Events beyond `step`, of a run that is continued from there, are declared void.
    """

    def __init__(self, folder: Path, members: int, step: int) -> None:
        from tensorboardX import SummaryWriter

        names = [folder / f"member-{i}" for i in range(members)] if members > 1 else [folder]
        self._writers = [SummaryWriter(str(name), purge_step=step + 1 if step else None) for name in names]

    def progress(self, rows: Sequence[Row]) -> None:
        """One point a number."""
        for row in rows:
            for name, value in row.items():
                if name not in NOT_CURVES and value != "" and math.isfinite(value):
                    tag = STABLE_BASELINES_NAMES.get(name, f"train/{name}")
                    self._writers[row["member"]].add_scalar(tag, value, row["step"])

    def evaluation(self, rows: Sequence[Row]) -> None:
        """The means of an evaluation, each member's under its own writer."""
        for member, writer in enumerate(self._writers):
            own = [row for row in rows if row["member"] == member]
            for tag, name in (("mean_reward", "return"), ("mean_ep_length", "length"), ("success_rate", "success")):
                values = [row[name] for row in own if row[name] != ""]
                if values:
                    writer.add_scalar(f"eval/{tag}", sum(values) / len(values), own[0]["step"])

    def close(self) -> None:
        """Flush the files."""
        for writer in self._writers:
            writer.close()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, none where it is missing."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cut_back(path: Path, step: int) -> None:
    """Leave only the rows up to that step, so that a continued run continues its curves."""
    rows = read_csv(path)
    if rows:
        kept = [row for row in rows if int(row["step"]) <= step]
        aside = path.with_suffix(".partial")
        with open(aside, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)
        aside.replace(path)
