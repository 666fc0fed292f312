"""Stein variational gradient descent (Liu & Wang 2016, arXiv 1608.04471): particles that move towards a density.

With particles x_1, …, x_M and a density p known up to a factor, a point y that moves along

    φ(y) = 1/M Σ_i [ κ(x_i, y) ∇ log p(x_i) + ∇_x κ(x, y)|_{x = x_i} ]                                  (eq. 8)

takes the distribution of the particles towards p as fast as the kernel allows: the first term pulls to where p is high,
the second pushes apart. With infinitely many particles φ vanishes where they are distributed as p, provided that
κ(x, y) p(x) vanishes at the border of the space: on a box it does not, on the whole of R^d it does.

The kernel is Gaussian, κ(x, y) = exp(-‖x - y‖²/h), and h follows the particles. Everything here is for one set of them.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LEAST_BANDWIDTH = 1e-3
"""Of particles that have nearly fallen together; as in the published code of arXiv 1702.08165."""


def squared_distances(x: Array, y: Array) -> Array:
    """‖x_i - y_j‖²: [M, d], [K, d] → [M, K]."""
    return jnp.square(x[:, None] - y[None]).sum(-1)


def median(x: Array) -> Array:
    """The median of floats [n] from 0 to ∞, bit for bit `jnp.median`'s, whose sort takes a CPU longer than networks.

    Numbers that are not negative have the order of their bits. Those of the number with rank k are found one after the
    other, the highest first: a bit is set if no more than k numbers are below what is known with it.
    """
    width = jnp.finfo(x.dtype).bits
    bits = x.view(f"int{width}")
    powers = jnp.asarray(2 ** np.arange(width - 2, -1, -1), bits.dtype)
    middle = np.array([(len(x) - 1) // 2, len(x) // 2])

    def find(found: Array, power: Array) -> tuple[Array, None]:
        below = (bits < (found | power)[:, None]).sum(-1)
        return jnp.where(below <= middle, found | power, found), None

    return jax.lax.scan(find, jnp.zeros(2, bits.dtype), powers)[0].view(x.dtype).mean()


def median_bandwidth(particles: Array, scale: float) -> Array:
    """h = scale · (the median of ‖x_i - x_j‖² over the pairs i < j) / log(M + 1), of particles [M, d], M ≥ 2.

    Then a particle's M neighbours weigh about as much as itself. A scale of ½ is that of arXiv 1702.08165, appendix D.
    """
    count = len(particles)
    pairs = squared_distances(particles, particles)[np.triu_indices(count, 1)]
    return jnp.maximum(scale * median(pairs) / math.log(count + 1), LEAST_BANDWIDTH)


def kernel(x: Array, y: Array, bandwidth: Array) -> Array:
    """κ(x_i, y_j): [M, d], [K, d] → [M, K]."""
    return jnp.exp(-squared_distances(x, y) / bandwidth)


def direction(particles: Array, score: Array, at: Array, bandwidth: Array) -> Array:
    """φ(y_j) of points y [K, d], for particles [M, d] where ∇ log p is `score` [M, d]: [K, d]."""
    weight = kernel(particles, at, bandwidth)
    pull = weight.T @ score
    push = 2 / bandwidth * (weight.sum(0)[:, None] * at - weight.T @ particles)
    return (pull + push) / len(particles)
