"""Small problems to test and to teach with."""

from collections.abc import Sequence

import numpy as np

from maxent.errors import ConfigError
from maxent.tabular.mdp import MDP, is_count

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""The actions of a gridworld as (rows, columns): up, right, down, left."""

TWO_PASSAGES = (
    "....#....",
    ".........",
    "....#....",
    "S...#...G",
    "....#....",
    "....#....",
    ".........",
)
"""A wall with two passages. The way through the upper one takes 12 steps, through the lower one 14."""


def random_mdp(num_states: int, num_actions: int, discount: float = 0.95, seed: int = 0) -> MDP:
    """An MDP without structure or end: rows uniform on the simplex, standard normal rewards."""
    if not (is_count(num_states) and is_count(num_actions)):
        found = f"{num_states!r} states and {num_actions!r} actions"
        raise ConfigError(f"{found} asked for; expected whole numbers, at least 1 each")
    rng = np.random.default_rng(seed)
    return MDP(
        transition=rng.dirichlet(np.ones(num_states), (num_states, num_actions)),
        reward=rng.standard_normal((num_states, num_actions)),
        discount=discount,
        initial=rng.dirichlet(np.ones(num_states)),
    )


def chain(length: int, discount: float = 0.95, goal_reward: float = 1.0, slip: float = 0.0) -> MDP:
    """A corridor from state 0, the start, to state length - 1, terminal, which pays `goal_reward` on entry.

    Action 0 steps left (and stays at state 0), action 1 right; with probability `slip` the other one happens.
    """
    if not is_count(length, 2):
        raise ConfigError(f"length is {length!r}; a chain needs a start and an end, so a whole number, at least 2")
    _check_slip(slip)
    here = np.arange(length)
    left, right = np.eye(length)[np.maximum(here - 1, 0)], np.eye(length)[np.minimum(here + 1, length - 1)]
    transition = np.stack([(1 - slip) * left + slip * right, slip * left + (1 - slip) * right], 1)
    transition[-1] = np.eye(length)[-1]
    reward = goal_reward * transition[:, :, -1]
    reward[-1] = 0
    return MDP(transition, reward, discount, initial=np.eye(length)[0], terminal=here == length - 1)


def gridworld(
    layout: Sequence[str],
    discount: float = 0.99,
    step_reward: float = -1.0,
    goal_reward: float = 0.0,
    slip: float = 0.0,
) -> MDP:
    """A grid drawn in text: `S` where episodes start (any of them), `G` where they end, `#` walls, `.` free.

    A state is row · width + column, so `value.reshape(height, width)` is a picture. The actions are `MOVES`;
    with probability `slip` one of the other three happens; who walks into a wall or the edge stays. Every
    step pays `step_reward`, the one that enters a goal `goal_reward` on top. Walls are states that nobody
    enters.
    """
    try:
        rows = ["".join(row) for row in layout]
    except TypeError:
        raise ConfigError(f"layout is {layout!r}; expected rows of text, such as S..G") from None
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ConfigError("layout is empty or its rows differ in length; expected a rectangle of S, G, # and .")
    cells = np.array([list(row) for row in rows])
    unknown = set("".join(rows)) - set("SG#.")
    if unknown or "S" not in cells:
        found = f"the characters {sorted(unknown)}" if unknown else "no start S"
        raise ConfigError(f"layout has {found}; expected S, G, # and ., with at least one S")
    _check_slip(slip)

    height, width = cells.shape
    wall, terminal = (cells == "#").ravel(), np.isin(cells, ["G", "#"]).ravel()
    row, column = np.divmod(np.arange(height * width), width)
    moved = []
    for down, right in MOVES:
        target = np.clip(row + down, 0, height - 1) * width + np.clip(column + right, 0, width - 1)
        moved.append(np.eye(height * width)[np.where(wall[target], row * width + column, target)])
    intended = np.stack(moved, 1)  # [states, actions, states]
    others = (intended.sum(1, keepdims=True) - intended) / (len(MOVES) - 1)
    transition = (1 - slip) * intended + slip * others
    transition[terminal] = np.eye(height * width)[terminal][:, None]
    reward = step_reward + goal_reward * transition[:, :, (cells == "G").ravel()].sum(-1)
    reward[terminal] = 0
    start = (cells == "S").ravel()
    return MDP(transition, reward, discount, initial=start / start.sum(), terminal=terminal)


def two_passages(discount: float = 0.99, blocked: bool = False, slip: float = 0.0) -> MDP:
    """The gridworld `TWO_PASSAGES`, where each step costs 1; `blocked` closes the upper, shorter passage."""
    layout = list(TWO_PASSAGES)
    if blocked:
        layout[1] = layout[0]
    return gridworld(layout, discount, slip=slip)


def _check_slip(slip: float) -> None:
    if not 0 <= slip <= 1:
        raise ConfigError(f"slip is {slip:g}; it is a probability and must lie in [0, 1]")
