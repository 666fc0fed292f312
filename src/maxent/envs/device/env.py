"""What the device loop asks of an environment written in JAX, and where its environments come from.

An environment says how an episode begins, what a step does, and whether that ended it. It never resets itself and it
never counts steps: both are the loop's, once for all suites. A time limit can then not be taken for an end, whatever
the flags of a suite mean.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array

from maxent.errors import ConfigError
from maxent.types import Spec, Tree

SUITES = {
    "jax": "maxent.envs.device.own",
    "brax": "maxent.envs.device.brax",
    "playground": "maxent.envs.device.playground",
    "gymnax": "maxent.envs.device.gymnax",
}
"""What stands before the slash of a name → the module whose `make` and `names` know the rest."""


class DeviceEnv(NamedTuple):
    """One environment of pure functions; the loop vmaps them over environments and members."""

    spec: Spec
    reset: Callable[[Array], tuple[Tree, Tree]]
    """(key) → (state, observation): the beginning of an episode. A state is a tree of arrays."""
    step: Callable[[Tree, Array, Array], tuple[Tree, Tree, Array, Array]]
    """(state, canonical action, key) → (state, observation, reward, whether the episode terminated)."""
    time_limit: int
    """Steps after which an episode is cut; 0 never is. It is no end: the last observation is bootstrapped from."""
    twin: str = ""
    """The Gymnasium environment that is the same task on the host, and can be rendered; empty where there is none."""


def on_device(name: str) -> bool:
    """Whether a name is that of an environment for the device: `jax/…`, `brax/…`, `playground/…` or `gymnax/…`."""
    return name.partition("/")[0] in SUITES and ":" not in name


def make(name: str, kwargs: Mapping[str, Any], max_episode_steps: int = 0) -> DeviceEnv:
    """The environment of that name; `max_episode_steps` replaces its time limit, unless it is 0.

    Raises:
        ConfigError: where there is none of that name, an argument is unknown, or its package is missing.
    """
    suite, _, task = name.partition("/")
    if suite not in SUITES:
        raise ConfigError(
            f"there is no device environment {name!r}: a name begins with {', '.join(SUITES)} and a slash"
        )
    env: DeviceEnv = importlib.import_module(SUITES[suite]).make(task, dict(kwargs))
    return env._replace(time_limit=max_episode_steps or env.time_limit)
