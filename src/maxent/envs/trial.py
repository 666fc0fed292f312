"""Episodes of random actions, played to be looked at.

An episode stops where a training would: at the first thing that the library refuses, which is its `fault`. What can be
borne is noted among its `flaws`.
"""

import contextlib
import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from maxent.envs import spaces
from maxent.envs.plain import told
from maxent.types import Leaf, Spec, Tree

AT_BOUND = 0.1
"""Share of an action's numbers that are moved to their bounds, where trained policies often act."""
ROUNDING = 1e-5
"""Share of a number, or of one, by which it may leave its bounds."""
NOT_FINITE = "Find the division, root or overflow that it comes from: one such number spoils every weight."
ENOUGH, PATIENCE = 500, 5
"""Steps that are played at least, in more episodes where they are short; as long as all rewards are 0, so many times
more."""
Arrays = dict[str, np.ndarray]
"""The arrays of one observation, by name."""


class Spaces(NamedTuple):
    """What an environment declared before it was played."""

    observation: gymnasium.Space
    action: gymnasium.Space
    spec: Spec


class Fault(Exception):
    """What would stop a training: the name of the check, what was found, what to do."""


@dataclass
class Episode:
    """What was seen of an episode."""

    seed: int
    obs: list[Arrays] = field(default_factory=list)
    """The reset's first, then one a step."""
    rewards: list[float] = field(default_factory=list)
    ending: Literal["terminated", "truncated", "left"] = "left"
    flaws: dict[str, str] = field(default_factory=dict)
    """What was first seen of each: "types", "bounds", "flags", "copies", "actions"."""
    fault: bool = False
    """Whether one cut it."""
    seconds: float = 0.0
    """Spent within the environment."""


@dataclass(frozen=True)
class Evidence:
    """What the checks read."""

    env: gymnasium.Env
    declared: Spaces
    steps: int
    """After which an episode is left."""
    episodes: list[Episode] = field(default_factory=list)
    """Without the one that a fault cut."""
    replays: dict[str, Episode] = field(default_factory=dict)
    """The first episode with its seed and its actions again, by where it was played."""
    others: list[Episode] = field(default_factory=list)
    """The first episodes with other actions, until those made a difference."""
    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By check: what was found first, and what to do."""

    def play(self, env: gymnasium.Env, seed: int, other: bool = False) -> Episode:
        """The episode of a seed, until it ends or has a fault."""
        episode = Episode(seed)
        try:
            _play(env, self.declared, episode, self.steps, np.random.default_rng([seed, other]))
        except Fault as fault:
            check, found, advice = fault.args
            where = f"step {len(episode.obs)} of episode {seed}" if episode.obs else f"reset(seed={seed})"
            self.faults.setdefault(check, (f"{where}: {found}", advice))
            episode.fault = True
        return episode


def gather(env: gymnasium.Env, second: gymnasium.Env, episodes: int, steps: int) -> Evidence:
    """Play so many episodes, or more short ones, and what is to be compared with them."""
    observation, action = copy.deepcopy((env.observation_space, env.action_space))
    seen = Evidence(env, Spaces(observation, action, spaces.spec_of(observation, action)), steps)
    count, enough = 0, PATIENCE * ENOUGH
    while not seen.faults and (len(seen.episodes) < episodes or count < enough):
        episode = seen.play(env, len(seen.episodes))
        count, enough = count + len(episode.rewards), ENOUGH if any(episode.rewards) else enough
        if not episode.fault:
            seen.episodes.append(episode)
    if seen.episodes:
        seen.replays["a second environment"] = seen.play(second, 0)
        seen.replays["the same environment, after other episodes"] = seen.play(env, 0)
    for episode in seen.episodes[:10]:
        seen.others.append(seen.play(env, episode.seed, other=True))
        if difference(episode, seen.others[-1]):
            break
    return seen


def difference(one: Episode, two: Episode) -> str:
    """The first thing that differs between two episodes; empty where nothing does."""
    for step, (obs, again) in enumerate(zip(one.obs, two.obs)):
        when = f"after step {step}" if step else "at the reset"
        for name, array in obs.items():
            for entry in map(tuple, np.argwhere(array != again[name])[:1]):
                return f"{when}, {entry_name(name, entry)} is {array[entry]!s} and then {again[name][entry]!s}"
        if step and one.rewards[step - 1] != two.rewards[step - 1]:
            return f"{when}, the reward is {one.rewards[step - 1]} and then {two.rewards[step - 1]}"
    ends = [f"{e.ending} after {len(e.rewards)} steps" for e in (one, two)]
    return f"it is {ends[0]} and then {ends[1]}" if ends[0] != ends[1] else ""


def leaves(space: gymnasium.Space, tree: Tree, where: str = "observation") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of an observation, or of its description, with its name and its space."""
    if isinstance(space, Dict):
        for key, sub in space.spaces.items():
            yield from leaves(sub, tree[key], f"{where}[{key!r}]")
    else:
        yield where, space, tree


def entry_name(name: str, entry: tuple[int, ...]) -> str:
    """How an entry of an array is called: observation[2]."""
    return f"{name}{[int(i) for i in entry]}" if entry else name


def raised(what: str, error: Exception) -> str:
    """An exception, and the line that it came from."""
    return f"{what} raises {told(error)}"


def _play(env: gymnasium.Env, declared: Spaces, episode: Episode, steps: int, rng: np.random.Generator) -> None:
    take, batch = spaces.environment_action(declared.action), spaces.empty_batch(declared.spec.obs, ())
    begun = time.perf_counter()
    obs = _reset(env, episode.seed)
    while True:
        episode.seconds += time.perf_counter() - begun
        episode.obs.append(_arrays(declared.observation, obs, batch, episode.flaws))
        if episode.ending != "left" or len(episode.rewards) == steps:
            return
        action = take(_draw(declared.spec.action, rng))
        given, before = copy.copy(action), obs
        begun = time.perf_counter()
        obs, reward, terminated, truncated = _step(env, action)
        if not np.array_equal(action, given):
            episode.flaws.setdefault("actions", f"step was given the action {given} and made it {action}")
        for name, _, array in leaves(declared.observation, before):
            if not np.array_equal(array, episode.obs[-1][name]):
                episode.flaws.setdefault("copies", f"the {name} that was returned last is changed by the next step")
        reward = _number(reward)
        terminated, truncated = _flag("terminated", terminated, episode), _flag("truncated", truncated, episode)
        episode.rewards.append(reward)
        episode.ending = "terminated" if terminated else "truncated" if truncated else "left"


def _draw(leaf: Leaf, rng: np.random.Generator) -> np.ndarray:
    """A random canonical action."""
    if leaf.categories:
        return np.asarray(rng.integers(0, np.reshape(leaf.categories, leaf.shape)), np.int32)
    action = rng.uniform(-1, 1, leaf.shape)
    return np.where(rng.random(leaf.shape) < AT_BOUND, np.sign(action), action).astype(np.float32)


def _reset(env: gymnasium.Env, seed: int) -> Any:
    try:
        result: Any = env.reset(seed=seed)
    except Exception as error:
        advice = "Begin it with: def reset(self, *, seed=None, options=None): super().reset(seed=seed)."
        raise Fault("reset", raised("it", error), advice) from None
    if not isinstance(result, tuple) or len(result) != 2:
        raise Fault("reset", f"the result is {_kind(result)}, not (observation, info)", "Write: return obs, {}.")
    return result[0]


def _step(env: gymnasium.Env, action: Any) -> tuple[Any, Any, Any, Any]:
    try:
        result: Any = env.step(action)
    except Exception as error:
        result = _own_step(env, action, error)
    if not isinstance(result, tuple) or len(result) != 5:
        old = " as old Gym had it" if isinstance(result, tuple) and len(result) == 4 else ""
        found = f"the result is {_kind(result)}{old}, not (observation, reward, terminated, truncated, info)"
        advice = "Return all five: terminated where the task is over, truncated where only a time limit was reached."
        raise Fault("step", found, advice)
    if not isinstance(result[4], dict):
        raise Fault("step", f"the info is {_kind(result[4])}, not a dictionary", "Return a dictionary, empty or not.")
    return result[:4]


def _own_step(env: gymnasium.Env, action: Any, error: Exception) -> Any:
    """What the environment itself gives, where a wrapper such as a time limit has failed at unpacking it."""
    with contextlib.suppress(Exception):
        result: Any = env.unwrapped.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            return result
    advice = "Mend it, or a training stops there as well."
    raise Fault("step", raised(f"the action {action}", error), advice) from None


def _flag(name: str, flag: Any, episode: Episode) -> bool:
    array, found = np.asarray(flag), f"{name} is {flag!r}, {_kind(flag)}"
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise Fault("flags", found, "Return True or False.")
    if array.dtype != bool or array.ndim:
        episode.flaws.setdefault("flags", found)
    return bool(array.item())


def _number(reward: Any) -> float:
    array = np.asarray(reward)
    if array.ndim or array.dtype.kind not in "biuf":
        raise Fault("rewards", f"the reward is {reward!r}, {_kind(reward)}", "Return one number: float(reward).")
    with np.errstate(over="ignore"):
        if not np.isfinite(array.astype(np.float32)):
            raise Fault("rewards", f"the reward is {array}, no finite number of float32", NOT_FINITE)
    return float(array)


def _arrays(space: gymnasium.Space, obs: Any, batch: Tree, flaws: dict[str, str]) -> Arrays:
    """Copies of an observation's arrays, where a training would accept them."""
    try:
        spaces.write_observation(space, obs, batch, ())
    except ValueError as error:
        declare = "Return what observation_space declares, or declare what is returned."
        raise Fault("observations", str(error), NOT_FINITE if "no finite" in str(error) else declare) from None
    arrays = {name: np.array(array) for name, _, array in leaves(space, obs)}
    for name, sub, _ in leaves(space, obs):
        if isinstance(sub, Box):
            _note_flaws(name, sub, arrays[name], flaws)
    return arrays


def _note_flaws(name: str, space: Box, array: np.ndarray, flaws: dict[str, str]) -> None:
    if not np.can_cast(array.dtype, space.dtype):
        flaws.setdefault("types", f"the {name} is {array.dtype}, declared is {space.dtype}")
    slack = ROUNDING * np.maximum(1.0, np.abs(array))
    for entry in map(tuple, np.argwhere((array < space.low - slack) | (array > space.high + slack))[:1]):
        low, high = space.low[entry], space.high[entry]
        flaws.setdefault("bounds", f"{entry_name(name, entry)} is {array[entry]:g}, declared is [{low:g}, {high:g}]")


def _kind(value: Any) -> str:
    """A value's type in words."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"of type {type(value).__name__}"
