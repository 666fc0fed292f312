"""What the device loop asks of an environment written in JAX, and where its environments come from.

An environment says how an episode begins, what a step does, and whether that ended it. It never resets itself and it
never counts steps: both are the loop's, once for all suites. A time limit can then not be taken for an end, whatever
the flags of a suite mean.
"""

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jax import Array

from maxent.envs.device import SUITES
from maxent.envs.plain import told
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


def refuse_unfit(name: str, env: DeviceEnv) -> None:
    """Raise a ConfigError where its functions give something else than a `DeviceEnv`'s do; no number is computed."""
    spec, key = env.spec, jax.eval_shape(lambda: jax.random.key(0))
    number, action = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct(spec.action.shape, spec.action.dtype)
    state, first = _given(f"{name}: reset", env.reset, (key,), ("state", "observation"))
    _refuse_other(f"{name}: the observation of reset", first, spec.obs)
    parts = ("state", "observation", "reward", "terminated")
    later, obs, reward, terminated = _given(f"{name}: step", env.step, (state, action, key), parts)
    _refuse_other(f"{name}: the state of step", later, state, exactly=True)
    _refuse_other(f"{name}: the observation of step", obs, first, exactly=True)
    _refuse_other(f"{name}: the reward", reward, number)
    _refuse_other(f"{name}: terminated", terminated, jax.ShapeDtypeStruct((), bool))


def _given(what: str, function: Callable, arguments: tuple, parts: Sequence[str]) -> Any:
    """The shapes of what a function gives, which has so many parts."""
    try:
        found = jax.eval_shape(function, *arguments)
    except Exception as error:  # whatever the function does
        raise ConfigError(f"{what} cannot be traced by JAX: {told(error)}") from error
    if not isinstance(found, tuple | list) or len(found) != len(parts):
        raise ConfigError(f"{what} gives {_shown(found)}: it must give ({', '.join(parts)})")
    return found


def _refuse_other(what: str, found: Tree, expected: Tree, exactly: bool = False) -> None:
    """A ConfigError where a tree has not the structure and the shapes, and, exactly, the dtypes of the expected one."""

    def form(leaf: Any) -> Any:
        return (leaf.shape, str(leaf.dtype)) if exactly else leaf.shape

    (leaves, structure), (others, other) = jax.tree.flatten(found), jax.tree.flatten(expected)
    same = bool(structure == other)  # type: ignore[operator]
    if not same or [*map(form, leaves)] != [*map(form, others)]:
        raise ConfigError(f"{what} is {_shown(found)}: it must be {_shown(expected)}")


def _shown(tree: Tree) -> str:
    """A tree of arrays in words: float32[3, 2]."""
    return str(jax.tree.map(lambda leaf: _Word(f"{leaf.dtype}{[*leaf.shape]}"), tree))


class _Word(str):
    """A text that is shown without quotes."""

    __repr__ = str.__str__


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
