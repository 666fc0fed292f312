"""Environments so small that their values are known. They show one-hot states and take one action."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

STATES = 3
LONG = 20
"""Where an episode has no end of its own but a time limit: no multiple of any probe's period."""


class Probe(gymnasium.Env):
    """A walk over states that the action does not change; `reward` may depend on it."""

    first: ClassVar[int] = 0
    successor: ClassVar[dict[int, int | None]]
    """Where each state leads; None ends the episode there."""

    observation_space = spaces.Box(0, 1, (STATES,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reward(self, state: int, action: float) -> float:
        return 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.first
        return one_hot(self.state), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward, to = self.reward(self.state, float(action[0])), self.successor[self.state]
        self.state = self.state if to is None else to
        return one_hot(self.state), reward, to is None, False, {}


class Constant(Probe):
    """A reward of 1 for ever: worth 1 / (1 - γ), wherever a time limit cuts."""

    successor: ClassVar = {0: 0}


class Alternating(Probe):
    """Two states in turn, of which only the first pays: worth 1 / (1 - γ²) and γ / (1 - γ²).

    Cut after an odd number of steps it stands in the second state, so that neither what ends there (a worth of 0) nor
    the state after the reset can be mistaken for the successor.
    """

    successor: ClassVar = {0: 1, 1: 0}

    def reward(self, state: int, action: float) -> float:
        return float(state == 0)


class OneStep(Probe):
    """It ends at once: worth its reward."""

    successor: ClassVar = {0: None}


class Terminating(Probe):
    """Three steps of 1 and an end: worth 1 + γ + γ², 1 + γ, 1."""

    successor: ClassVar = {0: 1, 1: 2, 2: None}


class Delayed(Probe):
    """Nothing, then 1 and the end: worth γ, 1."""

    successor: ClassVar = {0: 1, 1: None}

    def reward(self, state: int, action: float) -> float:
        return float(state == 1)


class Target(Probe):
    """It ends at once and pays 1 for an action of 0.4, less the squared distance: worth that, of any policy."""

    successor: ClassVar = {0: None}
    best: ClassVar[float] = 0.4

    def reward(self, state: int, action: float) -> float:
        return 1 - (action - self.best) ** 2


def one_hot(state: int) -> np.ndarray:
    return np.eye(STATES, dtype=np.float32)[state]


class Lease(gymnasium.Env):
    """One decision: take 1 and it ends, or 0.4 for staying. Then a time limit cuts, or, in another sort, it ends too.

    The observation tells the sort, as bytes, as a choice and as a number. Where a time limit cuts, staying is worth
    0.4 / (1 - γ): with γ = 0.9 more than taking, unless what a time limit cuts counts as ended, or what ends as cut.
    """

    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (2, 2, 1), np.uint8),
        choice=spaces.Discrete(2, start=3),
        vector=spaces.Box(-1, 1, (1,)),
    )

    def __init__(self, actions: str = "continuous") -> None:
        continuous = actions == "continuous"
        self.action_space = spaces.Box(-1, 1, (2,)) if continuous else spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.sort = int(self.np_random.integers(2))
        return self.seen(self.sort), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        stays = bool(action[0] > 0)
        cut = stays and self.sort == 0
        return self.seen(self.sort), 0.4 if stays else 1.0, not cut, cut, {}

    @staticmethod
    def seen(sort: int) -> dict[str, Any]:
        image = np.full((2, 2, 1), 255 * sort, np.uint8)
        return {"image": image, "choice": np.int64(3 + sort), "vector": np.float32([2 * sort - 1])}
