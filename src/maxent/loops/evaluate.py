"""Evaluation: environments and keys of its own, and only a view of the policy, so that it cannot change training."""

from collections.abc import Callable

import jax
import numpy as np

from maxent.envs.host import Envs, Episode
from maxent.errors import EnvironmentFault
from maxent.loops.programs import Programs
from maxent.types import Tree

LONGEST = 100_000
"""Steps after which an evaluation episode is taken for one that never ends."""
PARALLEL = 8
"""Environments of a member that an evaluation steps together."""


def evaluate(
    programs: Programs,
    view: Tree,
    envs: Envs,
    roots: jax.Array,
    episodes: int,
    explore: bool = False,
    between: Callable[[], None] = lambda: None,
) -> list[list[Episode]]:
    """So many episodes of every member, [member][episode], in the order of environments and episodes.

    Environment i of n plays the episodes i, i + n, …: each environment has its share, so that episodes which end early
    are not counted more often than others. `between` is called before every step, and may raise.
    """
    members, count = envs.shape
    shares = [len(range(i, episodes, count)) for i in range(count)]
    played: list[list[list[Episode]]] = [[[] for _ in range(count)] for _ in range(members)]
    carry = programs.initial_carry((members, count))
    stepped, step, missing = envs.reset(), 0, members * episodes
    while missing:
        between()
        action, carry, _ = programs.act(
            view, carry, stepped.obs, stepped.starts, roots, np.uint32(step), explore=explore, name="eval"
        )
        stepped = envs.step(stepped.obs, np.asarray(action))
        step += 1
        if step > LONGEST * max(shares):
            raise EnvironmentFault(
                f"an evaluation episode has not ended after {LONGEST:,} steps: set a time limit, --max-episode-steps"
            )
        for episode in envs.finished:
            own = played[episode.member][episode.env]
            if len(own) < shares[episode.env]:
                own.append(episode)
                missing -= 1
        envs.finished.clear()
    return [[own[i // count] for i in range(episodes) for own in [member[i % count]]] for member in played]
