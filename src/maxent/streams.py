"""Random keys: arguments, never state.

Each use of randomness has a stream of its own, and each step of a stream a key of its own:
`fold_in(fold_in(key(seed), stream), step)`. A key is either folded, split or drawn from, never two of these, because
`split(k, n)[i]` equals `fold_in(k, i)`. A member's keys are made of its seed alone, so a member draws what a run alone
would draw.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax import Array

STREAMS = ("init", "act", "env", "replay", "update", "eval", "predict", "eval_env")


def roots(seeds: Sequence[int], attempt: int = 0) -> Array:
    """The members' root keys, [member, stream], one member per seed; others for every further attempt at the same run.

    Folded here, a stream's number costs the steps nothing.
    """
    fold = jax.vmap(jax.random.fold_in, (0, None))
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    keys = fold(keys, len(STREAMS) + attempt) if attempt else keys
    return jax.vmap(fold, (None, 0), 1)(keys, np.arange(len(STREAMS)))


def stream(root: Array, name: str, step: Array | int) -> Array:
    """The key of one step (a uint32 number) of the stream called `name`, for the roots of one member, [stream]."""
    return jax.random.fold_in(root[STREAMS.index(name)], step)


def episode_seed(seed: int, env: int, episode: int, name: str = "env") -> int:
    """The seed that the environment with index `env` is given for its episode of that number: 31 bits."""
    entropy = np.random.SeedSequence([seed, STREAMS.index(name), env, episode])
    return int(entropy.generate_state(1)[0] >> 1)
