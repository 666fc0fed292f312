"""Optimisers, built in one place for all algorithms.

The learning rate is an argument of the step, not part of the transformation: it lives in the state, so that members
with different rates run in one program.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maxent.types import Tree


def adam(max_grad_norm: float = 0.0, epsilon: float = 1e-8) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980) without its learning rate; gradients first cut to a global norm if one is given."""
    clip = [optax.clip_by_global_norm(max_grad_norm)] if max_grad_norm > 0 else []
    return optax.flatten(optax.chain(*clip, optax.scale_by_adam(eps=epsilon)))


def step(
    optimiser: optax.GradientTransformation, learning_rate: Array, gradient: Tree, opt_state: Tree, params: Tree
) -> tuple[Tree, Tree]:
    """New parameters and the optimiser's new state after one descent along the gradient."""
    direction, opt_state = optimiser.update(gradient, opt_state, params)
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, direction), opt_state


def linear_decay(updates: int, index: Array) -> Array | float:
    """The factor from 1 to 0 over that many updates, 1 for ever where `updates` is 0."""
    return jnp.maximum(1.0 - index / updates, 0.0) if updates else 1.0


def step_decay(updates: tuple[int, ...], factor: float, index: Array) -> Array | float:
    """The factor to the power of how many of these updates have been reached, 1 for ever where there are none."""
    return factor ** jnp.sum(index >= jnp.array(updates)) if updates else 1.0
