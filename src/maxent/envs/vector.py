"""A Gymnasium vector environment of the user's own as rows of canonical arrays [1, env, …]."""

from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from maxent.envs import spaces
from maxent.envs.contract import LARGEST, Episode, Journal, Stepped
from maxent.envs.plain import told
from maxent.errors import ConfigError, EnvironmentFault
from maxent.streams import episode_seed
from maxent.types import Transition, Tree


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
        """Whether the next step resets, since nobody knows where the environments are."""

    def reset(self) -> Stepped:
        """Begin a new episode everywhere. What was running is cut, as by a time limit."""
        obs, _ = self._vector.reset(seed=episode_seed(self._seed, 0, int(self.episodes[0, 0])))
        self.episodes += 1
        self._total_reward[:], self._length[:] = 0.0, 0
        self._over[:] = False
        canonical = self._canonical(obs)
        self._resets = False
        zero = np.zeros((*self.shape, *self.spec.action.shape), self.spec.action.dtype)
        none = np.zeros(self.shape, np.float32)
        row = Transition(canonical, zero, none, none + 1, canonical, none > 0, none > 0)
        return Stepped(row, canonical, none < 1, none > 0)

    def step(self, obs: Tree, action: np.ndarray) -> Stepped:
        """Take canonical actions [1, env, …]."""
        if self._resets:
            return self._begin_anew()
        self._resets = True  # nobody knows what a step that is broken off has done
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
        self._resets = False
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
        actions = np.zeros((0, *self.spec.action.shape), self.spec.action.dtype)
        return Journal(self.episodes.copy(), none > 0, none, self.largest_reward.copy(), actions)

    def restore(self, journal: Journal, last: Stepped) -> np.ndarray:
        """Every running episode is over, as by a time limit, and the next step resets."""
        self.episodes[:], self.largest_reward[:], self._resets = journal.episodes, journal.largest_reward, True
        return np.zeros(self.shape, bool)

    def _begin_anew(self) -> Stepped:
        """Reset all where nobody knows where they are.

        Raises:
            EnvironmentFault: where they cannot be.
        """
        if isinstance(base := self._vector.unwrapped, AsyncVectorEnv):
            with suppress(Exception):  # it still waits for the step that was broken off, if one was
                base.step_wait()
        try:
            return self.reset()._replace(failed=np.ones(self.shape, bool))
        except EnvironmentFault:
            raise
        except Exception as error:
            raise EnvironmentFault(
                f"the vector environment cannot be reset after what broke off its last step ({told(error)}): save, and "
                "go on with another one, maxent.load(path, env=...)"
            ) from error

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
