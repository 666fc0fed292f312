"""Adam, and the schedules of its learning rate.

The learning rate is an argument of the step: it lives in the state, so that members with different rates run in one
program.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from maxent import native
from maxent.types import Tree

BETA_1, BETA_2 = 0.9, 0.999


class AdamState(NamedTuple):
    """What Adam remembers; its moments have all arrays of the parameters behind one another."""

    steps: Array
    """Taken so far."""
    mu: Array
    """[n], the gradient's running mean."""
    nu: Array
    """[n], that of its square."""


@dataclass(frozen=True)
class Adam:
    """Adam (arXiv 1412.6980, algorithm 1), of gradients that are first cut to a global norm, if one is given."""

    max_grad_norm: float = 0.0
    epsilon: float = 1e-8

    def init(self, params: Tree) -> AdamState:
        """Before the first step."""
        zeros = jnp.zeros_like(ravel_pytree(params)[0])
        return AdamState(jnp.zeros((), jnp.int32), zeros, jnp.copy(zeros))

    def step(self, learning_rate: Array, gradient: Tree, state: AdamState, params: Tree) -> tuple[Tree, AdamState]:
        """New parameters and memory after one descent along the gradient."""
        gradient, steps, dtype = self._cut(gradient), state.steps + 1, state.mu.dtype
        rate = (learning_rate / (1 - BETA_1**steps)).astype(dtype)
        correction = (1 / (1 - BETA_2**steps)).astype(dtype)
        if native.takes(gradient, state.mu, state.nu, params):
            params, mu, nu = self._natively(rate, correction, gradient, state, params)
            return params, AdamState(steps, mu, nu)
        g, unravel = ravel_pytree(gradient)
        mu = BETA_1 * state.mu + (1 - BETA_1) * g
        nu = BETA_2 * state.nu + (1 - BETA_2) * jnp.square(g)
        change = unravel(rate * mu / (jnp.sqrt(correction * nu) + self.epsilon))
        return jax.tree.map(jnp.subtract, params, change), AdamState(steps, mu, nu)

    def _cut(self, gradient: Tree) -> Tree:
        if not self.max_grad_norm:
            return gradient
        norm = jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(gradient)))
        return jax.tree.map(lambda x: x * jnp.minimum(1.0, self.max_grad_norm / norm), gradient)

    def _natively(
        self, rate: Array, correction: Array, gradient: Tree, state: AdamState, params: Tree
    ) -> tuple[Tree, Array, Array]:
        """The same by native.c, in one pass and in place."""
        constants = jnp.stack([BETA_1, 1 - BETA_1, BETA_2, 1 - BETA_2, rate, correction, self.epsilon])
        leaves, tree = jax.tree.flatten(params)
        changed = state.mu, state.nu, *leaves
        gradients = jax.tree.leaves(jax.tree.map(lambda x, g: g.reshape(x.shape), params, gradient))
        mu, nu, *leaves = jax.ffi.ffi_call(
            "maxent_adam",
            [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in changed],
            vmap_method="broadcast_all",
            input_output_aliases={1 + i: i for i in range(len(changed))},
        )(constants.astype(state.mu.dtype), *changed, *gradients)
        return jax.tree.unflatten(tree, leaves), mu, nu


def linear_decay(updates: int, index: Array) -> Array | float:
    """The factor from 1 to 0 over that many updates, 1 for ever where `updates` is 0."""
    return jnp.maximum(1.0 - index / updates, 0.0) if updates else 1.0


def step_decay(updates: tuple[int, ...], factor: float, index: Array) -> Array | float:
    """The factor to the power of how many of these updates have been reached, 1 for ever where there are none."""
    return factor ** jnp.sum(index >= jnp.array(updates)) if updates else 1.0
