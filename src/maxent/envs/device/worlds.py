"""Device environments as rows of canonical arrays [member, env, …]: resets, time limits and what an ending means.

The same as `maxent.envs.host` gives, but compiled:

  - terminated: discount 0 and boundary 1. Nothing follows.
  - cut by the time limit: discount 1 and boundary 1. The true last observation is bootstrapped from.
  - the row after a boundary is the reset: the action is not taken, the reward is 0 and `real` is 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maxent.envs.device.env import DeviceEnv
from maxent.streams import stream
from maxent.types import Transition, Tree


class World(NamedTuple):
    """All environments at one moment; every array [member, env, …] unless it says otherwise."""

    state: Tree
    obs: Tree
    starts: Array
    """Where the observation is an episode's first."""
    over: Array
    """Where the episode has ended and the next step resets."""
    episodes: Array
    """Episodes begun."""
    length: Array
    """Steps of the running episode, or of the one that has just ended."""
    total_reward: Array
    """Of the same."""
    largest_reward: Array
    """The largest |reward| so far, [member]."""
    finite: Array
    """Whether every reward and observation so far was a finite number, [member]."""


def begin(env: DeviceEnv, roots: Array, envs: int, name: str) -> World:
    """New episodes everywhere, from the key 0 of the stream called `name`."""
    shape = (len(roots), envs)
    state, obs = _reset(env, roots, envs, name, jnp.uint32(0))
    zero, none = jnp.zeros(shape), jnp.zeros(shape, bool)
    return World(
        state, obs, ~none, none, jnp.ones(shape, jnp.int32), jnp.zeros(shape, jnp.int32), zero,
        jnp.zeros(len(roots)), jnp.ones(len(roots), bool),
    )  # fmt: skip


def first_row(env: DeviceEnv, world: World) -> Transition:
    """The row of a beginning: observations that no step of this ring led to."""
    action = jnp.zeros((*world.over.shape, *env.spec.action.shape), env.spec.action.dtype)
    zero = jnp.zeros(world.over.shape)
    return Transition(world.obs, action, zero, zero + 1, world.obs, world.over, zero > 0)


def step(
    env: DeviceEnv, world: World, action: Array, roots: Array, name: str, index: Array
) -> tuple[World, Transition]:
    """Take canonical actions [member, env, …], with the key of a stream's step `index`, which begins at 1.

    Where an episode is over, the environment is reset instead.
    """
    envs, over = action.shape[1], world.over

    def where_over(new: Tree, old: Tree) -> Tree:
        def choose(x: Array, y: Array) -> Array:
            return jnp.where(over.reshape(over.shape + (1,) * (y.ndim - over.ndim)), x, y).astype(y.dtype)

        return jax.tree.map(choose, new, old)

    keys = jax.vmap(lambda root: jax.random.split(jax.random.fold_in(stream(root, name, index), 1), envs))(roots)
    state, obs, reward, terminated = jax.vmap(jax.vmap(env.step))(world.state, action, keys)
    # Most steps end no episode, and beginning one may cost as much as many steps.
    state, obs = jax.lax.cond(
        over.any(),
        lambda: where_over(_reset(env, roots, envs, name, index), (state, obs)),
        lambda: (state, obs),
    )
    reward, terminated = jnp.where(over, 0.0, reward).astype(jnp.float32), terminated.astype(bool) & ~over
    length = jnp.where(over, 0, world.length + 1)
    boundary = terminated | (length >= env.time_limit) if env.time_limit else terminated
    next_world = World(
        state=state,
        obs=obs,
        starts=over,
        over=boundary,
        episodes=world.episodes + over,
        length=length,
        total_reward=jnp.where(over, 0.0, world.total_reward + reward),
        largest_reward=jnp.maximum(world.largest_reward, jnp.abs(reward).max(1)),
        finite=world.finite & jnp.isfinite(reward).all(1) & _finite(obs),
    )
    discount = 1.0 - terminated.astype(jnp.float32)
    return next_world, Transition(world.obs, action, reward, discount, obs, boundary, ~over)


def succeeded(env: DeviceEnv, world: World) -> Array:
    """1 or 0 for episodes that are over, as the environment's `success` judges; -1 without one, [member, env]."""
    if env.success is None:
        return jnp.full(world.over.shape, -1, jnp.int8)
    return jax.vmap(jax.vmap(env.success))(world.state).astype(jnp.int8)


def told(success: np.ndarray) -> float | None:
    """That number as an `Episode` has it."""
    return float(success) if success >= 0 else None


def _reset(env: DeviceEnv, roots: Array, envs: int, name: str, index: Array) -> tuple[Tree, Tree]:
    keys = jax.vmap(lambda root: jax.random.split(jax.random.fold_in(stream(root, name, index), 0), envs))(roots)
    return jax.vmap(jax.vmap(env.reset))(keys)


def _finite(obs: Tree) -> Array:
    """Whether all numbers of each member's observations are, [member]."""
    numbers = [x for x in jax.tree.leaves(obs) if jnp.issubdtype(x.dtype, jnp.floating)]
    flags = [jnp.isfinite(x).reshape(len(x), -1).all(1) for x in numbers]
    return jnp.stack(flags).all(0) if flags else jnp.ones(len(jax.tree.leaves(obs)[0]), bool)
