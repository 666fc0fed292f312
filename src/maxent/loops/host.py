"""The loop over environments on the host.

One iteration of an algorithm that learns from a replay: dispatch acting, and behind it the updates that are due; step
the environments with the actions while those run; store what came back. The actions are the only thing that the host
waits for, and the device does not wait for the host to have them. An algorithm that learns from rollouts acts and
stores until its ring is full of steps that it has not learned from. Where a CPU computes natively, the iterations are
turns of one program (loops/turns.py), in the same order.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maxent.envs.contract import Envs, Episode, Journal, Stepped
from maxent.errors import TrainingFault
from maxent.loops.loop import Loop, Report, updates_due
from maxent.loops.pieces import LAST, Counters
from maxent.loops.programs import Programs
from maxent.loops.turns import Turns
from maxent.replay import ring
from maxent.replay.ring import Ring
from maxent.types import Transition, Tree


class Moment(NamedTuple):
    """Where the acting half of the loop stands."""

    carry: Tree
    stepped: Stepped
    """Its row without extras, which are the ring's."""
    journal: Journal


class HostLoop(Loop):
    """The loop over environments that are stepped by the host."""

    def __init__(self, programs: Programs, envs: Envs, seeds: Sequence[int], swept: dict[str, Any]) -> None:
        self._block: Tree = None
        """Rows of a rollout, [row, member, env, …], of which the first `_waiting` are not in the ring yet."""
        self._waiting = 0
        super().__init__(programs, envs.shape, seeds, swept)
        self.envs, self.faults = envs, envs.faults
        self.stepped: Stepped = envs.reset()
        self._begin(self.stepped.row, self.stepped.obs)
        self._observes = self._replays and programs.observes(self.learned, self.stepped.row)
        self._turns = Turns(programs.turns, self.stepped) if self._replays and programs.turns else None

    @property
    def moment(self) -> Moment:
        """What `resume` needs beside the learned, the ring and the counters."""
        return Moment(self.carry, self.stepped, self.envs.journal())

    @property
    def ring(self) -> Ring:
        """With every row in it: those of a rollout wait for whoever looks, since each by itself is a dispatch more."""
        if self._waiting:
            with self._changing(self._ring):
                self.ring = self.programs.extend(self._ring, self._block, np.int32(self._waiting))
        return self._ring

    @ring.setter
    def ring(self, rows: Ring) -> None:
        self._ring, self._waiting = rows, 0

    @property
    def finished(self) -> list[Episode]:
        """Episodes that ended since the last report, in order."""
        return self.envs.finished

    @finished.setter
    def finished(self, episodes: list[Episode]) -> None:
        self.envs.finished[:] = episodes

    @property
    def largest_reward(self) -> np.ndarray:
        """The largest |reward| that each member has seen, [member]."""
        return self.envs.largest_reward

    @property
    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """Of one environment's observations and actions."""
        return self.envs.observation_space, self.envs.action_space

    def accepts(self, moment: Moment) -> bool:
        """Whether the journal's lengths are those of its actions, in episodes that have begun."""
        begun, lengths, actions = moment.journal.episodes, moment.journal.lengths, len(moment.journal.actions)
        return not ((lengths < 0) | (lengths > actions) | (begun < 1)).any() and lengths.sum() == actions

    def run(self, total: int, every: int) -> Iterator[Report]:
        """Go on to the step `total`, reporting at every multiple of `every` and at the end."""
        while self.step < total and not self.stopping:
            target = min(total, (self.step // every + 1) * every)
            while self.step < target and not self.stopping:
                if self._turns is not None and not self._turns.vain and not self._warms_up:
                    self._take_turns(self._turns, target)
                else:
                    self._iterate()
            if self.step >= target:
                episodes, self.finished = self.finished[:], []
                yield self._report(episodes)

    def resume(self, moment: Moment, rows: Ring | None) -> np.ndarray:
        """Go on from a restored state; where the running episodes could be played again, [member, env]."""
        kept = self.envs.restore(moment.journal, moment.stepped)
        row = moment.stepped.row
        self.stepped = moment.stepped._replace(row=row._replace(boundary=row.boundary | ~kept))
        self.carry = moment.carry
        self._take_up(self.stepped.row, rows, kept)
        return kept

    @property
    def _warms_up(self) -> bool:
        return self._replays and self.step < self.programs.config.learning_starts

    def _iterate(self) -> None:
        """One iteration of programs that are dispatched one by one."""
        drawn, carry, extras = self._act()
        due = self._due(self.step) - self.ahead
        if due > 0:
            args = self.learned, self.ring, self.roots, np.uint32(self.updates)
            with self._changing(self.learned):
                self.learned = self.programs.learn(*args, count=due)
                self.updates += due
                self.ahead += due
        stepped = self.envs.step(self.stepped.obs, self._fetched(drawn))
        with self._changing():
            self._add(stepped, carry, extras)
            if not self._replays:
                self._learn_rollout()

    def _take_turns(self, turns: Turns, target: int) -> None:
        """Iterations up to the target, or to a row that the program does not take, as one program."""
        due, taken = max(self._due(self.step) - self.ahead, 0), True
        counters = Counters(*[np.uint32(x) for x in (self.step, self.updates, self.ahead)])
        with self._changing(self.learned):
            turned = turns.begin(
                self.stepped, self.learned, self.ring, self.carry, self.roots, counters, np.int32(due),
                observes=self._observes,
            )  # fmt: skip
            self.learned, self.ring, self.carry = turned.learned, turned.rows, turned.carry
            try:
                while taken and due != LAST:
                    stepped = self.envs.step(self.stepped.obs, self._fetched(turns.action()))
                    self.stepped, self.step = stepped, self.step + self.shape[1]
                    due = self._due(self.step) if self.step < target and not self.stopping else LAST
                    taken = not stepped.failed.any() and turns.take(stepped, due)
            finally:
                raised = turns.end()
                stored, self.updates, self.ahead = (int(x) for x in jax.device_get(turned.counters))
                if stored < self.step:
                    self.step = stored
                    self._add(self.stepped, *turned.acted)
                self.whole = True
                if raised:
                    raise raised

    def _due(self, step: int) -> int:
        """Updates in the iteration that begins at that step."""
        return updates_due(self.programs.config.utd, step - self.learns_from, self.shape[1]) if self._replays else 0

    def _add(self, stepped: Stepped, carry: Tree, extras: Tree) -> None:
        """Store what came of a step, and go on from there."""
        if stepped.failed.any():
            self.ring = ring.cut(self.ring, jnp.array(stepped.failed))
        if self._replays:
            self.ring = self.programs.add(self.ring, stepped.row._replace(extras=extras))
        else:
            self._put_by(stepped.row._replace(obs=(), extras=extras))
        if self._observes:
            self.learned = self.programs.observe(self.learned, stepped.row)
        self.stepped, self.carry, self.ahead = stepped, carry, 0
        self.step += self.shape[1]

    def _put_by(self, row: Transition) -> None:
        """Let a row of a rollout wait; JAX may look at a block for as long as it likes, so each is a new one."""
        if not self._waiting:
            length = self.programs.config.rollout_length
            self._block = jax.tree.map(lambda x: np.zeros((length, *x.shape), x.dtype), row)
        for rows, new in zip(jax.tree.leaves(self._block), jax.tree.leaves(row), strict=True):
            rows[self._waiting] = new
        self._waiting += 1

    def _act(self) -> tuple[Array, Tree, Tree]:
        """The actions for the present observations, the actor's memory after them, and what is to be stored."""
        programs, stepped, step = self.programs, self.stepped, np.uint32(self.step)
        if self._warms_up:
            drawn, carry = programs.warm_up(self.roots, step, envs=self.shape[1]), self.carry
            extras = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._extras)
        else:
            drawn, carry, extras = programs.act(
                self.view, self.carry, stepped.obs, stepped.starts, self.roots, step, explore=True
            )
        return drawn, carry, extras

    def _fetched(self, drawn: Array | np.ndarray) -> np.ndarray:
        """The actions on the host.

        Raises:
            TrainingFault: where they are not finite.
        """
        action = np.asarray(drawn)
        if not np.isfinite(action).all():
            member = int(np.argmin(np.isfinite(action).reshape(len(action), -1).all(1)))
            who = f"member {member} (seed {self.seeds[member]}) at step {self.step:,}"
            raise TrainingFault(f"{who}: its policy gives actions that are not finite")
        return action
