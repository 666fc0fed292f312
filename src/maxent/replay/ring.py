"""A ring that stores every observation once.

Row t holds an observation and the step that led to it: the action taken in row t-1, its reward, its discount and
whether the episode was cut there. Transition t → t+1 is then row t's observation with row t+1's everything, whole as
soon as row t+1 is written. A boundary row is an episode's last observation; the row after it is a reset, so no
transition starts at a boundary. n-step returns, sequences and rollouts come from the same rows.

Every array is [row, member, env, …] and there is one scalar write position for all. `add` only writes and `sample` only
reads: a compiled program that did both would copy the ring (a test reads the compiled text for it).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent.types import Leaf, Spec, Transition, Tree

CANDIDATES = 16
"""Draws for each slot of a batch, of which the first that starts a transition is kept. With two-step episodes, a third
of all rows start none, and all 16 fail once in 43 million slots."""
USUAL = 4
"""Of them are looked at first, and the others where these do not do for a whole batch."""


class Ring(NamedTuple):
    """Rows of one or more environments for one or more members."""

    obs: Tree
    action: Array
    reward: Array
    discount: Array
    boundary: Array
    extras: Tree
    """What the algorithm wanted stored of its actions."""
    written: Array
    """Rows written since the beginning; the write position is this modulo the capacity."""


def empty(spec: Spec, rows: int, members: int, envs: int, extras: Tree = ()) -> Ring:
    """A ring with room for so many rows; `extras` is a tree of arrays or shapes [member, env, …]."""
    lead = (rows, members, envs)

    def allocate(leaf: Leaf) -> Array:
        return jnp.zeros((*lead, *leaf.shape), leaf.dtype)

    return Ring(
        obs=jax.tree.map(allocate, spec.obs, is_leaf=lambda x: isinstance(x, Leaf)),
        action=allocate(spec.action),
        reward=jnp.zeros(lead),
        discount=jnp.zeros(lead),
        boundary=jnp.zeros(lead, bool),
        extras=jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), extras),
        written=jnp.zeros((), jnp.uint32),
    )


def fresh(ring: Ring) -> Ring:
    """The ring with none of its rows."""
    return ring._replace(written=jnp.zeros_like(ring.written))


def capacity(ring: Ring) -> int:
    """Rows that the ring has room for."""
    return ring.reward.shape[0]


def add(ring: Ring, row: Transition) -> Ring:
    """The ring with one more row, arrays [member, env, …]; give it donated, so that nothing is copied."""
    position = (ring.written % capacity(ring)).astype(jnp.int32)

    def write(rows: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(rows, new.astype(rows.dtype), position, 0)

    return Ring(
        obs=jax.tree.map(write, ring.obs, row.next_obs),
        action=write(ring.action, row.action),
        reward=write(ring.reward, row.reward),
        discount=write(ring.discount, row.discount),
        boundary=write(ring.boundary, row.boundary),
        extras=jax.tree.map(write, ring.extras, row.extras),
        written=ring.written + 1,
    )


def extend(ring: Ring, block: Transition, rows: Array) -> Ring:
    """The ring with so many rows of a block more, arrays [row, member, env, …]; give it donated."""
    return jax.lax.fori_loop(0, rows, lambda i, ring: add(ring, jax.tree.map(lambda x: x[i], block)), ring)


def cut(ring: Ring, where: Array) -> Ring:
    """The ring with the newest row made a boundary for these environments, [member, env]: another episode follows."""
    newest = (ring.written - 1) % capacity(ring)
    return ring._replace(boundary=ring.boundary.at[newest].set(ring.boundary[newest] | where))


def rollout(ring: Ring) -> Transition:
    """All steps of a full ring in order, one less than its rows: arrays [step, member, env, …]."""
    oldest = (ring.written % capacity(ring)).astype(jnp.int32)
    at = (oldest + jnp.arange(capacity(ring))) % capacity(ring)
    before, after = at[:-1], at[1:]
    return Transition(
        obs=jax.tree.map(lambda rows: rows[before], ring.obs),
        action=ring.action[after],
        reward=ring.reward[after],
        discount=ring.discount[after],
        next_obs=jax.tree.map(lambda rows: rows[after], ring.obs),
        boundary=ring.boundary[after],
        real=~ring.boundary[before],
        extras=jax.tree.map(lambda rows: rows[after], ring.extras),
    )


def sample(ring: Ring, keys: Array, batch_size: int, n_step: int, gamma: Array) -> Transition:
    """Transitions drawn uniformly, with repetition, from the whole ones: arrays [member, batch, …].

    keys and gamma: [member]. A window starts at a row that is no boundary and ends n rows later, or where its episode
    was cut; it never crosses the write position. The reward is Σ γ^i r over its m steps and the discount γ^m times the
    discount of the last.
    """
    members, envs = ring.reward.shape[1:3]
    member = jnp.arange(members)[:, None]
    size = jnp.minimum(ring.written, capacity(ring)).astype(jnp.int32)
    oldest = (ring.written % capacity(ring)).astype(jnp.int32) * (ring.written >= capacity(ring))

    def row(age: Array) -> Array:
        return jax.lax.rem(oldest + age, jnp.int32(capacity(ring)))

    def divided(drawn: Array) -> tuple[Array, Array]:
        return jax.lax.div(drawn, jnp.int32(envs)), jax.lax.rem(drawn, jnp.int32(envs))

    bound = jnp.maximum(size - 1, 1) * envs
    words = jax.vmap(lambda key: jax.random.bits(key, (batch_size,)))(keys)

    def first_whole(count: int) -> tuple[Array, Array]:
        """Of so many candidates the first that starts a transition, and whether there is one."""
        drawn = _candidates(words, count, bound)
        age, env = divided(drawn)
        whole = ~ring.boundary[row(age), member[..., None], env]
        if n_step > 1:
            cut = [ring.boundary[row(jnp.minimum(age + i, size - 1)), member[..., None], env] for i in range(1, n_step)]
            whole &= (age + n_step < size) | jnp.stack(cut).any(0)
        first = jnp.where(whole, jnp.arange(count), count).min(-1, keepdims=True) % count
        return jnp.take_along_axis(drawn, first, -1)[..., 0], whole.any(-1)

    def seldom_all() -> Array:
        chosen, found = first_whole(USUAL)
        return jax.lax.cond(found.all(), lambda: chosen, lambda: first_whole(CANDIDATES)[0])

    # Of a long episode's rows nearly all start one. But a GPU would have to ask the host whether it is so.
    age, env = divided(jax.lax.platform_dependent(cpu=seldom_all, default=lambda: first_whole(CANDIDATES)[0]))
    # Where all candidates failed: the row before a boundary starts one, and a window may end at the newest row.
    ended = ring.boundary[row(age), member, env]
    age = jnp.where(ended, jnp.where(age > 0, age - 1, 1), age)

    reward, discount, boundary = jnp.zeros(age.shape), jnp.ones(age.shape), jnp.zeros(age.shape, bool)
    end = age
    for _ in range(n_step):
        over = boundary | (end + 1 >= size)
        end = jnp.where(over, end, end + 1)
        at = (row(end), member, env)
        reward = reward + jnp.where(over, 0.0, discount * ring.reward[at])
        discount = discount * jnp.where(over, 1.0, gamma[:, None] * ring.discount[at])
        boundary = ring.boundary[at]

    def gather(rows: Array, at: Any) -> Array:
        return rows[row(at), member, env]

    return Transition(
        obs=jax.tree.map(lambda rows: gather(rows, age), ring.obs),
        action=gather(ring.action, age + 1),
        reward=reward,
        discount=discount,
        next_obs=jax.tree.map(lambda rows: gather(rows, end), ring.obs),
        boundary=boundary,
        real=jnp.ones(age.shape, bool),
    )


def _candidates(words: Array, count: int, bound: Array) -> Array:
    """Integers from 0 to below `bound`, […, count]: each slot's random word, continued by SplitMix.

    Sixteen words from JAX's generator cost a tenth of a whole update of small networks. The mixing function is
    Wellons' lowbias32; a bijection, so that the first candidate is exactly as uniform as its word.
    """
    x = words[..., None] + jnp.uint32(0x9E3779B9) * jnp.arange(count, dtype=jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    x = x ^ (x >> 15)
    return (x % bound.astype(jnp.uint32)).astype(jnp.int32)
