"""What Brax and MuJoCo Playground share: a state that carries its observation, its reward and a flag of its end."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from maxent.envs.device.env import DeviceEnv, import_package, settled
from maxent.envs.spaces import NARROW
from maxent.errors import ConfigError
from maxent.types import Leaf, Spec, Tree

HIDDEN = "privileged_state"
"""The entry of an observation that both suites keep from the policy, for critics that may see more."""


def import_engine(package: str, extra: str) -> Any:
    """The package of a suite that simulates with MuJoCo's models; MuJoCo is kept from writing its log file."""
    found = import_package(package, f'pip install "maxent-rl[{extra}]"')
    import_package("mujoco", f'pip install "maxent-rl[{extra}]"').set_mju_user_warning(lambda message: None)
    return found


def cannot(name: str, error: Exception) -> ConfigError:
    """What to raise where a suite fails to make an environment."""
    return ConfigError(f"{name} cannot be made: {' '.join(str(error).split()) or type(error).__name__}")


def engine_env(engine: Any, time_limit: int) -> DeviceEnv:
    """An environment of either suite, not wrapped by anything of the suite's.

    Both take actions in [-1, 1]^d. A flag is raised where the task says so, and where the simulation has diverged; what
    is not finite then is written as 0. Nothing is bootstrapped from it, but 0·NaN would spoil the target all the same.
    """
    like = jax.eval_shape(lambda: engine.reset(_raw(jax.random.key(0))))
    leaves = jax.tree.map(lambda x: Leaf(x.shape, NARROW.get(x.dtype.name, x.dtype.name)), _seen(like.obs))
    spec = Spec(leaves, Leaf((int(engine.action_size),), "float32"))

    def reset(key: Array) -> tuple[Tree, Tree]:
        state = settled(engine.reset(_raw(key)), like)
        return state, settled(_seen(state.obs), leaves)

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Tree, Array, Array]:
        state = settled(engine.step(state, action), like)
        ended = state.done > 0

        def finite(x: Array) -> Array:
            return jnp.where(ended & ~jnp.isfinite(x), jnp.zeros_like(x), x)

        obs = jax.tree.map(finite, settled(_seen(state.obs), leaves))
        return state, obs, finite(state.reward.astype(jnp.float32)), ended

    return DeviceEnv(spec, reset, step, time_limit)


def _seen(obs: Tree) -> Tree:
    """What a policy is shown."""
    return {name: part for name, part in obs.items() if name != HIDDEN} if hasattr(obs, "items") else obs


def _raw(key: Array) -> Array:
    """The key as the array that the suites keep in their states: a checkpoint has no typed keys."""
    return jax.random.key_data(key)
