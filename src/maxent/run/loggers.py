"""Where a run's rows go: CSV files and TensorBoard. A row is a dictionary; every logger is given the same ones."""

import csv
import io
import math
import os
import platform
import re
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from maxent.errors import CheckpointError
from maxent.run import files
from maxent.run.files import Growing

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
WHOLE = re.compile(r"[0-9]{1,18}")
NOT_CURVES = ("step", "member", "seed", "setting", "episodes", "wall_time")


class Logger(Protocol):
    """Takes rows as they come; what raises an OSError has written none of them."""

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
        self._progress, self._evaluations = Growing(progress), Growing(evaluations)

    def progress(self, rows: Sequence[Row]) -> None:
        """Append to progress.csv."""
        self._progress.append(_csv(rows, list(rows[0]), header=self._progress.empty()))

    def evaluation(self, rows: Sequence[Row]) -> None:
        """Append to evaluations.csv."""
        self._evaluations.append(_csv(rows, list(rows[0]), header=self._evaluations.empty()))

    def close(self) -> None:
        """Every row is in its file already."""


class TensorBoardLogger:
    """One member's event file, which TensorBoard reads.

    Events beyond `step`, of a run that is continued from there, are declared void. The file is framed here: the writer
    of tensorboardX has a thread of its own, which dies where the disk is full, and the training then waits for it
    without end.
    """

    def __init__(self, folder: Path, member: int, step: int) -> None:
        name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{platform.node()}.{os.getpid()}"
        self._file, self._member, self._step = Growing(folder / name), member, step

    def progress(self, rows: Sequence[Row]) -> None:
        """One point a number."""
        for row in self._own(rows):
            numbers = {k: v for k, v in row.items() if k not in NOT_CURVES and v != "" and math.isfinite(v)}
            names = {name: STABLE_BASELINES_NAMES.get(name, f"train/{name}") for name in numbers}
            self._append(row["step"], {names[name]: value for name, value in numbers.items()})

    def evaluation(self, rows: Sequence[Row]) -> None:
        """The means of an evaluation."""
        points, own = {}, self._own(rows)
        for tag, name in (("mean_reward", "return"), ("mean_ep_length", "length"), ("success_rate", "success")):
            values = [row[name] for row in own if row[name] != ""]
            if values:
                points[f"eval/{tag}"] = sum(values) / len(values)
        self._append(own[0]["step"], points)

    def close(self) -> None:
        """Every point is in the file already."""

    def _own(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if row["member"] == self._member]

    def _append(self, step: int, points: dict[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        now, values = time.time(), [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        events = [Event(wall_time=now, step=step, summary=Summary(value=values))]
        if self._file.empty():
            void = Event(wall_time=now, step=self._step + 1, session_log=SessionLog(status=SessionLog.START))
            events = [Event(wall_time=now, file_version="brain.Event:2"), void, *events]
        self._file.append(b"".join(_record(event.SerializeToString()) for event in events))


class Patient:
    """Hands rows to a logger; those that cannot be written wait, and are tried again, in order, before the next.

    The logger must leave nothing of rows that it could not write.
    """

    def __init__(self, logger: Logger, warn: Callable[[str], None]) -> None:
        self._logger, self._warn = logger, warn
        self._waiting: deque[tuple[Callable[[Sequence[Row]], None], Sequence[Row]]] = deque()

    def progress(self, rows: Sequence[Row]) -> None:
        """A period's rows."""
        self._hand_on(self._logger.progress, rows)

    def evaluation(self, rows: Sequence[Row]) -> None:
        """An evaluation's rows."""
        self._hand_on(self._logger.evaluation, rows)

    def close(self) -> None:
        """Try once more what waits.

        Raises:
            OSError: where it cannot be written.
        """
        try:
            self._write()
        finally:
            self._logger.close()

    def _hand_on(self, write: Callable[[Sequence[Row]], None], rows: Sequence[Row]) -> None:
        told = bool(self._waiting)
        self._waiting.append((write, rows))
        try:
            self._write()
        except OSError as error:
            if not told:
                self._warn(
                    f"cannot write {error.filename} ({error.strerror}): training goes on in memory, and the rows wait "
                    "for the next report"
                )

    def _write(self) -> None:
        while self._waiting:
            write, rows = self._waiting[0]
            write(rows)
            self._waiting.popleft()


def read_csv(path: Path, number: str = "step") -> list[dict[str, str]]:
    """The rows of a CSV file, none where it is missing; a last line that was not written whole is no row.

    Of each row `step` and `member` are whole numbers, and `number` is one, or empty.

    Raises:
        CheckpointError: where it is no such table.
    """
    if not path.exists():
        return []
    try:
        with files.opened(path) as file:
            text = file.read().decode()
        rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(f"{path} is damaged ({error}): repair it, or move it away") from None
    for line, row in enumerate(rows, 2):
        whole = None not in row and None not in row.values() and row.keys() >= {"step", "member", number}
        if not (whole and WHOLE.fullmatch(row["step"]) and WHOLE.fullmatch(row["member"]) and _number(row[number])):
            raise CheckpointError(f"{path} is damaged in line {line}: repair it, or move it away")
    return rows


def cut_back(path: Path, step: int, columns: Sequence[str]) -> None:
    """Leave only the rows up to that step, so that a continued run continues its curves.

    Raises:
        CheckpointError: where the file is damaged, or has other columns.
        OSError: where it cannot be written; it is then as it was.
    """
    rows = read_csv(path)
    if rows and list(rows[0]) != list(columns):
        raise CheckpointError(f"{path} has other columns than this run writes: repair it, or move it away")
    if rows:
        files.replace(path, _csv([row for row in rows if int(row["step"]) <= step], columns, header=True))


def _number(text: str) -> bool:
    try:
        return not text or math.isfinite(float(text))
    except ValueError:
        return False


def _csv(rows: Sequence[Row], columns: Sequence[str], header: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _record(content: bytes) -> bytes:
    """One event as it stands in a file: length, checksum, content, checksum (the TFRecord format)."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(content))
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in (length, content))
