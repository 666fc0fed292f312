"""The loop over environments on the device: acting, stepping and learning as one compiled program.

A chunk of iterations is one dispatch. In each of them, in the order of the loop on the host: act, make the updates that
are due, step the environments. What is new is stored at the chunk's end, because a program that wrote into the replay
while it reads would copy all of it: a transition is learned from in the next chunk at the earliest. Chunks end at
multiples of `CHUNK` steps, and where warm-up, collecting, a rollout or the run does: but for where it was told to end,
they depend on the absolute step alone.

Warm-up and training are two programs. With as many environments as a chunk has steps, a chunk is one iteration, and
the loop does what the one on the host does.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maxent import native
from maxent.envs import spaces
from maxent.envs.contract import Episode
from maxent.envs.device import worlds
from maxent.envs.device.env import DeviceEnv
from maxent.envs.device.worlds import World
from maxent.errors import TrainingFault
from maxent.loops.loop import Loop, Report, updates_due
from maxent.loops.pieces import Learned
from maxent.loops.programs import LEARNED, MEMBER, RING, ROW, WHOLE, Programs
from maxent.replay import ring
from maxent.types import Transition, Tree

CHUNK = 32
"""Steps of a member that are taken in one dispatch."""


class Moment(NamedTuple):
    """Where the acting half of the loop stands."""

    carry: Tree
    world: World


class Ended(NamedTuple):
    """Which episodes ended in an iteration, and how they went: arrays [member, env]."""

    over: Array
    number: Array
    length: Array
    total_reward: Array
    success: Array
    """As `worlds.succeeded` has it."""


class Acted(NamedTuple):
    """What a chunk gives."""

    learned: Learned
    carry: Tree
    world: World
    rows: Transition
    """The new rows, without what they were acted on, which the ring has: [iteration, member, env, …]."""
    ended: Ended
    """The same axes."""


class DeviceLoop(Loop):
    """The loop over environments that are written in JAX; `envs` of them for each member."""

    def __init__(
        self,
        programs: Programs,
        env: DeviceEnv,
        envs: int,
        seeds: Sequence[int],
        swept: dict[str, Any],
        chunk: int = CHUNK,
    ) -> None:
        super().__init__(programs, (len(seeds), envs), seeds, swept)
        self.env = env
        begin = partial(worlds.begin, env, envs=envs, name="env")
        self.world = programs.compiled(begin, (MEMBER,), MEMBER)(self.roots)
        self._begin(worlds.first_row(env, self.world), self.world.obs)
        self._iterations = max(1, chunk // envs) if self._replays else programs.config.rollout_length
        self._pending: list[Episode] = []
        self._ended: list[Ended] = []
        row = worlds.first_row(env, self.world)._replace(extras=self._extras)
        self._observes = self._replays and programs.observes(self.learned, row)
        takes = (LEARNED, MEMBER, MEMBER, RING, MEMBER, WHOLE, WHOLE, WHOLE, WHOLE)
        gives = Acted(LEARNED, MEMBER, MEMBER, ROW, ROW)  # type: ignore[arg-type]
        self._advance = programs.compiled(self._chunk, takes, gives, donate=(0, 1, 2), static=("warm", "due"))

    @property
    def moment(self) -> Moment:
        """What `resume` needs beside the learned, the ring and the counters."""
        return Moment(self.carry, self.world)

    @property
    def finished(self) -> list[Episode]:
        """Episodes that ended since the last report, in order."""
        episodes = self._pending[:]
        for ended in jax.device_get(self._ended):
            for at in zip(*np.nonzero(ended.over), strict=True):
                _, member, env = map(int, at)
                number, length = int(ended.number[at]), int(ended.length[at])
                total, success = float(ended.total_reward[at]), worlds.told(ended.success[at])
                episodes.append(Episode(member, env, number, -1, total, length, success))
        return episodes

    @finished.setter
    def finished(self, episodes: list[Episode]) -> None:
        self._pending = episodes
        self._ended.clear()

    @property
    def largest_reward(self) -> np.ndarray:
        """The largest |reward| that each member has seen, [member]."""
        return np.asarray(self.world.largest_reward)

    @property
    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """Of observations and of actions, in canonical form."""
        return spaces.canonical_spaces(self.env.spec)

    @property
    def sound(self) -> bool:
        """Whether everything learned and seen is finite: only then is a state worth keeping."""
        return super().sound and bool(np.all(self.world.finite))

    def run(self, total: int, every: int) -> Iterator[Report]:
        """Go on to the step `total`, reporting after the chunk that passes a multiple of `every`, and at the end."""
        while self.step < total and not self.stopping:
            target = min(total, (self.step // every + 1) * every)
            while self.step < target and not self.stopping:
                self._advance_to(total)
            if self.step >= target:
                self._refuse_numbers_that_are_none()
                episodes, self.finished = self.finished, []
                yield self._report(episodes)

    def resume(self, moment: Moment, rows: ring.Ring | None) -> np.ndarray:
        """Go on from a restored state: the environments are arrays, and back in the middle of their episodes."""
        self.carry, self.world = self.programs.placed(tuple(moment), (MEMBER, MEMBER))
        kept = np.ones(self.shape, bool)
        self._take_up(worlds.first_row(self.env, self.world), rows, kept)
        return kept

    def _advance_to(self, total: int) -> None:
        """One chunk, no further than the total."""
        programs, count, step = self.programs, self.shape[1], self.step
        warm = self._replays and step < programs.config.learning_starts
        collecting = self._replays and step < self.learns_from
        begun, whole = 0 if self._replays else self.learns_from, self._iterations * count
        end = min(total, begun + ((step - begun) // whole + 1) * whole)
        end = min(end, programs.config.learning_starts) if warm else end
        end = min(end, self.learns_from) if collecting else end
        iterations = -(-(end - step) // count)
        dues = np.zeros(self._iterations, np.int32)
        if self._replays and not warm:
            since = step - self.learns_from
            dues[:iterations] = [updates_due(programs.config.utd, since + i * count, count) for i in range(iterations)]
        first, updates = int(dues[0]), int(dues.sum())
        with self._changing(self.learned):
            acted = self._advance(
                self.learned, self.carry, self.world, self.ring, self.roots, np.uint32(step), np.uint32(self.updates),
                np.int32(iterations), dues, warm=warm, due=first if (dues[:iterations] == first).all() else None,
            )  # fmt: skip
            self.learned, self.carry, self.world = acted.learned, acted.carry, acted.world
            self.ring = programs.extend(self.ring, acted.rows, np.int32(iterations))
            self._ended.append(acted.ended)
            self.step += iterations * count
            self.updates += updates
            if not self._replays:
                self._learn_rollout()

    def _refuse_numbers_that_are_none(self) -> None:
        finite = np.asarray(self.world.finite)
        if not finite.all():
            member = int(np.argmin(finite))
            raise TrainingFault(
                f"member {member} (seed {self.seeds[member]}) before step {self.step:,}: its environments gave a "
                "reward or an observation that is not finite"
            )

    def _chunk(
        self,
        learned: Learned,
        carry: Tree,
        world: World,
        rows: ring.Ring,
        roots: Array,
        step: Array,
        updates: Array,
        iterations: Array,
        dues: Array,
        *,
        warm: bool,
        due: int | None,
    ) -> Acted:
        """So many iterations from a step on, each with `due` updates or, without that, its own of `dues`."""
        pure, count = self.programs.pure, self.shape[1]

        def learn(learned: Learned, index: Array, i: Array) -> tuple[Learned, Array]:
            if due == 0:
                return learned, index
            if due is not None:
                return pure.learn(learned, rows, roots, index, count=due), index + due
            number = dues[i].astype(jnp.uint32)

            def one(j: Array, learned: Learned) -> Learned:
                return pure.learn(learned, rows, roots, index + j, count=1)

            return jax.lax.fori_loop(jnp.uint32(0), number, one, learned), index + number

        def act(learned: Learned, carry: Tree, world: World, now: Array) -> tuple[Array, Tree, Tree]:
            if warm:
                lead = (len(roots), count)
                nothing = jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape[2:]), x.dtype), self._extras)
                return pure.warm_up(roots, now, envs=count), carry, nothing
            view = pure.algorithm.view(learned.state)
            return pure.act(view, carry, world.obs, world.starts, roots, now, explore=True)

        def iterate(i: Array, state: tuple) -> tuple[tuple, tuple[Transition, Ended]]:
            learned, carry, world, index = state
            now = step + i.astype(jnp.uint32) * count
            action, carry, extras = act(learned, carry, world, now)
            # Learning changes the policy where it lies, unless XLA may learn before it acts: it would copy it, twice.
            learned, index = learn(learned, native.after(action, index), i)
            world, row = worlds.step(self.env, world, action, roots, "env", now + count)
            learned = pure.observe(learned, row) if self._observes else learned
            success = worlds.succeeded(self.env, world)
            ended = Ended(world.over, world.episodes - 1, world.length, world.total_reward, success)
            return (learned, carry, world, index), (row._replace(obs=(), extras=extras), ended)

        def store(i: Array, loop: tuple) -> tuple:
            state, new = iterate(i, loop[0])
            write = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
            return state, jax.tree.map(write, loop[1], new)

        state = learned, carry, world, updates
        shapes = jax.eval_shape(iterate, iterations, state)[1]
        empty = jax.tree.map(lambda x: jnp.zeros((self._iterations, *x.shape), x.dtype), shapes)
        (learned, carry, world, _), (new, ended) = jax.lax.fori_loop(0, iterations, store, (state, empty))
        return Acted(learned, carry, world, new, ended)
