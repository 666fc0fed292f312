"""What every loop is: the state of a run between two iterations, and the way to the next ones.

Steps are counted as iterations × environments of a member, and what is dispatched together depends on that count alone:
never on who evaluates, saves or resumes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from maxent import devices
from maxent.envs.contract import Episode
from maxent.loops.pieces import Learned
from maxent.loops.programs import RING, Programs, all_finite
from maxent.replay import ring
from maxent.replay.ring import Ring
from maxent.types import Transition, Tree


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


class Loop:
    """`step`, `updates`, `learns_from`, `learned`, `ring` and the `moment` are the whole of a run's state.

    A subclass says where experience comes from; when it has the first observations it calls `_begin`.
    """

    learned: Learned
    ring: Ring
    finished: list[Episode]
    """Episodes that ended since the last report, in order."""
    learns_from: int
    """The step from which updates are due; where a resumed run has an empty ring, it fills it first."""

    def __init__(self, programs: Programs, shape: tuple[int, int], seeds: Sequence[int], swept: dict[str, Any]) -> None:
        self.programs, self.shape, self.seeds = programs, shape, list(seeds)
        self.roots = programs.roots(seeds)
        self.step, self.updates = 0, 0
        self._swept = swept
        devices.refuse_too_large(programs.init_shapes(self.roots, swept), programs.mesh, devices.NETWORKS)
        self.carry: Tree = programs.initial_carry(shape)
        self.ahead = 0
        """Updates already made for the step to come: those of an iteration that an environment broke off."""
        self.whole = True
        """Whether all parts of the state belong to the same step; for a moment in each iteration they do not."""
        self.stopping = False
        """Set it to leave `run` when the iteration under way is done: only between two of them is the state whole."""
        self.faults: list[str] = []
        """What failing environments said before they were made anew; whoever reads them empties the list."""
        self._replays = programs.algorithm.feed == "replay"

    @property
    def view(self) -> Tree:
        """What acting needs; to be used before the next update, which takes its arrays."""
        return self.programs.algorithm.view(self.learned.state)

    @property
    def moment(self) -> Tree:
        """Where the acting half stands: what `resume` needs beside the learned, the ring and the counters."""
        raise NotImplementedError

    @property
    def largest_reward(self) -> np.ndarray:
        """The largest |reward| that each member has seen, [member]."""
        raise NotImplementedError

    @property
    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """Of one environment's observations and actions."""
        raise NotImplementedError

    @property
    def sound(self) -> bool:
        """Whether everything learned and seen is finite: only then is a state worth keeping."""
        return bool(np.all(all_finite(self.learned.state)))

    def accepts(self, moment: Tree) -> bool:
        """Whether a moment that has the right shapes is sound in itself."""
        return True

    def run(self, total: int, every: int) -> Iterator[Report]:
        """Go on to the step `total`, reporting at every multiple of `every` and at the end.

        Stopped in between it reports nothing: the period goes on when the run does.
        """
        raise NotImplementedError

    def resume(self, moment: Tree, rows: Ring | None) -> np.ndarray:
        """Go on from a restored state with the ring that was saved, or, without one, fill a new one first.

        Returns where the environments are back in their running episodes, [member, env]. Elsewhere these are cut, as by
        a time limit.
        """
        raise NotImplementedError

    @contextmanager
    def _changing(self, taken: Tree = None) -> Iterator[None]:
        """Parts of the state belong to different steps meanwhile, and still do where something breaks off in here.

        But for what is broken off before a program has taken these arrays: it may have to be compiled for a minute, and
        who waits for that may well press Ctrl-C twice.
        """
        whole, self.whole = self.whole, False
        try:
            yield
        except BaseException:
            arrays = jax.tree.leaves(taken)
            untaken = bool(arrays) and not any(x.is_deleted() for x in arrays)
            self.whole = self.whole or (whole and untaken)
            raise
        self.whole = whole

    def _begin(self, row: Transition, obs: Tree) -> None:
        """Make what learns, and the ring with its first row: an observation that no step led to."""
        config, count = self.programs.config, self.shape[1]
        rows = ring_rows(config.buffer_size, count) if self._replays else config.rollout_length + 1
        learned = self.programs.init_shapes(self.roots, self._swept)
        self._extras = self.programs.extras(self.programs.algorithm.view(learned.state), obs, self.roots)
        empty = partial(ring.empty, self.programs.spec, rows, *self.shape, self._extras)
        devices.refuse_too_large(jax.eval_shape(empty), self.programs.mesh, beside=learned)
        self.learned = self.programs.init(self.roots, self._swept)
        self.ring = self.programs.made(empty, RING)
        self.learns_from = self._steps_to_collect()
        self._store(row)

    def _store(self, row: Transition) -> None:
        extras = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._extras)
        self.ring = self.programs.add(self.ring, row._replace(extras=extras))

    def _take_up(self, row: Transition, rows: Ring | None, kept: np.ndarray) -> None:
        """The ring of a resumed run, its episodes cut where they are not kept."""
        if rows is not None:
            self.ring = ring.cut(self.programs.placed(rows, RING), jnp.array(~kept))
        else:
            self.ring = ring.fresh(self.ring)
            self._store(row)
            self.learns_from = self.step + self._steps_to_collect()

    def _steps_to_collect(self) -> int:
        config, count = self.programs.config, self.shape[1]
        return steps_to_collect(config.learning_starts, config.n_step, count) if self._replays else 0

    def _learn_rollout(self) -> None:
        """One update, where the ring is full of steps that nothing was learned from."""
        if (self.step - self.learns_from) % (self.programs.config.rollout_length * self.shape[1]) == 0:
            self.learned = self.programs.learn_rollout(self.learned, self.ring, self.roots, np.uint32(self.updates))
            self.updates += 1

    def _report(self, episodes: list[Episode]) -> Report:
        learned = self.learned
        totals, updates, finite = jax.device_get((learned.totals, learned.updates, all_finite(learned.state)))
        metrics = dict(zip(self.programs.metrics, totals.T / updates, strict=True)) if updates else {}
        self.learned = learned._replace(totals=jnp.zeros_like(learned.totals), updates=jnp.zeros_like(learned.updates))
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
