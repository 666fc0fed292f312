"""Policies over the canonical action box [-1, 1]^d.

The tanh-squashed Gaussian of arXiv 1812.05905, appendix C: a = tanh(u), u ~ N(μ, σ²).
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

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

    It never inverts tanh, which float32 rounds to 1 from u ≈ 9 on, and takes log(1 - tanh²u) in the form
    2(log 2 - u - softplus(-2u)), which is exact where 1 - tanh²u underflows.
    """
    log_normal = -0.5 * jnp.square(noise) - log_std - LOG_SQRT_2PI
    log_jacobian = 2.0 * (math.log(2.0) - pre_tanh - jax.nn.softplus(-2.0 * pre_tanh))
    return (log_normal - log_jacobian).sum(-1)
