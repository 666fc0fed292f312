"""What a run knows of its past: the episodes that ended, the largest pay, its evaluations, the time it took."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from maxent.envs.contract import Episode
from maxent.errors import TrainingFault
from maxent.loops.loop import Loop, Report
from maxent.run import guards
from maxent.run.files import COUNT
from maxent.run.loggers import Row
from maxent.sweep import Member

WINDOW = 100
"""Episodes over which returns, lengths and successes are averaged."""

PERIOD = ("updates", "episodes", "wall_time", "steps_per_second", "return_mean", "length_mean", "success_rate")
"""Columns of progress.csv, before the metrics."""
EPISODES = ("episode", "env_seed", "return", "length", "success")
"""Columns of evaluations.csv."""

NUMBER = int | float
EPISODE = (COUNT, COUNT, range(2**63), range(-1, 2**63), NUMBER, range(2**63), NUMBER | None)
COUNTERS = {
    "wall_time": NUMBER, "episodes": [range(2**63)], "recent": [[EPISODE]], "best": [NUMBER | None],
    "evaluation_due": bool, "largest_bonus": [NUMBER],
}  # fmt: skip
"""The form of a history in a checkpoint; an `Episode` is a list of its fields."""


class History:
    """Of all members of a run."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.wall_time = 0.0
        self.best = [-np.inf] * len(members)
        """The mean return of the best evaluation, by member."""
        self.evaluation_due = False
        """Whether this step's evaluation was broken off."""
        self.recent: list[deque[Episode]] = [deque(maxlen=WINDOW) for _ in members]
        self.episodes = [0] * len(members)
        self.largest_bonus = np.zeros(len(members))
        """The most that entropy has paid for a step, by member."""

    def forget_best(self) -> None:
        """Take the next evaluation for the best one."""
        self.best = [-np.inf] * len(self.members)

    def rows(self, report: Report, metrics: Sequence[str], steps: int, seconds: float) -> list[Row]:
        """A row a member, with these metrics, for a report that so many steps and seconds led to."""
        self.wall_time += seconds
        for episode in report.episodes:
            self.recent[episode.member].append(episode)
            self.episodes[episode.member] += 1
        rows = []
        for i, (member, recent) in enumerate(zip(self.members, self.recent, strict=True)):
            successes = [e.success for e in recent if e.success is not None]
            row = [
                report.step, i, *member.columns().values(),
                report.updates, self.episodes[i], round(self.wall_time, 3), round(steps / seconds, 1),
                float(np.mean([e.total_reward for e in recent])) if recent else "",
                float(np.mean([e.length for e in recent])) if recent else "",
                float(np.mean(successes)) if successes else "",
                *(float(report.metrics[name][i]) if report.metrics else "" for name in metrics),
            ]  # fmt: skip
            rows.append(dict(zip(self.columns(PERIOD, metrics), row, strict=True)))
        return rows

    def evaluation(self, step: int, played: Sequence[Sequence[Episode]]) -> list[Row]:
        """A row an episode of an evaluation at that step, [member][episode]."""
        rows = [
            [
                step, e.member, *self.members[e.member].columns().values(),
                i, e.seed, e.total_reward, e.length, "" if e.success is None else e.success,
            ]
            for own in played for i, e in enumerate(own)
        ]  # fmt: skip
        return [dict(zip(self.columns(EPISODES), row, strict=True)) for row in rows]

    def columns(self, *groups: Sequence[str]) -> list[str]:
        """Those of a row: whose it is, and then the groups'."""
        return ["step", "member", *self.members[0].columns(), *(name for group in groups for name in group)]

    def counters(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, in the form of COUNTERS."""
        return {
            "wall_time": self.wall_time,
            "episodes": list(self.episodes),
            "recent": [[list(e) for e in own] for own in self.recent],
            "best": [None if np.isinf(value) else value for value in self.best],
            "evaluation_due": self.evaluation_due,
            "largest_bonus": self.largest_bonus.tolist(),
        }

    def restore(self, counters: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.wall_time, self.episodes = counters["wall_time"], counters["episodes"]
        self.recent = [deque((Episode(*e) for e in own), maxlen=WINDOW) for own in counters["recent"]]
        self.best = [-np.inf if value is None else value for value in counters["best"]]
        self.evaluation_due = counters["evaluation_due"]
        self.largest_bonus = np.array(counters["largest_bonus"], float)

    def refuse_faults(self, loop: Loop, report: Report, rows: Sequence[Row]) -> None:
        """Compare what was learned with what steps have paid.

        Raises:
            TrainingFault: where a member has gone wrong.
        """
        numbers = jax.device_get(loop.learned.state.numbers)
        paid = numbers.get("reward_scale", 1.0) * loop.largest_reward
        self.largest_bonus = np.maximum(self.largest_bonus, [guards.entropy_bonus(row) for row in rows])
        unknown = "temperature" in numbers and "entropy" not in loop.programs.metrics
        largest = np.full(len(rows), np.inf) if unknown else paid + self.largest_bonus
        auto = getattr(loop.programs.config, "temperature", None) == "auto"
        own = zip(report.finite.tolist(), largest.tolist(), numbers["gamma"].tolist(), strict=True)
        members = [guards.Member(finite, most, auto, gamma) for finite, most, gamma in own]
        faults = guards.find(rows, members)
        if faults:
            raise TrainingFault("; ".join(map(str, faults)))
