"""MuJoCo Playground's environments: `playground/CheetahRun`; its arguments are the entries of the task's config.

Of Playground's wrappers none is used: they are Brax's, see `maxent.envs.device.brax`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from maxent.envs.device.engine import cannot, engine_env, import_engine
from maxent.envs.device.env import DeviceEnv, check_arguments
from maxent.types import Tree

IMPLEMENTATION = "jax"
"""Of the simulation, unless the argument `impl` says otherwise. Playground's own choice, Warp, needs an NVIDIA GPU."""


def names() -> list[str]:
    """What may stand after `playground/`.

    Raises:
        ConfigError: where Playground is missing.
    """
    return sorted(_registry().ALL_ENVS)


def make(name: str, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """The environment of that name.

    Raises:
        ConfigError: where Playground is missing, or an argument is unknown or refused.
    """
    registry, where = _registry(), f"playground/{name}"
    config = registry.get_default_config(name)
    known = list(_entries(config))
    check_arguments(where, kwargs, known)
    overrides = ({"impl": IMPLEMENTATION} if "impl" in known else {}) | dict(kwargs)
    try:
        config.update_from_flattened_dict(overrides)
        env = engine_env(registry.load(name, config=config), int(config.episode_length))
    except Exception as error:  # it may be anything: some tasks download their models when they are made
        raise cannot(where, error) from error
    return env if config.action_repeat == 1 else repeated(env, int(config.action_repeat))


def repeated(env: DeviceEnv, times: int) -> DeviceEnv:
    """Every action taken so many times, or until the episode ends, with the sum of the rewards."""

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Tree, Array, Array]:
        def again(before: Tree, key: Array) -> tuple[Tree, None]:
            state, _, total, ended = before
            state, obs, reward, now = env.step(state, action, key)
            return jax.tree.map(partial(jnp.where, ended), before, (state, obs, total + reward, now)), None

        keys = jax.random.split(key, times)
        return jax.lax.scan(again, env.step(state, action, keys[0]), keys[1:])[0]

    return env._replace(step=step, time_limit=-(-env.time_limit // times))


def _registry() -> Any:
    return import_engine("mujoco_playground", "playground").registry


def _entries(config: Any, within: str = "") -> Iterator[str]:
    """The names of a config's entries, those of a config within it after a dot."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from _entries(value, f"{within}{name}.")
        else:
            yield f"{within}{name}"
