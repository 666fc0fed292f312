"""The small equations that algorithms share: targets, soft values, averages. Written for arrays of any batch shape."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from maxent import networks, observations
from maxent.config import AlgorithmConfig
from maxent.networks import MLP
from maxent.types import Spec, Tree

T = TypeVar("T")


def bellman_target(reward: Array, discount: Array, next_value: Array) -> Array:
    """r + γ^m·V(s'), with the discount as the replay gives it: 0 at the end of an episode, not at a time limit."""
    return reward + discount * next_value


def soft_value(q: Array, log_prob: Array, temperature: Array) -> Array:
    """One sample of V(s) = E[Q(s, a) - α log π(a|s)] (eq. 3 of arXiv 1812.05905)."""
    return q - temperature * log_prob


def critic_loss(
    critics: MLP, features: Array, action: Array, target_q: Array, activation: str
) -> tuple[Array, tuple[Array, Array]]:
    """J_Q(θ) = E[ Σ_i ½ (Q_i(s, a) - y)² ]: a mean over the batch and a sum over the critics.

    Beside it each critic's own, [critic], and Q, [critic, batch] (eq. 5 of arXiv 1812.05905).
    """
    q = networks.ensemble_q(critics, features, action, activation)
    losses = 0.5 * jnp.square(q - target_q).mean(-1)
    return losses.sum(), (losses, q)


def gae(reward: Array, discount: Array, boundary: Array, value: Array, next_value: Array, gae_lambda: Array) -> Array:
    """Advantages Â_t = δ_t + γλ Â_{t+1}, all [step, …], the sum stopping where the episode is cut (arXiv 1506.02438).

    The discount holds γ, and 0 where the episode terminated; where a time limit cut it, `next_value` still counts.
    """
    delta = reward + discount * next_value - value
    decay = jnp.where(boundary, 0.0, discount * gae_lambda)

    def back(following: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, decay = step
        advantage = delta + decay * following
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)[1]


def q(config: AlgorithmConfig, spec: Spec, state: Any, obs: Tree, action: Array) -> Array:
    """The smallest critic's value: the `q` of every algorithm whose state has `critics` and `moments`, [batch]."""
    features = observations.features_of(config, spec, state.moments, obs)
    return networks.ensemble_q(state.critics, features, action, config.activation).min(0)


def polyak(target: Tree, online: Tree, tau: Array) -> Tree:
    """(1 - τ)·target + τ·online, for every array."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)


def every(interval: int, index: Array, change: Callable[[T], T], tree: T) -> T:
    """The tree changed in the last of every `interval` updates, by the number of this one; else nothing is computed."""
    if interval == 1:
        return change(tree)
    return jax.lax.cond(index % interval == interval - 1, change, lambda unchanged: unchanged, tree)


def scalars(**values: float) -> dict[str, Array]:
    """The numbers that live in a state, as float32 scalars."""
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
