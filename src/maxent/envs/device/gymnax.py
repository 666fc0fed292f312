"""Gymnax's environments: `gymnax/CartPole-v1`; its arguments are those of the class and the entries of its parameters.

`step_env` is used, not `step`: that one resets, and raises a flag at the time limit. What is left says whether the
episode terminated. The limit is the parameter `max_steps_in_episode`, and the loop's to keep.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from maxent.envs.device.engine import cannot
from maxent.envs.device.env import DeviceEnv, check_arguments, environment_action, import_package, settled
from maxent.envs.spaces import spec_of
from maxent.errors import ConfigError
from maxent.types import Tree

REMEDY = 'pip install "maxent-rl[gymnax]" && pip install --no-deps "gymnax>=1.0"'
"""Gymnax asks for a Gymnasium below 1.4, which this library cannot use; nothing in Gymnax depends on that."""


def names() -> list[str]:
    """What may stand after `gymnax/`.

    Raises:
        ConfigError: where Gymnax is missing or too old.
    """
    return sorted(_gymnax().registered_envs)


def make(name: str, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """The environment of that name.

    Raises:
        ConfigError: where Gymnax is missing or too old, or an argument is unknown or refused.
    """
    gymnax, where = _gymnax(), f"gymnax/{name}"
    try:
        env, params = gymnax.make(name)
        entries = [f.name for f in dataclasses.fields(params)]
        check_arguments(where, kwargs, [*entries, *inspect.signature(type(env)).parameters])
        env, params = gymnax.make(name, **{key: value for key, value in kwargs.items() if key not in entries})
        params = params.replace(**{key: _as(getattr(params, key), kwargs[key]) for key in kwargs if key in entries})
        convert = gymnax.environments.spaces.gymnax_space_to_gym_space
        space = convert(env.action_space(params))
        spec, take = spec_of(convert(env.observation_space(params)), space), environment_action(space)
        _, like = jax.eval_shape(lambda: env.reset_env(jax.random.key(0), params))
    except ConfigError:
        raise
    except Exception as error:  # it may be anything: one of them downloads its pictures
        raise cannot(where, error) from error

    def reset(key: Array) -> tuple[Tree, Tree]:
        obs, state = env.reset_env(key, params)
        return settled(state, like), settled(obs, spec.obs)

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Tree, Array, Array]:
        obs, state, reward, terminated, _ = env.step_env(key, state, take(action, jnp.float32), params)
        return settled(state, like), settled(obs, spec.obs), jnp.float32(reward), jnp.asarray(terminated, bool)

    return DeviceEnv(spec, reset, step, int(params.max_steps_in_episode))


def _as(default: Any, value: Any) -> Any:
    """A whole number as a float where the entry is one: Gymnax computes in the types of its parameters."""
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def _gymnax() -> Any:
    found = import_package("gymnax", REMEDY)
    if not hasattr(found.environments.environment.Environment, "is_truncated"):
        raise ConfigError(f"Gymnax is older than 1.0, and tells no end from a time limit: {REMEDY}")
    return found
