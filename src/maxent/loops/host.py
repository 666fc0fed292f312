"""The loop over environments on the host.

One iteration of an algorithm that learns from a replay: act, dispatch the updates that are due, step the environments
while those run, store what came back. The action is the only thing that the host waits for. An algorithm that learns
from rollouts acts and stores until its ring is full of steps that it has not learned from.

Steps are counted as iterations × environments of a member, and what is dispatched together depends on that count alone:
never on who evaluates, saves or resumes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maxent import streams
from maxent.envs.host import Envs, Episode, Journal, Stepped
from maxent.errors import TrainingFault
from maxent.loops.programs import Learned, Programs
from maxent.replay import ring
from maxent.types import Tree


class Report(NamedTuple):
    """What happened since the last report."""

    step: int
    """Environment steps of each member since the beginning of the run."""
    updates: int
    """Gradient updates of each member since the beginning of the run."""
    episodes: list[Episode]
    metrics: dict[str, np.ndarray]
    """The mean of every metric over the updates since the last report, [member]; empty where there were none."""
    finite: np.ndarray
    """Whether every number that was learned is finite, [member]."""


class Moment(NamedTuple):
    """Where the acting half of a loop stands; with its counters, `learned` and the ring, all that a run is."""

    carry: Tree
    stepped: Stepped
    """Its row without extras, which are the ring's."""
    journal: Journal


class HostLoop:
    """A run's state between two iterations, and the way to the next ones.

    `step`, `updates`, `learns_from`, `learned`, `ring` and the `moment` are the whole of it.
    """

    def __init__(self, programs: Programs, envs: Envs, seeds: Sequence[int], swept: dict[str, Any]) -> None:
        config, (members, count) = programs.config, envs.shape
        self.programs, self.envs = programs, envs
        self.roots = streams.roots(seeds)
        self.step, self.updates = 0, 0
        self.learned: Learned = programs.init(self.roots, swept)
        self.carry: Tree = programs.initial_carry((members, count))
        self.stepped: Stepped = envs.reset()
        self._replays = programs.algorithm.feed == "replay"
        rows = ring_rows(config.buffer_size, count) if self._replays else config.rollout_length + 1
        self._extras = programs.extras(self.view, self.stepped.obs, self.roots)
        self.ring = ring.empty(programs.spec, rows, members, count, self._extras)
        self.learns_from = self._steps_to_collect()
        """The step from which updates are due; where a resumed run has an empty ring, it fills it first."""
        self.ahead = 0
        """Updates already made for the step to come: those of an iteration that an environment broke off."""
        self.whole = True
        """Whether all parts of the state belong to the same step: they do but for a moment in each iteration."""
        self.stopping = False
        """Set it to leave `run` when the iteration under way is done: only between two of them is the state whole."""
        self._store(self.stepped)

    @property
    def moment(self) -> Moment:
        """What `resume` needs beside the learned, the ring and the counters."""
        return Moment(self.carry, self.stepped, self.envs.journal())

    @property
    def view(self) -> Tree:
        """What acting needs; to be used before the next update, which takes its arrays."""
        return self.programs.algorithm.view(self.learned.state)

    def run(self, total: int, every: int) -> Iterator[Report]:
        """Go on to the step `total`, reporting at every multiple of `every` and at the end.

        Stopped in between it reports nothing: the period goes on when the run does.
        """
        observes = self._replays and self.programs.observes(self.learned, self.stepped.row)
        while self.step < total and not self.stopping:
            target = min(total, (self.step // every + 1) * every)
            while self.step < target and not self.stopping:
                self._iterate(observes)
            if self.step >= target:
                yield self._report()

    def resume(self, moment: Moment, rows: ring.Ring | None) -> np.ndarray:
        """Go on from a restored state with the ring that was saved, or, without one, fill a new one first.

        Returns where the environments are back in their running episodes, [member, env]. Elsewhere these are cut, as by
        a time limit.
        """
        kept = self.envs.restore(moment.journal, moment.stepped)
        row = moment.stepped.row
        self.stepped = moment.stepped._replace(row=row._replace(boundary=row.boundary | ~kept))
        self.carry = moment.carry
        if rows is not None:
            self.ring = ring.cut(rows, jnp.array(~kept))
        else:
            self.ring = ring.fresh(self.ring)
            self._store(self.stepped)
            self.learns_from = self.step + self._steps_to_collect()
        return kept

    def _store(self, stepped: Stepped) -> None:
        """The ring's first row: an observation that no step of this ring led to."""
        extras = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._extras)
        self.ring = self.programs.add(self.ring, stepped.row._replace(extras=extras))

    def _steps_to_collect(self) -> int:
        config, count = self.programs.config, self.envs.shape[1]
        return steps_to_collect(config.learning_starts, config.n_step, count) if self._replays else 0

    def _iterate(self, observes: bool) -> None:
        programs, count = self.programs, self.envs.shape[1]
        action, carry, extras = self._act()
        if self._replays:
            due = updates_due(programs.config.utd, self.step - self.learns_from, count) - self.ahead
            if due > 0:
                self.learned = programs.learn(self.learned, self.ring, self.roots, np.uint32(self.updates), count=due)
                self.updates += due
                self.ahead += due
        stepped = self.envs.step(self.stepped.obs, action)
        self.whole = False
        if stepped.failed.any():
            self.ring = ring.cut(self.ring, jnp.array(stepped.failed))
        self.ring = programs.add(self.ring, stepped.row._replace(extras=extras))
        self.stepped, self.carry, self.ahead = stepped, carry, 0
        self.step += count
        if observes:
            self.learned = programs.observe(self.learned, stepped.row)
        if not self._replays and (self.step - self.learns_from) % (programs.config.rollout_length * count) == 0:
            self.learned = programs.learn_rollout(self.learned, self.ring, self.roots, np.uint32(self.updates))
            self.updates += 1
        self.whole = True

    def _act(self) -> tuple[np.ndarray, Tree, Tree]:
        """The actions for the present observations, the actor's memory after them, and what is to be stored."""
        programs, stepped, step = self.programs, self.stepped, np.uint32(self.step)
        if self._replays and self.step < programs.config.learning_starts:
            drawn, carry = programs.warm_up(self.roots, step, envs=self.envs.shape[1]), self.carry
            extras = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._extras)
        else:
            drawn, carry, extras = programs.act(
                self.view, self.carry, stepped.obs, stepped.starts, self.roots, step, explore=True
            )
        action = np.asarray(drawn)
        if not np.isfinite(action).all():
            member = int(np.argmin(np.isfinite(action).reshape(len(action), -1).all(1)))
            raise TrainingFault(f"member {member} at step {self.step:,}: its policy gives actions that are not finite")
        return action, carry, extras

    def _report(self) -> Report:
        learned = self.learned
        totals, updates, finite = jax.device_get((learned.totals, learned.updates, self.programs.finite(learned.state)))
        metrics = dict(zip(self.programs.metrics, totals.T / updates, strict=True)) if updates else {}
        self.learned = self.learned._replace(
            totals=jnp.zeros_like(self.learned.totals), updates=jnp.zeros_like(self.learned.updates)
        )
        episodes = self.envs.finished[:]
        self.envs.finished.clear()
        return Report(self.step, self.updates, episodes, metrics, finite)


def ring_rows(buffer_size: int, envs: int) -> int:
    """Rows that hold `buffer_size` transitions of one member: n steps touch n + 1 rows."""
    return -(-buffer_size // envs) + 1


def steps_to_collect(learning_starts: int, n_step: int, count: int) -> int:
    """Steps before the first update: whole iterations, and at least as many as a window of n steps needs."""
    return -(-max(learning_starts, n_step * count) // count) * count


def updates_due(utd: float, learning_steps: int, count: int) -> int:
    """Updates in the iteration that begins so many steps after learning did, with `count` steps an iteration."""
    if learning_steps < 0:
        return 0
    return int((learning_steps + count) * utd) - int(learning_steps * utd)
