"""Random keys: arguments, never state.

Each use of randomness has a stream of its own, and each step of a stream a key of its own:
`fold_in(fold_in(root, stream), step)`. A key is either folded, split or drawn from, never two of these, because
`split(k, n)[i]` equals `fold_in(k, i)`. A member's root is made of its seed alone, so a member draws what a run alone
would draw.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax import Array

STREAMS = ("init", "act", "env", "replay", "update", "eval", "predict", "eval_env")


def roots(seeds: Sequence[int], attempt: int = 0) -> Array:
    """The members' root keys, shape [member], one per seed; others for every further attempt at the same run."""
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    return jax.vmap(jax.random.fold_in, (0, None))(keys, len(STREAMS) + attempt) if attempt else keys


def stream(root: Array, name: str, step: Array | int) -> Array:
    """The key of one step (a uint32 number) of the stream called `name`, for one root."""
    return jax.random.fold_in(jax.random.fold_in(root, STREAMS.index(name)), step)


def episode_seed(seed: int, env: int, episode: int, name: str = "env") -> int:
    """The seed that the environment with index `env` is given for its episode of that number: 31 bits."""
    entropy = np.random.SeedSequence([seed, STREAMS.index(name), env, episode])
    return int(entropy.generate_state(1)[0] >> 1)
