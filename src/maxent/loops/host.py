"""The loop over environments on the host.

One iteration: act, dispatch the updates that are due, step the environments while those run, store what came back. The
action is the only thing that the host waits for. Steps are counted as iterations × environments of a member, and what
is dispatched together depends on that count alone: never on who evaluates, saves or resumes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maxent import streams
from maxent.envs.host import Envs, Episode, Stepped
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


class HostLoop:
    """A run's state between two iterations, and the way to the next ones.

    `step`, `updates`, `learned`, `view`, `carry`, `ring` and `stepped` are the whole state, with the environments'.
    """

    def __init__(self, programs: Programs, envs: Envs, seeds: Sequence[int], swept: dict[str, Any]) -> None:
        config, (members, count) = programs.config, envs.shape
        self.programs, self.envs = programs, envs
        self.roots = streams.roots(seeds)
        self.step, self.updates = 0, 0
        self.learned: Learned = programs.init(self.roots, swept)
        self.view: Tree = programs.view(self.learned.state)
        self.carry: Tree = programs.algorithm.initial_carry(programs.config, programs.spec, (members, count))
        self.ring = ring.empty(programs.spec, ring_rows(config.buffer_size, count), members, count)
        self.learns_from = steps_to_collect(config.learning_starts, config.n_step, count)
        """The step of the first update; where a resumed run has an empty replay, it collects as much first."""
        self.stopping = False
        """Set it to leave `run` when the iteration under way is done: only between two of them is the state whole."""
        self._begin_episodes()

    def run(self, total: int, every: int) -> Iterator[Report]:
        """Go on to the step `total`, reporting at every multiple of `every` and at the end."""
        observes = self.programs.observes(self.learned, self.stepped.row)
        while self.step < total and not self.stopping:
            target = min(total, (self.step // every + 1) * every)
            while self.step < target and not self.stopping:
                self._iterate(observes)
            yield self._report()

    def resume(self, rows: ring.Ring | None) -> None:
        """Go on from a restored state with the replay that was saved, or, without one, fill a new one first."""
        self.ring = ring.cut(self.ring if rows is None else rows)
        if rows is None:
            config = self.programs.config
            self.learns_from = self.step + steps_to_collect(config.learning_starts, config.n_step, self.envs.shape[1])
        self._begin_episodes()

    def _begin_episodes(self) -> None:
        """Reset the environments; an episode that was running is cut, as by a time limit."""
        self.stepped: Stepped = self.envs.reset()
        self.ring = self.programs.add(self.ring, self.stepped.row)

    def _iterate(self, observes: bool) -> None:
        programs, config, count = self.programs, self.programs.config, self.envs.shape[1]
        obs, step = self.stepped.obs, np.uint32(self.step)
        if self.step < config.learning_starts:
            action = programs.warm_up(self.roots, step, envs=count)
        else:
            action, self.carry, _ = programs.act(self.view, self.carry, obs, self.roots, step, explore=True)
        action = np.asarray(action)
        due = updates_due(config.utd, self.step - self.learns_from, count)
        if due:
            self.learned, self.view = programs.learn(
                self.learned, self.ring, self.roots, np.uint32(self.updates), count=due
            )
            self.updates += due
        self.stepped = self.envs.step(obs, action)
        self.ring = programs.add(self.ring, self.stepped.row)
        if observes:
            self.learned = programs.observe(self.learned, self.stepped.row)
            self.view = programs.view(self.learned.state)
        self.step += count

    def _report(self) -> Report:
        totals, updates = jax.device_get((self.learned.totals, self.learned.updates))
        metrics = dict(zip(self.programs.metrics, totals.T / updates, strict=True)) if updates else {}
        self.learned = self.learned._replace(
            totals=jnp.zeros_like(self.learned.totals), updates=jnp.zeros_like(self.learned.updates)
        )
        episodes = self.envs.finished[:]
        self.envs.finished.clear()
        return Report(self.step, self.updates, episodes, metrics)


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
