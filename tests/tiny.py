"""Environments and settings so small that what must come out of them can be written down."""

from functools import cache

import gymnasium
import numpy as np
from gymnasium import spaces

from maxent.algorithms.sac import SAC as SAC
from maxent.config import SACConfig
from maxent.loops.programs import Programs

SETTINGS = SACConfig(hidden_sizes=(16,), batch_size=16, buffer_size=500, learning_starts=50)
"""Learns next to nothing, and quickly."""

programs = cache(Programs)
"""One set of compiled functions for all runs with the same settings and spaces."""


class Clock(gymnasium.Env):
    """Shows [episode, steps taken in it] and pays 10·episode + steps; the episode ends after `length` steps.

    `ending` says how: "terminated", "truncated" or "both". What it was given is kept in `seeds` and `actions`;
    `played` has the seeds of the episodes in which a step was taken.
    """

    def __init__(self, length: int = 3, ending: str = "terminated") -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.ending = length, ending
        self.episode, self.now = -1, 0
        self.seeds, self.played, self.actions = [], [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.now = self.episode + 1, 0
        self.seeds.append(seed)
        return self._obs(), {}

    def step(self, action):
        self.now += 1
        self.played += self.seeds[-1:] if self.now == 1 else []
        self.actions.append(action)
        over = self.now >= self.length
        terminated, truncated = over and self.ending != "truncated", over and self.ending != "terminated"
        info = {"is_success": self.episode % 2 == 0} if over else {}
        return self._obs(), 10.0 * self.episode + self.now, terminated, truncated, info

    def _obs(self):
        return np.array([self.episode, self.now], np.float32)
