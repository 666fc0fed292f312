"""Between Gymnasium's spaces and the library's canonical arrays.

Observations keep their structure and their own dtypes (64-bit numbers become 32-bit ones; choices count from 0).
Actions are float32 in [-1, 1]^d or int32 choices; only here are they scaled to the environment's bounds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from maxent.envs.contract import LARGEST
from maxent.errors import ConfigError
from maxent.types import Leaf, Spec, Tree

NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32", "float16": "float32"}


def spec_of(observation: spaces.Space, action: spaces.Space) -> Spec:
    """The canonical description of two spaces.

    Raises:
        ConfigError: where a space is of a kind that the library does not take, or an action has no finite bounds.
    """
    return Spec(_observation_leaves(observation, "observation space"), _action_leaf(action))


def canonical_spaces(spec: Spec) -> tuple[spaces.Space, spaces.Space]:
    """Spaces of observations and actions that are in canonical form already."""

    def box(leaf: Leaf) -> spaces.Space:
        dtype = np.dtype(leaf.dtype)
        if leaf.categories:
            counts = np.array(leaf.categories).reshape(leaf.shape)
            return spaces.MultiDiscrete(counts, dtype) if leaf.shape else spaces.Discrete(int(counts), dtype=dtype)
        if dtype.kind == "f":
            return spaces.Box(-np.inf, np.inf, leaf.shape, dtype)
        return spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, leaf.shape, dtype)

    def observed(tree: Tree) -> spaces.Space:
        return spaces.Dict({k: observed(sub) for k, sub in tree.items()}) if isinstance(tree, dict) else box(tree)

    action = spec.action
    return observed(spec.obs), box(action) if action.categories else spaces.Box(-1.0, 1.0, action.shape)


def write_observation(space: spaces.Space, obs: Tree, out: Tree, at: tuple[int, ...]) -> None:
    """Put an observation of the space into the batch arrays of a tree, at an index.

    Raises:
        ValueError: naming the entry, where the observation does not have the declared structure or shape, or is not
            finite.
    """
    _write(space, obs, out, at, "observation")


def singles(space: spaces.Space, obs: Tree) -> tuple[list[Tree], bool]:
    """The observations of a batch, or the one that it is; and whether it was a batch.

    Raises:
        ValueError: where it is neither, or a batch of none.
    """
    count = _batch_size(space, obs)
    if count == 0:
        raise ValueError("the batch of observations is empty")
    return ([obs], False) if count is None else ([_nth(obs, i) for i in range(count)], True)


def empty_batch(spec: Tree, lead: tuple[int, ...]) -> Tree:
    """Uninitialised NumPy arrays for a batch of observations."""
    if isinstance(spec, dict):
        return {key: empty_batch(leaf, lead) for key, leaf in spec.items()}
    return np.empty((*lead, *spec.shape), spec.dtype)


def environment_action(space: spaces.Space) -> Callable[[np.ndarray], Any]:
    """The function that gives a canonical action as the environment's own: its bounds, shape, dtype, first choice."""
    if isinstance(space, spaces.Box):
        shape, dtype = space.shape, space.dtype
        low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
        half_low, half_high, whole = 0.5 * low, 0.5 * high, np.issubdtype(dtype, np.integer)
        own = bool((low == -1.0).all() and (high == 1.0).all())

        def scaled(action: np.ndarray) -> np.ndarray:
            # The very bounds at -1 and 1.
            taken = action if own else (1.0 - action) * half_low + (1.0 + action) * half_high
            taken = np.minimum(np.maximum(taken, low), high)
            return (np.rint(taken) if whole else taken).astype(dtype).reshape(shape)

        return scaled
    if isinstance(space, spaces.Discrete):
        return lambda action: space.dtype.type(action + space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return lambda action: (action.reshape(space.nvec.shape) + space.start).astype(space.dtype)
    return lambda action: action.reshape(space.shape).astype(space.dtype)


def canonical_actions(space: spaces.Space, actions: Any) -> np.ndarray:
    """A batch of the environment's own continuous actions as canonical ones, [batch, d].

    Raises:
        ValueError: where the space is not a Box, or the actions do not have its shape.
    """
    if not isinstance(space, spaces.Box):
        raise ValueError(f"the action space is {space}: it must be Box")
    actions = np.asarray(actions, np.float64)
    if actions.shape[1:] != space.shape or actions.ndim == 0:
        several = ", ".join(map(str, ("n", *space.shape)))
        raise ValueError(f"the actions have shape {actions.shape}: it must be [{several}], several for one observation")
    low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
    flat = actions.reshape(len(actions), low.size)
    return ((2 * flat - low - high) / (high - low)).astype(np.float32)


def _observation_leaves(space: spaces.Space, where: str) -> Tree:
    if isinstance(space, spaces.Dict):
        return {key: _observation_leaves(sub, f"{where}[{key!r}]") for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return Leaf((), "int32", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return Leaf(space.nvec.shape, "int32", tuple(int(n) for n in space.nvec.ravel()))
    if isinstance(space, spaces.MultiBinary):
        return Leaf(tuple(space.shape), "int8")
    if isinstance(space, spaces.Box):
        dtype = np.dtype(space.dtype).name
        return Leaf(tuple(space.shape), NARROW.get(dtype, dtype))
    raise ConfigError(
        f"the {where} is {space}: it must be Box, Discrete, MultiDiscrete, MultiBinary or Dict; wrap the environment"
    )


def _action_leaf(space: spaces.Space) -> Leaf:
    if isinstance(space, spaces.Discrete):
        return Leaf((), "int32", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return Leaf((space.nvec.size,), "int32", tuple(int(n) for n in space.nvec.ravel()))
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return Leaf((size,), "int32", (2,) * size)
    if not isinstance(space, spaces.Box):
        raise ConfigError(
            f"the action space is {space}: it must be Box, Discrete, MultiDiscrete or MultiBinary; wrap the environment"
        )
    bounds = np.stack([space.low.ravel(), space.high.ravel()], axis=-1).astype(np.float64)
    bounded = (space.bounded_below & space.bounded_above).ravel()
    for i, (low, high) in enumerate(bounds):
        if not (bounded[i] and np.isfinite(low) and np.isfinite(high) and low < high):
            raise ConfigError(
                f"the action space has the bounds [{low:g}, {high:g}] in entry {i}: both must be finite and the lower "
                "one smaller; give it its true bounds, or declare them with gymnasium.wrappers.TransformAction"
            )
    return Leaf((len(bounds),), "float32")


def _write(space: spaces.Space, obs: Tree, out: Tree, at: tuple[int, ...], where: str) -> None:
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, dict) or obs.keys() != space.spaces.keys():
            found = f"the keys {sorted(map(str, obs))}" if isinstance(obs, dict) else type(obs).__name__
            raise ValueError(f"{where} has {found}, declared are the keys {sorted(map(str, space.spaces))}")
        for key, sub in space.spaces.items():
            _write(sub, obs[key], out[key], at, f"{where}[{key!r}]")
        return
    array = np.asarray(obs)
    if array.shape != space.shape:
        raise ValueError(f"{where} has shape {array.shape}, declared is {space.shape}")
    if array.dtype.kind == out.dtype.kind == "f" and float(np.abs(array).max(initial=0.0)) <= LARGEST:
        out[at] = array  # as nearly always: nothing below can be wrong
        return
    if array.dtype.kind not in "iubf":
        raise ValueError(f"{where} has dtype {array.dtype}, declared is {space.dtype}")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        array = array - space.start
        if np.any(array < 0) or np.any(array >= count):
            raise ValueError(f"{where} is {obs}, outside {space}")
    dtype = out.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype(dtype, copy=False)
        bad = ~np.isfinite(narrow) if dtype.kind == "f" else narrow != array
    if bad.any():
        entry = tuple(int(i) for i in np.argwhere(bad)[0])
        value = f"{np.asarray(obs)[entry]} ({array.dtype})"
        raise ValueError(f"{where}{list(entry) if entry else ''} is {value}, no finite number of {dtype}")
    out[at] = narrow


def _batch_size(space: spaces.Space, observation: Any) -> int | None:
    """How many observations there are, None for a single one without a batch axis."""
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or not space.spaces.keys() <= observation.keys():
            raise ValueError(f"the observation must be a dictionary with the keys {list(space.spaces)}")
        sizes = {_batch_size(sub, observation[key]) for key, sub in space.spaces.items()}
        if len(sizes) > 1:
            raise ValueError(f"the observation's arrays hold {sizes} observations: it must be one number")
        return sizes.pop()
    found = np.shape(observation)
    if found == space.shape:
        return None
    if found[1:] == space.shape and found:
        return found[0]
    raise ValueError(f"the observation has shape {found}: it must be {space.shape}, or that with a batch axis in front")


def _nth(observation: Tree, i: int) -> Tree:
    if isinstance(observation, Mapping):
        return {key: _nth(value, i) for key, value in observation.items()}
    return observation[i]
