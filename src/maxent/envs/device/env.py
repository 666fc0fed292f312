"""What the device loop asks of an environment written in JAX, and where its environments come from.

An environment says how an episode begins, what a step does, and whether that ended it. It never resets itself and it
never counts steps: both are the loop's, once for all suites. A time limit can then not be taken for an end, whatever
the flags of a suite mean.
"""

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import Array

from maxent.envs.device import SUITES
from maxent.errors import ConfigError
from maxent.settings import suggestion
from maxent.types import Spec, Tree


class DeviceEnv(NamedTuple):
    """One environment of pure functions; the loop vmaps them over environments and members."""

    spec: Spec
    reset: Callable[[Array], tuple[Tree, Tree]]
    """(key) → (state, observation): the beginning of an episode. A state is a tree of arrays, no typed keys."""
    step: Callable[[Tree, Array, Array], tuple[Tree, Tree, Array, Array]]
    """(state, canonical action, key) → (state, observation, reward, whether the episode terminated).

    The new state has the structure, shapes and dtypes of the old one. The reward is float32 [], the flag bool [].
    """
    time_limit: int
    """Steps after which an episode is cut; 0 never is. It is no end: the last observation is bootstrapped from."""
    twin: str = ""
    """The Gymnasium environment that is the same task on the host, takes the same arguments, and can be rendered;
    empty where there is none."""
    success: Callable[[Tree], Array] | None = None
    """(state) → whether an episode that is over there was a success, bool []; None where a task knows no success."""


def make(name: str, kwargs: Mapping[str, Any], max_episode_steps: int = 0) -> DeviceEnv:
    """The environment of that name; `max_episode_steps` replaces its time limit, unless it is 0.

    Raises:
        ConfigError: where there is none of that name, an argument is unknown, or its package is missing.
    """
    suite, _, task = name.partition("/")
    if suite not in SUITES:
        raise ConfigError(f"there is no device environment {name!r}: it begins with {', '.join(SUITES)} and a slash")
    module = importlib.import_module(SUITES[suite])
    known = module.names()
    if task not in known:
        raise ConfigError(f"the suite {suite!r} has no environment {task!r}{suggestion(task, known)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env: DeviceEnv = module.make(task, dict(kwargs))
    return env._replace(time_limit=max_episode_steps or env.time_limit)


def import_package(package: str, remedy: str) -> Any:
    """A suite's package, which an extra of this library brings.

    Raises:
        ConfigError: with the remedy, where it or something it needs is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ImportError as error:
        missing = f"{error.name} is missing" if error.name else str(error)
        raise ConfigError(f"{missing}: install it with: {remedy}") from None


def check_arguments(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise a ConfigError that names the first argument which the environment does not take."""
    for key in given:
        if key not in known:
            raise ConfigError(f"{name} has no argument {key!r}{suggestion(key, known) if known else ': it takes none'}")


def environment_action(space: spaces.Space) -> Callable[[Array, Any], Array]:
    """What `maxent.envs.spaces.environment_action` is on the host: (canonical action, dtype) → the environment's own.

    Numbers are scaled to the bounds in that dtype, and cut there; a choice counts from the space's first.
    """
    if isinstance(space, spaces.Discrete):
        return lambda action, dtype: action + int(space.start)
    assert isinstance(space, spaces.Box)
    low, high, shape = space.low.ravel(), space.high.ravel(), space.shape

    def scaled(action: Array, dtype: Any) -> Array:
        unit = action.astype(dtype)
        taken = (1 - unit) * jnp.asarray(low / 2, dtype) + (1 + unit) * jnp.asarray(high / 2, dtype)
        return jnp.clip(taken, jnp.asarray(low, dtype), jnp.asarray(high, dtype)).reshape(shape)

    return scaled


def settled(tree: Tree, like: Tree) -> Tree:
    """The tree with exactly the dtypes of another, so that a reset and a step give the same types.

    Suites write Python numbers into their states; JAX calls the type of such an array weak, and compiles again.
    """
    return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), tree, like)
