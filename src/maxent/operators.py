"""The small equations that algorithms share: targets, soft values, averages. Written for arrays of any batch shape."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent.types import Tree


def bellman_target(reward: Array, discount: Array, next_value: Array) -> Array:
    """r + γ^m·V(s'), with the discount as the replay gives it: 0 at the end of an episode, not at a time limit."""
    return reward + discount * next_value


def soft_value(q: Array, log_prob: Array, temperature: Array) -> Array:
    """One sample of V(s) = E[Q(s, a) - α log π(a|s)] (eq. 3 of arXiv 1812.05905)."""
    return q - temperature * log_prob


def polyak(target: Tree, online: Tree, tau: Array) -> Tree:
    """(1 - τ)·target + τ·online, for every array."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)


class Moments(NamedTuple):
    """The running mean and variance of every entry of a vector."""

    weight: Array
    """How many vectors were seen."""
    mean: Array
    variance: Array


def init_moments(size: int) -> Moments:
    """Of nothing seen yet: mean 0 and variance 1."""
    return Moments(jnp.zeros(()), jnp.zeros(size), jnp.ones(size))


def add_to_moments(moments: Moments, x: Array, weight: Array) -> Moments:
    """Moments with the rows of x [n, size] added, those of weight [n] one; Chan's parallel formula."""
    added = weight.sum()
    safe = jnp.maximum(added, 1.0)
    mean = (weight[:, None] * x).sum(0) / safe
    variance = (weight[:, None] * jnp.square(x - mean)).sum(0) / safe
    total = moments.weight + added
    share = added / jnp.maximum(total, 1.0)
    delta = mean - moments.mean
    merged = (1 - share) * moments.variance + share * variance + share * (1 - share) * jnp.square(delta)
    return Moments(total, moments.mean + share * delta, jnp.where(total > 0, merged, moments.variance))


def normalize(moments: Moments, x: Array) -> Array:
    """x with mean 0 and variance 1, cut at ten standard deviations."""
    return jnp.clip((x - moments.mean) * jax.lax.rsqrt(moments.variance + 1e-8), -10.0, 10.0)
