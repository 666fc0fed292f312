"""A sound environment, and others that have one thing wrong with them each."""

import random
from itertools import count

import gymnasium
import numpy as np
from gymnasium import spaces

INF = np.inf


class Sound(gymnasium.Env):
    """A walk of ten steps at most from a random place towards 0; the first number is the place, the second the time."""

    length = 10

    def __init__(self):
        self.observation_space = spaces.Box(-INF, INF, (2,), np.float32)
        self.action_space = spaces.Box(-2.0, 3.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.now = self.np_random.uniform(-1, 1), 0
        return self.show(), {}

    def step(self, action):
        self.now += 1
        self.move(action)
        terminated, truncated = self.over()
        return self.show(), self.pay(), terminated, truncated, {}

    def move(self, action):
        self.place += 0.1 * float(np.ravel(action)[0])

    def show(self):
        return np.array([self.place, self.now / 10], np.float32)

    def pay(self):
        return -abs(self.place)

    def over(self):
        return bool(abs(self.place) > 1.2), self.now >= self.length


class Chatty(Sound):
    def move(self, action):
        print("hello")
        super().move(action)


# --- spaces -------------------------------------------------------------------------------------------------


class NoActionSpace(Sound):
    def __init__(self):
        super().__init__()
        del self.action_space


class UnboundedAction(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(np.float32([-1, -1]), np.float32([1, INF]))


class UndefinedAction(Sound):
    def __init__(self):
        super().__init__()
        self.action_space.low[0] = np.nan


class ShamBounds(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-1e9, 1e9, (1,), np.float32)

    def move(self, action):
        super().move(np.clip(action, -1, 1))


class EmptyAction(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (0,), np.float32)


class EmptyObservation(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict(nothing=spaces.Box(-1, 1, (0,), np.float32))


class TupleObservation(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict(hand=spaces.Tuple([spaces.Discrete(3)]))


class TextAction(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Text(5)


class LargeImage(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (60, 60, 3), np.uint8)

    def show(self):
        return np.full((60, 60, 3), np.clip(100 * self.place + 128, 0, 255), np.uint8)


class OtherInstance(Sound):
    made = count()

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(3 + next(self.made))


class OtherReset(Sound):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.action_space = spaces.Box(-2.0, 3.0 + self.place, (1,), np.float32)
        return obs, info


class BrokenConstructor(Sound):
    def __init__(self):
        {}["mass"]


# --- reset and step -----------------------------------------------------------------------------------------


class BareReset(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class UnseededReset(Sound):
    def reset(self):
        return super().reset()


class BrokenReset(Sound):
    def reset(self, *, seed=None, options=None):
        if seed == 2:
            raise RuntimeError("no such level")
        return super().reset(seed=seed)


class OldStep(Sound):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class BareStep(Sound):
    def step(self, action):
        super().step(action)


class NoInfo(Sound):
    def step(self, action):
        return *super().step(action)[:4], None


class BrokenStep(Sound):
    def move(self, action):
        super().move(action)
        if self.now == 4:
            self.place /= 0


# --- observations -------------------------------------------------------------------------------------------


class Hole(Sound):
    def show(self):
        return np.array([self.place, np.nan if self.now == 3 else 0.0], np.float32)


class HoleAtReset(Sound):
    def show(self):
        return np.array([INF, self.place], np.float32)


class OtherShape(Sound):
    def show(self):
        return np.zeros((2, 1), np.float32)


class OtherKeys(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict(place=spaces.Box(-INF, INF, (2,)))

    def show(self):
        return {"palce": super().show()}


class OtherType(Sound):
    def show(self):
        return super().show().astype(np.float64)


class OtherBounds(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(np.float32([-5, 0]), np.float32([5, 0.5]))


class Mutated(Sound):
    def reset(self, *, seed=None, options=None):
        self.state = np.zeros(2, np.float32)
        return super().reset(seed=seed)

    def show(self):
        self.state[:] = super().show()
        return self.state


class LargeObservation(Sound):
    def show(self):
        return super().show() * np.float32([1, 5000])


class HugeObservation(Sound):
    def show(self):
        return super().show() * np.float32([1, 1e20])


class SmallObservation(Sound):
    def show(self):
        return super().show() * np.float32([1e-5, 1])


class DarkImage(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (4, 4), np.uint8)

    def show(self):
        return np.full((4, 4), self.now % 2, np.uint8)


class Blind(Sound):
    def show(self):
        return np.ones(2, np.float32)


# --- rewards, ends and flags --------------------------------------------------------------------------------


class NoNumber(Sound):
    def pay(self):
        return np.nan if self.now == 2 else 1.0


class VectorReward(Sound):
    def pay(self):
        return np.ones(1)


class NoReward(Sound):
    def pay(self):
        return None


class TooLarge(Sound):
    def pay(self):
        return 1e39


class HugeRewards(Sound):
    def pay(self):
        return -1e30 * abs(self.place)


class LargeRewards(Sound):
    def pay(self):
        return -3e4 * min(abs(self.place), 1)


class TinyRewards(Sound):
    def pay(self):
        return -1e-6 * abs(self.place)


class ZeroRewards(Sound):
    def pay(self):
        return 0


class ConstantRewards(Sound):
    def pay(self):
        return 2.5

    def over(self):
        return False, self.now >= 10


class Endless(Sound):
    def over(self):
        return False, False


class Wanders(Sound):
    """Ends where it happens to arrive."""

    def reset(self, *, seed=None, options=None):
        returned = super().reset(seed=seed)
        self.arrives = bool(self.np_random.random() < 0.5)
        return returned

    def over(self):
        return self.arrives and self.now >= 10, False


class AlwaysOver(Sound):
    def over(self):
        return True, False


class LimitAsEnd(Sound):
    def over(self):
        return self.now >= 10, False


class NumberFlags(Sound):
    def over(self):
        return tuple(map(int, super().over()))


class NoFlag(Sound):
    def over(self):
        return None, super().over()[1]


# --- chance and actions -------------------------------------------------------------------------------------


class GlobalChanceAtReset(Sound):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = random.uniform(-1, 1)
        return self.show(), {}


class GlobalChanceInStep(Sound):
    def move(self, action):
        super().move(action)
        self.place += random.gauss(0, 0.01) * (self.now == 3)


class Remembers(Sound):
    """Harder from episode to episode."""

    level = 0.0

    def reset(self, *, seed=None, options=None):
        self.level += 0.01
        return super().reset(seed=seed)

    def pay(self):
        return super().pay() - self.level


class EachItsOwn(Sound):
    """Every environment is a little different."""

    made = count()

    def __init__(self):
        super().__init__()
        self.friction = 0.01 * next(self.made)

    def move(self, action):
        super().move(action)
        self.place -= self.friction


class Deaf(Sound):
    def move(self, action):
        self.place += 0.1


class WritesToActions(Sound):
    def move(self, action):
        action *= 0.5
        super().move(action)
