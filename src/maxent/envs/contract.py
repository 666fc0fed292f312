"""What a loop steps: environments [member, env] in rows, whoever makes and resets them."""

from typing import NamedTuple, Protocol

import gymnasium
import numpy as np

from maxent.types import Spec, Transition, Tree

LARGEST = float(np.finfo(np.float32).max)
"""The largest number that is kept, of a reward or an observation."""


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
    largest_reward: np.ndarray
    """The largest |reward| so far, [member]."""
    actions: np.ndarray
    """All actions of the running episodes one after the other, [step, …]."""


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
