"""Stein's direction is its equation, and it vanishes where the particles are what they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from maxent import svgd
from reference.sql_numpy import stein_direction

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 1, 1), (6, 2, 2)], ids=str)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_it_is_the_sum_over_pairs(shape: tuple[int, int, int], scale: float) -> None:
    """The direction and the bandwidth agree with one pair at a time, whatever the numbers of particles."""
    count, points, d = shape
    fixed, score, at = (
        RNG.standard_normal((count, d)),
        RNG.standard_normal((count, d)),
        RNG.standard_normal((points, d)),
    )
    expected, h = stein_direction(fixed, score, at, scale)
    with jax.enable_x64(True):
        bandwidth = svgd.median_bandwidth(jnp.asarray(fixed), scale)
        found = svgd.direction(jnp.asarray(fixed), jnp.asarray(score), jnp.asarray(at), bandwidth)
    assert_allclose(bandwidth, h, rtol=1e-12)
    assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 120])
def test_a_median_needs_no_sort(count: int, scale: float) -> None:
    x = jnp.asarray(scale * RNG.exponential(size=(50, count)), jnp.float32)
    x = x.at[:, : count // 3].set(0).at[:, -1].set(x[:, 0])
    found = jax.jit(jax.vmap(svgd.median))
    assert_array_equal(found(x), jnp.median(x, -1))
    assert " sort(" not in found.lower(x).compile().as_text()


def test_a_kernel_falls_with_the_distance() -> None:
    """1 at no distance, 1/e at a squared distance of h, the same both ways."""
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert_allclose(svgd.kernel(x, x, 25.0), [[1, np.exp(-1)], [np.exp(-1), 1]], rtol=1e-6)


def test_one_particle_climbs_and_two_part() -> None:
    """A lone point follows its own slope; beside a particle on flat ground it is pushed straight away from it."""
    point, slope = np.array([[0.3, -0.2]]), np.array([[2.0, 1.0]])
    assert_allclose(svgd.direction(point, slope, point, 1.0), slope, rtol=1e-6)
    pushed = svgd.direction(np.zeros((1, 2)), np.zeros((1, 2)), point, 1.0)
    assert_allclose(pushed / np.linalg.norm(pushed), point / np.linalg.norm(point), rtol=1e-6)


def test_particles_that_fell_together_have_a_bandwidth() -> None:
    """Not zero, which would divide by it."""
    assert svgd.median_bandwidth(np.zeros((4, 2)), 0.5) == np.float32(svgd.LEAST_BANDWIDTH)


def test_stein_identity() -> None:
    """For particles of N(1, 2²) the direction vanishes with that density's score, everywhere, and with no other's."""
    particles = 1 + 2 * RNG.standard_normal((200_000, 1))
    at = np.linspace(-4, 6, 11)[:, None]
    for mean, vanishes in ((1.0, True), (1.3, False)):
        found = np.abs(svgd.direction(particles, -(particles - mean) / 4, at, 3.0)).max()
        assert (found < 0.005) == vanishes


def test_particles_become_the_density() -> None:
    """From far off, a hundred particles move until their mean is the target's, and nearly its variance: in a set that
    pushes itself apart, each particle also sees itself, which holds it back."""

    def step(particles: jax.Array, _: None) -> tuple[jax.Array, None]:
        bandwidth = svgd.median_bandwidth(particles, 0.5)
        return particles + 0.1 * svgd.direction(particles, -(particles - 1) / 0.25, particles, bandwidth), None

    start = jnp.asarray(3 + 0.1 * RNG.standard_normal((100, 1)), jnp.float32)
    particles, _ = jax.lax.scan(step, start, None, 500)
    assert_allclose(particles.mean(), 1, atol=0.01)
    assert 0.22 < particles.var() < 0.25
