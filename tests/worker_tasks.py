"""Environments for worker processes, which import this module: it does without JAX."""

import os
import signal
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """A random walk of some steps. In the episode of one seed, at one step, it does something wrong."""

    def __init__(self, fault: str = "", seed: int = -1, step: int = 4) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-2.0, 3.0, (1,), np.float32)
        self.fault, self.wrong = fault, (seed, step)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.now, self.length = seed, 0, int(self.np_random.integers(4, 12))
        self.place = self.np_random.normal()
        return np.array([self.place, 0.0]), {}

    def step(self, action):
        self.now += 1
        self.place += float(action[0]) + self.np_random.normal()
        obs = np.array([self.place, self.now])
        if (self.seed, self.now) == self.wrong:
            obs = getattr(self, self.fault)(obs)
        over = self.now == self.length
        return obs, -abs(self.place), over and self.length % 2 == 0, over, {"is_success": over}

    def raises(self, obs):
        raise RuntimeError("the cable came off")

    def shape(self, obs):
        return obs[:1]

    def unreadable(self, obs):
        return lambda: obs

    def exits(self, obs):
        os._exit(3)

    def killed(self, obs):
        os.kill(os.getpid(), signal.SIGKILL)

    def hangs(self, obs):
        time.sleep(1e6)

    def interrupts(self, obs):
        raise KeyboardInterrupt


class Unsteady(Walk):
    """Goes another way in every process."""

    def step(self, action):
        obs, *rest = super().step(action)
        return obs + [os.getpid(), 0], *rest


class Witness(Walk):
    """Shows its process, and whether that knows JAX; a step takes a while."""

    def step(self, action):
        time.sleep(0.3)
        return np.array([os.getpid(), "jax" in sys.modules], float), 0.0, False, False, {}


class Unmakeable(Walk):
    def __init__(self):
        os._exit(5)
