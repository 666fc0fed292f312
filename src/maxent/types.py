"""The three types that every part of the library speaks: `Spec`, `Transition`, `Algorithm`.

An algorithm is a handful of pure functions over an explicit state of arrays. It never knows who feeds it: a host loop
over Gymnasium environments, a compiled loop on the device, one member or fifty.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Tree = Any
"""A pytree: an array, or a (nested) dictionary of arrays."""

Batch = Any
"""An array with leading batch axes, of JAX or of NumPy."""


@dataclass(frozen=True)
class Leaf:
    """One array of an observation or an action, as the algorithm sees it (batch axes left out)."""

    shape: tuple[int, ...]
    dtype: str
    categories: tuple[int, ...] = ()
    """How many values each entry can take, in C order; empty where the entries are numbers."""


@dataclass(frozen=True)
class Spec:
    """What an environment shows and what it takes, in the library's canonical form."""

    obs: Tree
    """A tree of `Leaf`, in the structure of the observation."""
    action: Leaf
    """Numbers: float32 in [-1, 1], shape (d,). Choices: int32, shape () for one and (k,) for several at once."""

    @property
    def continuous(self) -> bool:
        """Whether an action is numbers; else it is choices."""
        return not self.action.categories


class Transition(NamedTuple):
    """One step of an environment. The same type at every stage, with different leading axes.

    There is no done flag to get wrong: `discount` says what to bootstrap from and `boundary` where the sequence is
    cut, so a time limit (discount 1, boundary 1) is never taken for an end (discount 0, boundary 1).
    """

    obs: Tree
    action: Batch
    reward: Batch
    """The reward; from the replay, the discounted sum over the m steps of the window."""
    discount: Batch
    """0 where the episode terminated, else 1; from the replay, that times γ^m."""
    next_obs: Tree
    """The true successor, also where the episode ended."""
    boundary: Batch
    """1 where the episode was cut after this step for any reason."""
    real: Batch
    """0 where the environment only reset itself, and there is nothing to learn from."""
    extras: Tree = ()
    """What `act` wanted stored."""


class Algorithm(NamedTuple):
    """An algorithm: its pure functions and what the engine must know of it.

    | function | signature | note |
    |---|---|---|
    | `init` | (config, spec, key) → state | arrays only |
    | `view` | (state) → view | the least that acting needs: a selection of the state's arrays, nothing computed |
    | `initial_carry` | (config, spec, batch shape) → carry | the actor's memory at a beginning, `()` for none |
    | `act` | (config, spec, view, carry, obs, key, explore) → (action, carry, extras) | obs: [batch, …] |
    | `observe` | (config, spec, state, block) → state | sees every new transition once, in order |
    | `update` | (config, spec, state, batch, key, index) → (state, metrics) | closed under scan |

    A `replay` algorithm is given a batch [batch, …] of what once happened; a `rollout` algorithm the last
    `config.rollout_length` steps of all environments in order, [step, env, …], with the extras that `act` gave.

    `init` alone sees the swept numbers of the config; it puts them into the state. The other functions are given a
    config in which they are NaN (`maxent.config.without_numbers`), so that reading the wrong copy cannot go unseen.
    `index` is the number of the update, the same for all members.
    """

    name: str
    init: Callable[..., Any]
    view: Callable[..., Any]
    initial_carry: Callable[..., Any]
    act: Callable[..., Any]
    observe: Callable[..., Any]
    update: Callable[..., Any]
    feed: Literal["replay", "rollout"]
    actions: tuple[Literal["continuous", "discrete"], ...]
    metrics: Callable[[Any], tuple[str, ...]]
    """(config) → the names of the metrics that `update` returns, all scalars."""
    q: Callable[..., Any] | None = None
    """(config, spec, state, obs, action) → what the critics believe of actions, [batch], where there are critics."""


def no_memory(config: Any, spec: Spec, batch: tuple[int, ...]) -> tuple[()]:
    """The `initial_carry` of every algorithm whose actor remembers nothing."""
    return ()
