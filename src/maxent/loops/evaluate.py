"""Evaluation: environments and keys of its own, and only a view of the policy, so that it cannot change training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maxent.envs.contract import Envs, Episode
from maxent.envs.device import worlds
from maxent.envs.device.env import DeviceEnv
from maxent.envs.device.worlds import World
from maxent.errors import EnvironmentFault
from maxent.loops.programs import MEMBER, Programs
from maxent.types import Tree

LONGEST = 100_000
"""Steps after which an evaluation episode is taken for one that never ends."""
PARALLEL = 8
"""Environments of a member that an evaluation on the host steps together."""
PIECE = 100
"""Steps of an evaluation on the device that are taken in one dispatch."""


class Evaluation(NamedTuple):
    """Some episodes of one member."""

    mean_return: float
    std_return: float
    returns: list[float]
    lengths: list[int]
    success_rate: float | None = None
    """Of the episodes that report success; None where none does."""

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "Evaluation":
        """The statistics of these episodes."""
        returns, lengths = [e.total_reward for e in episodes], [e.length for e in episodes]
        successes = [e.success for e in episodes if e.success is not None]
        rate = float(np.mean(successes)) if successes else None
        return cls(float(np.mean(returns)), float(np.std(returns)), returns, lengths, rate)


def evaluate(
    programs: Programs,
    view: Tree,
    envs: Envs,
    roots: Array,
    episodes: int,
    explore: bool = False,
    between: Callable[[], None] = lambda: None,
) -> list[list[Episode]]:
    """So many episodes of every member, [member][episode], in the order of environments and episodes.

    Environment i of n plays the episodes i, i + n, …: each environment has its share, so that episodes which end early
    are not counted more often than others. `between` is called before every step, and may raise.
    """
    members, count = envs.shape
    shares = [len(range(i, episodes, count)) for i in range(count)]
    played: list[list[list[Episode]]] = [[[] for _ in range(count)] for _ in range(members)]
    carry = programs.initial_carry((members, count))
    stepped, step, missing = envs.reset(), 0, members * episodes
    while missing:
        between()
        action, carry, _ = programs.act(
            view, carry, stepped.obs, stepped.starts, roots, np.uint32(step), explore=explore, name="eval"
        )
        stepped = envs.step(stepped.obs, np.asarray(action))
        step += 1
        if step > LONGEST * max(shares):
            raise EnvironmentFault(
                f"an evaluation episode has not ended after {LONGEST:,} steps: set a time limit, --max-episode-steps"
            )
        for episode in envs.finished:
            own = played[episode.member][episode.env]
            if len(own) < shares[episode.env]:
                own.append(episode)
                missing -= 1
        envs.finished.clear()
    return [[own[i // count] for i in range(episodes) for own in [member[i % count]]] for member in played]


class Played(NamedTuple):
    """Where an evaluation stands, every array [member, episode, …]."""

    over: Array
    length: Array
    total: Array
    success: Array
    carry: Tree
    world: World
    step: Array
    """Alike for all members of a device; [member]."""


class Evaluator:
    """Plays episodes on the device, with keys of their own, in pieces of some steps."""

    def __init__(self, programs: Programs, env: DeviceEnv) -> None:
        self._programs, self._env = programs, env
        self._begin = programs.compiled(self._first, (MEMBER,), MEMBER, static=("episodes",))
        self._go_on = programs.compiled(self._piece, (MEMBER,) * 3, MEMBER, donate=(2,), static=("explore",))

    def play(
        self,
        view: Tree,
        roots: Array,
        episodes: int,
        explore: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Episode]]:
        """So many episodes of every member, [member][episode], each in an environment of its own.

        `between` is called before every piece, and may raise.

        Raises:
            EnvironmentFault: where one does not end, or shows what is not finite.
        """
        played = self._begin(roots, episodes=episodes)
        while not played.over.all():
            if played.step.max() >= LONGEST:
                raise EnvironmentFault(
                    f"an evaluation episode has not ended after {LONGEST:,} steps: set a time limit, "
                    "--max-episode-steps"
                )
            between()
            played = self._go_on(view, roots, played, explore=explore)
        if not played.world.finite.all():
            raise EnvironmentFault(
                f"in the evaluation of member {int(np.argmin(played.world.finite))} an observation or a reward is not "
                "finite"
            )
        total, length, success = map(np.asarray, (played.total, played.length, played.success))
        return [
            [
                Episode(m, i, 0, -1, float(total[m, i]), int(length[m, i]), worlds.told(success[m, i]))
                for i in range(episodes)
            ]
            for m in range(len(total))
        ]

    def _first(self, roots: Array, *, episodes: int) -> Played:
        """All episodes at their beginning."""
        shape = (len(roots), episodes)
        return Played(
            over=jnp.zeros(shape, bool),
            length=jnp.zeros(shape, jnp.int32),
            total=jnp.zeros(shape),
            success=jnp.full(shape, -1, jnp.int8),
            carry=self._programs.pure.initial_carry(shape),
            world=worlds.begin(self._env, roots, episodes, "eval_env"),
            step=jnp.zeros(len(roots), jnp.uint32),
        )

    def _piece(self, view: Tree, roots: Array, played: Played, *, explore: bool) -> Played:
        """Some steps more, until all episodes are over."""
        pure, env, end = self._programs.pure, self._env, jnp.minimum(played.step[0] + PIECE, LONGEST)

        def going(at: Played) -> Array:
            return (~at.over.all()) & (at.step[0] < end)

        def iterate(at: Played) -> Played:
            now = at.step[0]
            action, carry, _ = pure.act(
                view, at.carry, at.world.obs, at.world.starts, roots, now, explore=explore, name="eval"
            )
            world, _ = worlds.step(env, at.world, action, roots, "eval_env", now + 1)
            ends = world.over & ~at.over
            return Played(
                over=at.over | ends,
                length=jnp.where(ends, world.length, at.length),
                total=jnp.where(ends, world.total_reward, at.total),
                success=jnp.where(ends, worlds.succeeded(env, world), at.success),
                carry=carry,
                world=world,
                step=at.step + 1,
            )

        return jax.lax.while_loop(going, iterate, played)
