"""Policies: over the canonical action box [-1, 1]^d, over all of R^d, and over choices.

The tanh-squashed Gaussian is that of arXiv 1812.05905, appendix C: a = tanh(u), u ~ N(μ, σ²).
"""

import math
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent.types import Leaf

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def tanh_normal_sample(mean: Array, log_std: Array, key: Array) -> tuple[Array, Array]:
    """A reparameterised action and its log-probability: shapes [batch, d] → [batch, d], [batch]."""
    noise = jax.random.normal(key, mean.shape)
    pre_tanh = mean + jnp.exp(log_std) * noise
    return jnp.tanh(pre_tanh), _log_prob(noise, log_std, pre_tanh)


def tanh_normal_log_prob(mean: Array, log_std: Array, pre_tanh: Array) -> Array:
    """log π(tanh(u)) of pre-tanh samples u, [batch, d] → [batch] (eq. 21 of arXiv 1812.05905)."""
    return _log_prob((pre_tanh - mean) * jnp.exp(-log_std), log_std, pre_tanh)


def _log_prob(noise: Array, log_std: Array, pre_tanh: Array) -> Array:
    """log π of u = μ + σε, from ε itself, which a narrow policy's u has rounded away.

    It never inverts tanh, which float32 rounds to 1 from u ≈ 9 on.
    """
    log_normal = -0.5 * jnp.square(noise) - log_std - LOG_SQRT_2PI
    return log_normal.sum(-1) - tanh_log_jacobian(pre_tanh)


def tanh_log_jacobian(pre_tanh: Array) -> Array:
    """log |det ∂tanh(u)/∂u| = Σ_j log(1 - tanh²u_j), [batch, d] → [batch].

    In the form 2(log 2 - u - softplus(-2u)), which is exact where 1 - tanh²u underflows. It is even in u, and for |u|
    softplus(-2|u|) = log(1 + exp(-2|u|)) neither overflows nor needs log1p, which is slow.
    """
    size = jnp.abs(pre_tanh)
    return 2.0 * (math.log(2.0) - size - jnp.log(1.0 + jnp.exp(-2.0 * size))).sum(-1)


class Normal(NamedTuple):
    """A Gaussian with independent entries, mean and log_std [batch, d]."""

    mean: Array
    log_std: Array

    def sample(self, key: Array) -> Array:
        """[batch, d]."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> Array:
        """[batch, d]."""
        return self.mean

    def evaluate(self, x: Array) -> tuple[Array, Array]:
        """log p(x) and the entropy, both [batch]."""
        noise = (x - self.mean) * jnp.exp(-self.log_std)
        log_prob = -0.5 * jnp.square(noise) - self.log_std - LOG_SQRT_2PI
        return log_prob.sum(-1), (self.log_std + LOG_SQRT_2PI + 0.5).sum(-1)


class Categorical(NamedTuple):
    """Independent choices: the logits of each one side by side, [batch, Σ categories]."""

    logits: Array
    action: Leaf

    def sample(self, key: Array) -> Array:
        """[batch, *action.shape], int32."""
        noise = jax.random.gumbel(key, self.logits.shape)
        return self._joined([x.argmax(-1) for x in self._parts(self.logits + noise)])

    def mode(self) -> Array:
        """[batch, *action.shape], int32."""
        return self._joined([x.argmax(-1) for x in self._parts(self.logits)])

    def evaluate(self, x: Array) -> tuple[Array, Array]:
        """log p(x) and the entropy, both [batch]."""
        chosen = x.reshape(*self.logits.shape[:-1], -1)
        parts = [jax.nn.log_softmax(part) for part in self._parts(self.logits)]
        log_probs = [jnp.take_along_axis(p, chosen[..., i : i + 1], -1)[..., 0] for i, p in enumerate(parts)]
        return sum(log_probs, jnp.zeros(())), -sum([(jnp.exp(p) * p).sum(-1) for p in parts], jnp.zeros(()))

    def _parts(self, x: Array) -> list[Array]:
        return jnp.split(x, list(accumulate(self.action.categories))[:-1], axis=-1)

    def _joined(self, chosen: list[Array]) -> Array:
        return jnp.stack(chosen, -1).reshape(*self.logits.shape[:-1], *self.action.shape).astype(jnp.int32)
