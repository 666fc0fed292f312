"""What is looked at once a reporting period, so that a training that has gone wrong does not go on for hours."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maxent.errors import TrainingFault
from maxent.run.loggers import Row

DEAD, EXPLODED = 1e-8, 1e4
"""Learned temperatures beyond these serve nobody: the first is no exploration, the second no reward."""
FAR = 10.0
"""How far beyond what the rewards allow Q may stray before it is called divergence."""
LONGEST_HORIZON = 1e5


class Fault(NamedTuple):
    """Something that has gone wrong in one member."""

    step: int
    member: int
    seed: int
    what: str
    causes: str
    """The likely ones, and the settings to change."""

    def __str__(self) -> str:
        return f"member {self.member} (seed {self.seed}) at step {self.step:,}: {self.what}; {self.causes}"


def find(rows: Sequence[Row], finite: Sequence[bool], largest_rewards: Sequence[float], gamma: float) -> list[Fault]:
    """The faults of a report: its rows, whether each member's arrays are finite, and its largest |reward| so far."""
    faults = []
    for row, whole, reward in zip(rows, finite, largest_rewards, strict=True):
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        for what, causes in (
            _not_finite(numbers, whole),
            _temperature(numbers),
            _divergence(numbers, reward, gamma),
        ):
            if what:
                faults.append(Fault(row["step"], row["member"], row["seed"], what, causes))
                break
    return faults


def write_report(path: Path, fault: TrainingFault, rows: Sequence[Row]) -> None:
    """What was found, where, and the last statistics, as JSON."""
    last = [{name: str(value) for name, value in row.items()} for row in rows]
    path.write_text(json.dumps({"fault": str(fault), "last": last}, indent=1), encoding="utf-8")


def _not_finite(numbers: dict[str, float], whole: bool) -> tuple[str, str]:
    bad = [name for name, value in numbers.items() if not math.isfinite(value)]
    if not bad and whole:
        return "", ""
    what = f"{bad[0]} is {numbers[bad[0]]}" if bad else "a parameter is not finite"
    return (
        what,
        "often a step size that is too large or rewards of a great scale: lower learning_rate, set max_grad_norm",
    )


def _temperature(numbers: dict[str, float]) -> tuple[str, str]:
    value = numbers.get("temperature")
    if value is None or value == 0 or DEAD <= value <= EXPLODED:
        return "", ""
    if value < DEAD:
        return f"the temperature has died: {value:.3g}", "the policy cannot become less random: lower target_entropy"
    return f"the temperature explodes: {value:.3g}", "the policy cannot reach target_entropy: lower it"


def _divergence(numbers: dict[str, float], reward: float, gamma: float) -> tuple[str, str]:
    q = numbers.get("q_mean")
    if q is None:
        return "", ""
    horizon = min(1 / (1 - gamma), LONGEST_HORIZON) if gamma < 1 else LONGEST_HORIZON
    entropy = abs(numbers.get("temperature", 0.0) * numbers.get("entropy", 0.0))
    most = (reward + entropy) * horizon
    if abs(q) <= FAR * max(most, 1.0):
        return "", ""
    return (
        f"Q diverges: its mean is {q:.3g}, and rewards of at most {reward:.3g} allow {most:.3g}",
        "lower learning_rate or utd, or set layer_norm",
    )
