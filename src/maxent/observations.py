"""What the networks see of an observation: one feature vector, normalised where the config asks for it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent.config import AlgorithmConfig
from maxent.types import Leaf, Spec, Transition, Tree


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


SUMMARY = ("obs_min", "obs_max", "obs_mean")
"""What every algorithm reports of its batches, before any normalisation."""


def summary(spec: Spec, obs: Tree) -> dict[str, Array]:
    """The scale of a batch of observations: a scale that is far off is the commonest beginner's fault."""
    x = features(spec.obs, obs)
    return dict(zip(SUMMARY, (x.min(), x.max(), x.mean()), strict=True))


def features_of(config: AlgorithmConfig, spec: Spec, moments: Moments, obs: Tree) -> Array:
    """The features of observations [batch, …], normalised where normalize_observations is set: [batch, F]."""
    x = features(spec.obs, obs)
    return normalize(moments, x) if config.normalize_observations else x


def follow(config: AlgorithmConfig, spec: Spec, state: Any, block: Transition) -> Any:
    """The `observe` of every algorithm: a state whose `moments` have seen the block, where they are used."""
    if not config.normalize_observations:
        return state
    x = features(spec.obs, block.next_obs)
    return state._replace(moments=add_to_moments(state.moments, x, jnp.ones(x.shape[0])))


def features(spec: Tree, obs: Tree) -> Array:
    """An observation tree, each leaf [batch, …], as one float32 matrix [batch, features].

    Choices become one-hot vectors, bytes are scaled to [0, 1], numbers are taken as they are.
    """
    encoded = jax.tree.map(_encode, spec, obs, is_leaf=lambda x: isinstance(x, Leaf))
    return jnp.concatenate(jax.tree.leaves(encoded), axis=-1)


def count_features(spec: Tree) -> int:
    """The width of `features`."""
    leaves = jax.tree.leaves(spec, is_leaf=lambda x: isinstance(x, Leaf))
    return sum(sum(leaf.categories) if leaf.categories else _size(leaf) for leaf in leaves)


def _encode(leaf: Leaf, x: Array) -> Array:
    x = x.reshape(*x.shape[: x.ndim - len(leaf.shape)], _size(leaf))
    if leaf.categories:
        one_hot = [jax.nn.one_hot(x[..., i], n) for i, n in enumerate(leaf.categories)]
        return jnp.concatenate(one_hot, axis=-1)
    return x.astype(jnp.float32) / (255.0 if leaf.dtype == "uint8" else 1.0)


def _size(leaf: Leaf) -> int:
    size = 1
    for n in leaf.shape:
        size *= n
    return size
