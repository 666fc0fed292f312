"""What is looked at once a reporting period, so that a training that has gone wrong does not go on for hours."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maxent.errors import TrainingFault
from maxent.run import files
from maxent.run.loggers import Row

DEAD, EXPLODED = 1e-8, 1e4
"""Learned temperatures beyond these, times the largest pay, serve nobody: no exploration, or nothing else."""
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


class Member(NamedTuple):
    """What the guards know of a member beside its row."""

    finite: bool
    """Whether everything it has learned is."""
    largest: float
    """The largest pay of one step so far: |reward|, scaled, and the bonus for entropy."""
    learns_temperature: bool
    gamma: float


def find(rows: Sequence[Row], members: Sequence[Member]) -> list[Fault]:
    """The faults of a report, one a member at most."""
    faults = []
    for row, member in zip(rows, members, strict=True):
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        checks = _not_finite(numbers, member), _temperature(numbers, member), _divergence(numbers, member)
        found = next((check for check in checks if check), None)
        if found:
            faults.append(Fault(row["step"], row["member"], row["seed"], *found))
    return faults


def entropy_bonus(row: Row) -> float:
    """What a step's entropy pays: α times the entropy, which has the weight 1 where no temperature is reported."""
    entropy, temperature = row.get("entropy", ""), row.get("temperature", 1.0)
    return abs(float(entropy) * float(temperature)) if "" not in (entropy, temperature) else 0.0


def write_report(path: Path, fault: TrainingFault, rows: Sequence[Row]) -> None:
    """What was found, where, and the last statistics, as JSON."""
    last = [{name: str(value) for name, value in row.items()} for row in rows]
    files.replace(path, json.dumps({"fault": str(fault), "last": last}, indent=1).encode())


def _not_finite(numbers: dict[str, float], member: Member) -> tuple[str, str] | None:
    bad = [name for name, value in numbers.items() if not math.isfinite(value)]
    if not bad and member.finite:
        return None
    what = f"{bad[0]} is {numbers[bad[0]]}" if bad else "a parameter is not finite"
    return what, "often a step size that is too large, or huge rewards: lower learning_rate, or set max_grad_norm"


def _temperature(numbers: dict[str, float], member: Member) -> tuple[str, str] | None:
    """Measured in the unit of the rewards. Without any reward a temperature that sinks is as it should be."""
    value = numbers.get("temperature")
    if value is None or not member.learns_temperature:
        return None
    if value < DEAD * member.largest:
        return f"the temperature has died: {value:.3g}", "target_entropy is too low: raise it, or fix temperature"
    if value > EXPLODED * max(member.largest, 1.0):
        return f"the temperature explodes: {value:.3g}", "the policy cannot reach target_entropy: lower it"
    return None


def _divergence(numbers: dict[str, float], member: Member) -> tuple[str, str] | None:
    q, gamma = numbers.get("q_mean"), member.gamma
    horizon = min(1 / (1 - gamma), LONGEST_HORIZON) if gamma < 1 else LONGEST_HORIZON
    most = member.largest * horizon
    if q is None or abs(q) <= FAR * max(most, 1.0):
        return None
    return (
        f"Q diverges: its mean is {q:.3g}, and what steps have paid allows {most:.3g}",
        "lower learning_rate or utd, or set layer_norm",
    )
