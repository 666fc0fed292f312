"""Gymnasium environments on the host, as rows of canonical arrays [member, env, …].

This is the one place that knows about resets. It owns plain environments and seeds every reset itself, so an episode is
a function of its seed and its actions. What ending means:

  - terminated: discount 0 and boundary 1. Nothing follows.
  - truncated (a time limit): discount 1 and boundary 1. The true last observation is bootstrapped from.
  - the row after a boundary is the reset: the action is not taken, the reward is 0 and `real` is 0.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gymnasium
import jax
import numpy as np

from maxent.envs import spaces
from maxent.envs.contract import LARGEST, Episode, Journal, Stepped
from maxent.envs.plain import Shown, told
from maxent.envs.workers import Lost, RemoteEnv, ask, lost, spaces_of
from maxent.errors import ConfigError, EnvironmentFault
from maxent.streams import episode_seed
from maxent.types import Transition, Tree

FIRST = Shown(None, 0.0, 1.0, False, None)
"""What has been shown beside the observation when an episode begins."""

AnyEnv = gymnasium.Env | RemoteEnv
Answer = Callable[[], Any]
Place = tuple[int, ...]
"""(member, env)"""


class HostEnvs:
    """Plain environments, made by a factory and stepped one after the other in this process, or side by side in others.

    An environment that is not where its episode is (after a resume, a step that was broken off, or the end of its
    process for which it is not to blame) is brought back: reset with the episode's seed, and given its actions again.

    Args:
        make: Makes an environment; `maxent.envs.workers.Workers` for such as live in other processes.
        seeds: Of the members.
        envs: Environments of each member.
        stream: Name of the stream of seeds.
        restarts: Times that an environment which fails is made anew.

    Raises:
        ConfigError: where the spaces are of a kind that the library does not take, or differ between environments.
    """

    def __init__(
        self,
        make: Callable[[], AnyEnv],
        seeds: Sequence[int],
        envs: int,
        stream: str = "env",
        restarts: int = 0,
    ) -> None:
        self._make, self._restarts = make, restarts
        self.shape = (len(seeds), envs)
        self._places: list[Place] = list(np.ndindex(self.shape))
        self._envs = [[make() for _ in range(envs)] for _ in seeds]
        self._seeds, self._stream = list(seeds), stream
        self.observation_space, self.action_space = spaces_of(self._envs[0][0])
        self.spec = spaces.spec_of(self.observation_space, self.action_space)
        self._taken = spaces.environment_action(self.action_space)
        self._compared: dict[Place, tuple[gymnasium.Space, gymnasium.Space]] = {}
        """Spaces that were found to be like those of the first environment."""
        for at in self._places:
            try:
                self._compare_spaces(at)
            except ValueError as error:
                raise ConfigError(f"environment {at[1]} of member {at[0]}: {error}") from None
        self.finished: list[Episode] = []
        self.episodes = np.zeros(self.shape, np.int64)
        """Episodes begun in each environment."""
        self._total_reward = np.zeros(self.shape)
        self._length = np.zeros(self.shape, np.int64)
        self._over = np.ones(self.shape, bool)
        self._astray = np.zeros(self.shape, bool)
        """Where a step was broken off, so that nobody knows whether it was taken."""
        self._last: Stepped | None = None
        self.faults: list[str] = []
        self.largest_reward = np.zeros(len(seeds))
        self._actions: dict[Place, list[np.ndarray]] = {at: [] for at in self._places}
        """Of the running episodes."""

    def reset(self) -> Stepped:
        """Begin a new episode everywhere. What was running is cut, as by a time limit."""
        self._over[:] = True
        zero = np.zeros((*self.shape, *self.spec.action.shape), self.spec.action.dtype)
        return self.step(jax.tree.map(np.zeros_like, spaces.empty_batch(self.spec.obs, self.shape)), zero)

    def step(self, obs: Tree, action: np.ndarray) -> Stepped:
        """Take canonical actions [member, env, …]; where an episode is over, reset instead.

        A step that is broken off, by a fault or an interrupt, has not happened: it can be taken again.

        Raises:
            EnvironmentFault: naming member, environment, episode, step and entry, where an environment breaks its own
                description.
        """
        episodes, length, actions = self.episodes.copy(), self._length.copy(), dict(self._actions)
        finished = len(self.finished)
        try:
            self._last = self._step_all(obs, action)
        except BaseException:
            self.episodes, self._length = episodes, length
            self._actions = {at: taken[: length[at]] for at, taken in actions.items()}
            del self.finished[finished:]
            self._astray[:] = True
            raise
        return self._last

    def _step_all(self, obs: Tree, action: np.ndarray) -> Stepped:
        next_obs = spaces.empty_batch(self.spec.obs, self.shape)
        reward = np.zeros(self.shape, np.float32)
        discount = np.ones(self.shape, np.float32)
        boundary, failed = np.zeros(self.shape, bool), np.zeros(self.shape, bool)
        asked = [self._begin(at) if self._over[at] else self._ask(at, action[at]) for at in self._places]
        for at, answer in zip(self._places, asked):
            if not self._over[at]:
                try:
                    shown = self._step(at, action[at], answer, next_obs)
                    if shown is not None:
                        reward[at], discount[at], boundary[at] = shown.reward, shown.discount, shown.boundary
                        if shown.boundary:
                            self.finished.append(self._episode(at, shown))
                        continue
                except EnvironmentFault as fault:
                    self._replace(at, fault)
                failed[at] = True
                answer = self._begin(at)
            while True:
                try:
                    self._see(at, answer, next_obs)
                    break
                except EnvironmentFault as fault:
                    self._replace(at, fault)
                    answer = self._begin(at)
        real = ~self._over & ~failed
        self._over = boundary.copy()
        self.largest_reward = np.maximum(self.largest_reward, np.abs(reward).max(1))
        return Stepped(Transition(obs, action, reward, discount, next_obs, boundary, real), next_obs, ~real, failed)

    def journal(self) -> Journal:
        """What `restore` needs."""
        lengths = np.where(self._over, 0, self._length)
        actions = [a for at in self._places for a in self._actions[at][: lengths[at]]]
        stacked = np.array(actions, self.spec.action.dtype).reshape(-1, *self.spec.action.shape)
        return Journal(self.episodes.copy(), self._over.copy(), lengths, self.largest_reward.copy(), stacked)

    def restore(self, journal: Journal, last: Stepped) -> np.ndarray:
        """Play the running episodes again up to the step that gave `last`; where that went well, [member, env].

        Elsewhere the episode is over, as by a time limit, and the next step resets.
        """
        self.episodes, self._last = journal.episodes.copy(), last
        self.largest_reward[:] = journal.largest_reward
        ends = np.cumsum(journal.lengths).reshape(self.shape)
        for at in self._places:
            self._actions[at] = list(journal.actions[ends[at] - journal.lengths[at] : ends[at]])
        kept = np.array([journal.over[at] or self._bring_back(at) for at in self._places]).reshape(self.shape)
        self._over = journal.over | ~kept
        self.finished.clear()
        return kept

    def close(self) -> None:
        """Release the environments."""
        for envs in self._envs:
            for env in envs:
                env.close()

    def _ask(self, at: Place, action: np.ndarray) -> Answer:
        """Have an environment take an action, if it is where its episode is; see `maxent.envs.workers.ask`."""
        return lost if self._astray[at] else ask(self._envs[at[0]][at[1]], "step", self._taken(action))

    def _step(self, at: Place, action: np.ndarray, answer: Answer, next_obs: Tree) -> Shown | None:
        """What an action led to, once that is written; None where the episode could not be brought back for it."""
        try:
            shown = answer()
            if not abs(shown.reward) <= LARGEST:
                raise ValueError(f"reward is {shown.reward}, and the library keeps finite numbers of 32 bits")
            spaces.write_observation(self.observation_space, shown.obs, next_obs, at)
        except Lost:
            if not self._bring_back(at):
                self.faults.append(
                    f"{self._whereabouts(at, self._length[at])}: with the same seed and actions it went another way"
                )
                return None
            return self._step(at, action, self._ask(at, action), next_obs)
        except Exception as error:
            raise self._fault(at, self._length[at] + 1, error) from error
        self._actions[at].append(action.copy())
        self._length[at] += 1
        self._total_reward[at] += shown.reward
        return shown

    def _begin(self, at: Place) -> Answer:
        """Have an environment begin its next episode; see `maxent.envs.workers.ask`."""
        self.episodes[at] += 1
        self._total_reward[at], self._length[at], self._astray[at] = 0.0, 0, False
        self._actions[at] = []
        return ask(self._envs[at[0]][at[1]], "reset", self._seed(at))

    def _see(self, at: Place, answer: Answer, next_obs: Tree) -> None:
        """Write the first observation of an episode."""
        try:
            try:
                obs = answer()
            except Lost:
                obs = ask(self._envs[at[0]][at[1]], "reset", self._seed(at))()
            self._compare_spaces(at)
            spaces.write_observation(self.observation_space, obs, next_obs, at)
        except Lost:
            raise
        except Exception as error:
            raise self._fault(at, 0, error) from error

    def _bring_back(self, at: Place) -> bool:
        """Whether the running episode's seed and actions led to the same observation and reward again."""
        actions, again, shown = self._actions[at], spaces.empty_batch(self.spec.obs, self.shape), FIRST
        self.episodes[at] -= 1
        try:
            self._see(at, self._begin(at), again)
            for action in actions:
                found = self._step(at, action, self._ask(at, action), again)
                if found is None:
                    return False
                shown = found
        except EnvironmentFault:
            return False
        assert self._last is not None
        last = self._last.row
        same = jax.tree.map(lambda x, y: np.array_equal(x[at], y[at]), again, last.next_obs)
        return all(jax.tree.leaves(same)) and np.float32(shown.reward) == last.reward[at] and not shown.boundary

    def _replace(self, at: Place, fault: EnvironmentFault) -> None:
        """Make a failed environment anew, as often as is allowed."""
        if not self._restarts:
            raise fault
        self._restarts -= 1
        member, index = at
        with suppress(Exception):  # it has failed before
            self._envs[member][index].close()
        self._envs[member][index] = self._make()
        self.faults.append(str(fault))

    def _compare_spaces(self, at: Place) -> None:
        """A ValueError where an environment's spaces are not, or are no longer, those of the first one."""
        found = spaces_of(self._envs[at[0]][at[1]])
        if all(space is known for space, known in zip(found, self._compared.get(at, (None, None)))):
            return
        for what, space, first in zip(("observation", "action"), found, (self.observation_space, self.action_space)):
            if space != first:
                raise ValueError(f"the {what} space is {space}, and the first environment's was {first}")
        self._compared[at] = found

    def _fault(self, at: Place, step: int, error: Exception) -> EnvironmentFault:
        """Whatever an environment raised, told with its place."""
        return EnvironmentFault(f"{self._whereabouts(at, step)}: {told(error)}")

    def _whereabouts(self, at: Place, step: int) -> str:
        member, index = at
        return (
            f"environment {index} of member {member}, episode {self.episodes[at] - 1} (seed {self._seed(at)}), "
            f"step {step}"
        )

    def _seed(self, at: Place) -> int:
        """Of the running episode. Evaluations count episodes over all environments, however many there are."""
        (member, index), number = at, int(self.episodes[at]) - 1
        if self._stream == "eval":
            index, number = 0, number * self.shape[1] + index
        return episode_seed(self._seeds[member], index, number, self._stream)

    def _episode(self, at: Place, shown: Shown) -> Episode:
        """The episode that has just ended."""
        return Episode(
            member=at[0],
            env=at[1],
            number=int(self.episodes[at]) - 1,
            seed=self._seed(at),
            total_reward=float(self._total_reward[at]),
            length=int(self._length[at]),
            success=shown.success,
        )
