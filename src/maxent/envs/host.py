"""Gymnasium environments on the host, as rows of canonical arrays [member, env, …].

This is the one place that knows about resets. It owns plain environments and seeds every reset itself, so an episode is
a function of its seed and its actions. What ending means:

  - terminated: discount 0 and boundary 1. Nothing follows.
  - truncated (a time limit): discount 1 and boundary 1. The true last observation is bootstrapped from.
  - the row after a boundary is the reset: the action is not taken, the reward is 0 and `real` is 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode

from maxent.envs import spaces
from maxent.errors import ConfigError, EnvironmentFault
from maxent.streams import episode_seed
from maxent.types import Spec, Transition, Tree

LARGEST = float(np.finfo(np.float32).max)


class Episode(NamedTuple):
    """A finished episode."""

    member: int
    env: int
    number: int
    """How many episodes this environment had before."""
    seed: int
    """What the environment was reset with; -1 where the library did not choose it."""
    total_reward: float
    length: int
    success: float | None
    """1 or 0 as the environment's `is_success` reports it, None where it does not."""


class Stepped(NamedTuple):
    """What one step of all environments gives."""

    row: Transition
    obs: Tree
    """What to act on next: `row.next_obs`, but for environments that reset themselves within a step."""
    starts: np.ndarray
    """Where that is the first observation of an episode, [member, env]."""
    failed: np.ndarray
    """Where an environment failed and was made anew: the episode before was cut at its last row, [member, env]."""


class Journal(NamedTuple):
    """What it takes to play the running episodes again, whatever the environment: their numbers and their actions."""

    episodes: np.ndarray
    """Episodes begun in each environment, [member, env]."""
    over: np.ndarray
    """Where the episode has ended and the next step resets, [member, env]."""
    lengths: np.ndarray
    """Steps taken in each running episode, [member, env]."""
    actions: np.ndarray
    """All their actions one after the other, [step, …]."""


class Envs(Protocol):
    """Environments [member, env] that are stepped together."""

    spec: Spec
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    """Of one environment."""
    shape: tuple[int, int]
    """(members, environments of each)"""
    episodes: np.ndarray
    """Episodes begun in each environment, [member, env]."""
    finished: list[Episode]
    """Episodes that ended, in order; whoever reads them empties the list."""
    faults: list[str]
    """What failing environments said before they were made anew; whoever reads them empties the list."""
    largest_reward: np.ndarray
    """The largest |reward| that each member has seen, [member]."""

    def reset(self) -> Stepped:
        """Begin a new episode everywhere. What was running is cut, as by a time limit."""
        ...

    def step(self, obs: Tree, action: np.ndarray) -> Stepped:
        """Take canonical actions [member, env, …] from the observations that the last call gave."""
        ...

    def journal(self) -> Journal:
        """What `restore` needs."""
        ...

    def restore(self, journal: Journal, last: Stepped) -> np.ndarray:
        """Play the running episodes again up to the step that gave `last`; where that went well, [member, env].

        Elsewhere the episode is over, as by a time limit, and the next step resets.
        """
        ...

    def close(self) -> None:
        """Release the environments."""
        ...


class HostEnvs:
    """Plain environments, made by a factory, stepped one after the other in this process."""

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        seeds: Sequence[int],
        envs: int,
        stream: str = "env",
        restarts: int = 0,
    ) -> None:
        self._make, self._restarts = make, restarts
        self.shape = (len(seeds), envs)
        self._envs = [[make() for _ in range(envs)] for _ in seeds]
        self._seeds, self._stream = list(seeds), stream
        first = self._envs[0][0]
        self.observation_space, self.action_space = first.observation_space, first.action_space
        self.spec = spaces.spec_of(first.observation_space, first.action_space)
        self._taken = spaces.environment_action(first.action_space)
        self.finished: list[Episode] = []
        self.episodes = np.zeros(self.shape, np.int64)
        """Episodes begun in each environment."""
        self._total_reward = np.zeros(self.shape)
        self._length = np.zeros(self.shape, np.int64)
        self._over = np.ones(self.shape, bool)
        self._broken_off: tuple[np.ndarray, np.ndarray] | None = None
        """Episodes and lengths before a step that was not brought to its end."""
        self.faults: list[str] = []
        self.largest_reward = np.zeros(len(seeds))
        self._actions: list[list[list[np.ndarray]]] = [[[] for _ in range(envs)] for _ in seeds]
        """Of the running episodes."""

    def reset(self) -> Stepped:
        """Begin a new episode everywhere. What was running is cut, as by a time limit."""
        self._over[:] = True
        zero = np.zeros((*self.shape, *self.spec.action.shape), self.spec.action.dtype)
        return self.step(spaces.empty_batch(self.spec.obs, self.shape), zero)

    def step(self, obs: Tree, action: np.ndarray) -> Stepped:
        """Take canonical actions [member, env, …]; where an episode is over, reset instead.

        Raises:
            EnvironmentFault: naming member, environment, episode, step and entry, where an environment breaks its own
                description.
        """
        before, finished = (self.episodes.copy(), self._length.copy()), len(self.finished)
        try:
            stepped = self._step_all(obs, action)
        except BaseException:
            self._broken_off = before
            del self.finished[finished:]
            raise
        self._broken_off = None
        return stepped

    def _step_all(self, obs: Tree, action: np.ndarray) -> Stepped:
        next_obs = spaces.empty_batch(self.spec.obs, self.shape)
        reward = np.zeros(self.shape, np.float32)
        discount = np.ones(self.shape, np.float32)
        boundary, failed = np.zeros(self.shape, bool), np.zeros(self.shape, bool)
        for at in np.ndindex(self.shape):
            if not self._over[at]:
                try:
                    reward[at], discount[at], boundary[at] = self._step(at, action[at], next_obs)
                    continue
                except EnvironmentFault as fault:
                    self._replace(at, fault)
                    failed[at] = True
            while True:
                try:
                    self._reset(at, next_obs)
                    break
                except EnvironmentFault as fault:
                    self._replace(at, fault)
        real = ~self._over & ~failed
        self._over = boundary.copy()
        return Stepped(Transition(obs, action, reward, discount, next_obs, boundary, real), next_obs, ~real, failed)

    def journal(self) -> Journal:
        """What `restore` needs."""
        episodes, taken = self._broken_off or (self.episodes, self._length)
        lengths = np.where(self._over, 0, taken)
        actions = [a for at in np.ndindex(self.shape) for a in self._actions[at[0]][at[1]][: lengths[at]]]
        stacked = np.array(actions, self.spec.action.dtype).reshape(-1, *self.spec.action.shape)
        return Journal(episodes.copy(), self._over.copy(), lengths, stacked)

    def restore(self, journal: Journal, last: Stepped) -> np.ndarray:
        """Play the running episodes again up to the step that gave `last`; where that went well, [member, env].

        Elsewhere the episode is over, as by a time limit, and the next step resets.
        """
        self.episodes[:] = journal.episodes
        first, kept = 0, np.ones(self.shape, bool)
        for at in np.ndindex(self.shape):
            actions = journal.actions[first : first + journal.lengths[at]]
            first += len(actions)
            kept[at] = journal.over[at] or self._play_again(at, actions, last)
            self._over[at] = journal.over[at] or not kept[at]
        self.finished.clear()
        return kept

    def _play_again(self, at: tuple[int, ...], actions: np.ndarray, last: Stepped) -> bool:
        """Whether the same seed and actions led to the same observation, reward and flags."""
        again = spaces.empty_batch(self.spec.obs, self.shape)
        reward, discount, boundary = 0.0, 1.0, False
        self.episodes[at] -= 1
        try:
            self._reset(at, again)
            for action in actions:
                reward, discount, boundary = self._step(at, action, again)
        except EnvironmentFault:
            return False
        same = jax.tree.map(lambda x, y: np.array_equal(x[at], y[at]), again, last.row.next_obs)
        ended = boundary or discount == 0
        return all(jax.tree.leaves(same)) and np.float32(reward) == last.row.reward[at] and not ended

    def close(self) -> None:
        """Release the environments."""
        for envs in self._envs:
            for env in envs:
                env.close()

    def _step(self, at: tuple[int, ...], action: np.ndarray, next_obs: Tree) -> tuple[float, float, bool]:
        """Take an action and write what is seen; reward, discount and boundary."""
        self._actions[at[0]][at[1]].append(action.copy())
        self._length[at] += 1
        with self._faults_of(at):
            env_obs, r, terminated, truncated, info = self._envs[at[0]][at[1]].step(self._taken(action))
            if not abs(reward := float(r)) <= LARGEST:
                raise ValueError(f"reward is {reward}, and the library keeps finite numbers of 32 bits")
            spaces.write_observation(self.observation_space, env_obs, next_obs, at)
        over = bool(terminated or truncated)
        self._account(at, reward, over, info)
        return reward, float(not terminated), over

    def _reset(self, at: tuple[int, ...], next_obs: Tree) -> None:
        """Begin the next episode and write what is seen."""
        self.episodes[at] += 1
        self._total_reward[at], self._length[at] = 0.0, 0
        self._actions[at[0]][at[1]].clear()
        with self._faults_of(at):
            env_obs, _ = self._envs[at[0]][at[1]].reset(seed=self._seed(at))
            spaces.write_observation(self.observation_space, env_obs, next_obs, at)

    def _replace(self, at: tuple[int, ...], fault: EnvironmentFault) -> None:
        """Make a failed environment anew, as often as is allowed."""
        if not self._restarts:
            raise fault
        self._restarts -= 1
        member, index = at
        with suppress(Exception):  # it has failed before
            self._envs[member][index].close()
        self._envs[member][index] = self._make()
        self.faults.append(str(fault))

    @contextmanager
    def _faults_of(self, at: tuple[int, ...]) -> Iterator[None]:
        """Whatever an environment raises, told with its place."""
        try:
            yield
        except Exception as error:
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise EnvironmentFault(f"{self._whereabouts(at)}: {what}") from error

    def _seed(self, at: tuple[int, ...]) -> int:
        """Of the running episode. Evaluations count episodes over all environments, however many there are."""
        (member, index), number = at, int(self.episodes[at]) - 1
        if self._stream == "eval":
            index, number = 0, number * self.shape[1] + index
        return episode_seed(self._seeds[member], index, number, self._stream)

    def _account(self, at: tuple[int, ...], reward: float, over: bool, info: dict[str, Any]) -> None:
        self._total_reward[at] += reward
        self.largest_reward[at[0]] = max(self.largest_reward[at[0]], abs(reward))
        if over:
            episode = Episode(
                member=at[0],
                env=at[1],
                number=int(self.episodes[at]) - 1,
                seed=self._seed(at),
                total_reward=float(self._total_reward[at]),
                length=int(self._length[at]),
                success=float(info["is_success"]) if "is_success" in info else None,
            )
            self.finished.append(episode)

    def _whereabouts(self, at: tuple[int, ...]) -> str:
        member, index = at
        return (
            f"environment {index} of member {member}, episode {self.episodes[at] - 1} (seed {self._seed(at)}), "
            f"step {self._length[at]}"
        )


class VectorEnvs:
    """A Gymnasium vector environment of the user's own, as one member; its seeds after the first are its own.

    Vector environments that reset themselves within the step of an episode's end give one transition less an episode
    than they could: the row after a boundary is never learned from.
    """

    def __init__(self, vector: gymnasium.vector.VectorEnv, seed: int) -> None:
        self._vector, self._seed = vector, seed
        self.shape = (1, vector.num_envs)
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self.spec = spaces.spec_of(self.observation_space, self.action_space)
        self._taken = spaces.environment_action(self.action_space)
        mode = vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        try:
            self._mode = AutoresetMode(mode)
        except ValueError:
            known = ", ".join(m.name for m in AutoresetMode)
            raise ConfigError(f"the vector environment's autoreset_mode is {mode!r}: it must be {known}") from None
        self.finished: list[Episode] = []
        self.episodes = np.zeros(self.shape, np.int64)
        self._total_reward = np.zeros(vector.num_envs)
        self._length = np.zeros(vector.num_envs, np.int64)
        self._over = np.ones(vector.num_envs, bool)
        self.faults: list[str] = []
        self.largest_reward = np.zeros(1)
        self._resets = False

    def reset(self) -> Stepped:
        """Begin a new episode everywhere. What was running is cut, as by a time limit."""
        obs, _ = self._vector.reset(seed=episode_seed(self._seed, 0, int(self.episodes[0, 0])))
        self.episodes += 1
        self._total_reward[:], self._length[:] = 0.0, 0
        self._over[:], self._resets = False, False
        canonical = self._canonical(obs)
        zero = np.zeros((*self.shape, *self.spec.action.shape), self.spec.action.dtype)
        none = np.zeros(self.shape, np.float32)
        row = Transition(canonical, zero, none, none + 1, canonical, none > 0, none > 0)
        return Stepped(row, canonical, none < 1, none > 0)

    def step(self, obs: Tree, action: np.ndarray) -> Stepped:
        """Take canonical actions [1, env, …]."""
        if self._resets:
            return self.reset()
        vector = self._vector
        found, reward, terminated, truncated, info = vector.step(np.stack([self._taken(a) for a in action[0]]))
        ended, resetting = terminated | truncated, self._over
        boundary = ended & ~resetting
        successor = self._canonical(found)
        act_on = successor
        if self._mode is AutoresetMode.SAME_STEP and boundary.any():
            act_on, successor = successor, self._canonical(found)
            for i in np.flatnonzero(boundary):
                self._write(info["final_obs"][i], successor, int(i))
        if self._mode is AutoresetMode.DISABLED and boundary.any():
            fresh, _ = vector.reset(options={"reset_mask": boundary})
            act_on = self._canonical(fresh)
        reward = np.where(resetting & (self._mode is AutoresetMode.NEXT_STEP), 0.0, reward)
        if self._mode is not AutoresetMode.NEXT_STEP and (boundary & (self._length == 0)).any():
            raise EnvironmentFault(
                f"an episode of one step: a vector environment of the mode {self._mode.name} leaves nothing to learn "
                "from it; make it with AutoresetMode.NEXT_STEP"
            )
        self._account(reward, boundary, resetting, info)
        row = Transition(
            obs, action, reward[None].astype(np.float32), 1.0 - terminated[None].astype(np.float32), successor,
            boundary[None], ~resetting[None],
        )  # fmt: skip
        if self._mode is not AutoresetMode.NEXT_STEP:
            return Stepped(row, act_on, boundary[None], np.zeros(self.shape, bool))
        self._over = boundary
        return Stepped(row, act_on, resetting[None], np.zeros(self.shape, bool))

    def journal(self) -> Journal:
        """The numbers of the episodes: an environment that seeds itself cannot be brought back to where it was."""
        none = np.zeros(self.shape, np.int64)
        return Journal(
            self.episodes.copy(), none > 0, none, np.zeros((0, *self.spec.action.shape), self.spec.action.dtype)
        )

    def restore(self, journal: Journal, last: Stepped) -> np.ndarray:
        """Every running episode is over, as by a time limit, and the next step resets."""
        self.episodes[:], self._resets = journal.episodes, True
        return np.zeros(self.shape, bool)

    def close(self) -> None:
        """Release the environments."""
        self._vector.close()

    def _account(self, reward: np.ndarray, over: np.ndarray, resetting: np.ndarray, info: dict[str, Any]) -> None:
        if not (fine := np.abs(reward) <= LARGEST).all():
            wrong = int(np.argmin(fine))
            raise EnvironmentFault(f"environment {wrong}: reward is {reward[wrong]}: it must be a finite 32-bit number")
        self._total_reward += reward
        self._length += ~resetting
        self.largest_reward[0] = max(self.largest_reward[0], np.abs(reward).max())
        source = info.get("final_info", {}) if self._mode is AutoresetMode.SAME_STEP else info
        success, told = source.get("is_success"), source.get("_is_success", np.ones(len(over), bool))
        for i in np.flatnonzero(over):
            found = float(success[i]) if success is not None and told[i] else None
            number = int(self.episodes[0, i]) - 1
            self.finished.append(
                Episode(0, int(i), number, -1, float(self._total_reward[i]), int(self._length[i]), found)
            )
            self.episodes[0, i] += 1
            self._total_reward[i], self._length[i] = 0.0, 0

    def _canonical(self, obs: Any) -> Tree:
        out = spaces.empty_batch(self.spec.obs, self.shape)
        for i, single in enumerate(gymnasium.vector.utils.iterate(self._vector.observation_space, obs)):
            self._write(single, out, i)
        return out

    def _write(self, single: Any, out: Tree, i: int) -> None:
        try:
            spaces.write_observation(self.observation_space, single, out, (0, i))
        except ValueError as error:
            raise EnvironmentFault(f"environment {i}, step {self._length[i]}: {error}") from None
