"""A finite Markov decision process given as arrays, checked once, when it is made."""

import operator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxent.errors import ConfigError

Array = NDArray[np.float64]

SUM_TOLERANCE = 1e-6
"""How far the sum of a distribution may be from 1: the rounding of float32. Rows are then rescaled."""


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite Markov decision process. Its arrays are float64 copies that cannot be written to.

    An episode ends on entering a terminal state: no action is taken there, so it has neither reward nor
    entropy, and its value is 0. Its rows of `transition` stay where they are and its rewards are 0. A state
    that loops on itself without being terminal goes on for ever, and earns entropy for ever.

    Raises `ConfigError` naming the entry where the arrays are not finite, do not fit each other or are not
    distributions, where a terminal state moves or pays, and where the discount is outside [0, 1], or is 1
    although some policy never ends.
    """

    transition: Array
    """P(s' | s, a), [states, actions, states]."""
    reward: Array
    """The expected r(s, a), [states, actions]."""
    discount: float
    """γ in [0, 1]; 1 only if every policy reaches a terminal state."""
    initial: Array
    """The distribution of the first state, [states]; none of it on terminal states."""
    terminal: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((), bool))
    """Which states end the episode, a boolean mask [states]; by default none."""

    def __post_init__(self) -> None:
        transition = check_numbers("transition", self.transition)
        shape = transition.shape
        if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
            raise ConfigError(f"transition has shape {shape}; expected [states, actions, states]")
        reward = check_numbers("reward", self.reward, shape[:2])
        initial = check_distribution("initial", self.initial, shape[:1])
        object.__setattr__(self, "transition", check_distribution("transition", transition, shape))
        object.__setattr__(self, "reward", reward)
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "terminal", _check_terminal(self.terminal, transition, reward, initial))
        object.__setattr__(self, "discount", _check_discount(self.discount, transition, self.terminal))

    @property
    def num_states(self) -> int:
        """How many states there are, terminal ones included."""
        return self.reward.shape[0]

    @property
    def num_actions(self) -> int:
        """How many actions each state has."""
        return self.reward.shape[1]

    @cached_property
    def continuation(self) -> Array:
        """γ·P(s' | s, a) between states that are not terminal, else 0, [states, actions, states]."""
        alive = ~self.terminal
        return self.discount * self.transition * alive[:, None, None] * alive

    @cached_property
    def horizon(self) -> Array:
        """The most discounted steps that any policy makes from each state, [states]: h = 1 + γ·max_a P·h.

        It is 1/(1 - γ) where nothing is terminal, and 0 at terminal states. Every backup of this MDP
        contracts with modulus 1 - 1/max(h) in the norm max_s |V(s)|/h(s) (Bertsekas and Tsitsiklis,
        Neuro-Dynamic Programming, 1996, section 2.2); hence error bounds that hold at γ = 1 too.
        """
        alive = (~self.terminal).astype(np.float64)
        if alive.all():
            return alive / (1 - self.discount)
        states, choice = np.arange(self.num_states), np.zeros(self.num_states, int)
        for _ in range(self.num_states * self.num_actions):  # policy iteration, in fact a handful of rounds
            moves = self.continuation[states, choice]
            steps = np.asarray(np.linalg.solve(np.eye(self.num_states) - moves, alive), np.float64)
            following = self.continuation @ steps
            better = following.max(1) > following[states, choice] + 1e-9 * steps
            if not better.any():
                break
            choice = np.where(better, following.argmax(1), choice)
        return steps


def refuse(name: str, array: NDArray[np.generic], wrong: NDArray[np.bool_], expected: str) -> None:
    """Raise a `ConfigError` that names the first entry of `array` that is `wrong`, if there is one."""
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ConfigError(f"{_entry(name, index)} is {array[index]}; {expected}")


def check_numbers(name: str, value: ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    """A read-only float64 copy. Raises `ConfigError` where it is not finite numbers of that shape."""
    try:
        if np.iscomplexobj(value):
            raise TypeError("they are complex")
        array = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is not an array of real numbers: {error}") from None
    if not array.size:
        raise ConfigError(f"{name} has shape {array.shape}; expected at least one entry")
    if shape is not None and array.shape != shape:
        raise ConfigError(f"{name} has shape {array.shape}; expected {shape}")
    refuse(name, array, ~np.isfinite(array), "every entry must be finite")
    array.flags.writeable = False
    return array


def check_distribution(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """`check_numbers` for probabilities along the last axis, rescaled so that they sum to 1 exactly."""
    array = check_numbers(name, value, shape)
    refuse(name, array, array < 0, "a probability must not be negative")
    total = array.sum(-1, keepdims=True)
    wrong = np.abs(total[..., 0] - 1) > SUM_TOLERANCE
    if wrong.any():
        row = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ConfigError(f"{_entry(name, row)} sums to {total[..., 0][row]:.10g}; a distribution sums to 1")
    array = array / total
    array.flags.writeable = False
    return array


def is_count(value: object, least: int = 1) -> bool:
    """Whether it is a whole number, and no smaller than that."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= least  # type: ignore[arg-type]
    except TypeError:
        return False


def check_temperature(temperature: float) -> float:
    """The temperature as a float. Raises `ConfigError` unless it is one positive, finite number."""
    number = check_numbers("temperature", temperature, ())
    refuse("temperature", number, number <= 0, "it must be positive (zero_temperature is the limit)")
    return float(number)


def _entry(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def _check_terminal(value: NDArray[np.bool_], transition: Array, reward: Array, initial: Array) -> NDArray[np.bool_]:
    terminal: NDArray[np.bool_] = np.array(value)
    states = transition.shape[0]
    if terminal.dtype != bool or terminal.shape not in ((), (states,)):
        found = f"dtype {terminal.dtype} and shape {terminal.shape}"
        raise ConfigError(f"terminal has {found}; expected a boolean mask of shape ({states},)")
    terminal = np.array(np.broadcast_to(terminal, (states,)))
    stays = np.diagonal(transition, axis1=0, axis2=2).T  # [states, actions]
    for state in np.flatnonzero(terminal):
        if initial[state] > 0:
            found = f"initial[{state}] is {initial[state]:g}"
            raise ConfigError(f"{found}, but state {state} is terminal; expected 0")
        for action in range(transition.shape[1]):
            if abs(stays[state, action] - 1) > SUM_TOLERANCE:
                found = f"transition[{state}, {action}, {state}] is {stays[state, action]:g}"
                raise ConfigError(f"{found}, but state {state} is terminal; expected 1")
            if reward[state, action] != 0:
                found = f"reward[{state}, {action}] is {reward[state, action]:g}"
                raise ConfigError(f"{found}, but state {state} is terminal; pay on the way in instead")
    terminal.flags.writeable = False
    return terminal


def _check_discount(value: float, transition: Array, terminal: NDArray[np.bool_]) -> float:
    discount = float(check_numbers("discount", value, ()))
    if not 0 <= discount <= 1:
        raise ConfigError(f"discount is {discount:g}; it must lie in [0, 1]")
    if discount == 1:
        endless = ~terminal  # shrinks to the states where some action stays among such states for ever
        while True:
            stays = ~(transition @ ~endless > 0) & endless[:, None]
            if (stays.any(1) == endless).all():
                break
            endless = np.asarray(stays.any(1))
        if endless.any():
            state, action = (int(i) for i in np.argwhere(stays)[0])
            found = f"discount is 1, but from state {state} (action {action}) an episode can go on for ever"
            raise ConfigError(f"{found}; use a discount below 1, or mark in terminal where episodes end")
    return discount
