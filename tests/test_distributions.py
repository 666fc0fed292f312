"""The tanh-squashed Gaussian is a density, the one it claims to be, and numbers stay numbers at its far ends."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from maxent.distributions import tanh_normal_log_prob, tanh_normal_sample

SHAPES = [(0.0, 0.0), (1.5, -1.0), (-2.0, 0.5), (0.3, -3.0), (0.0, 1.0)]
"""(μ, log σ): broad enough to pile up at both ends of the box, and narrow enough not to."""
PRE_TANH = np.linspace(-18.0, 18.0, 200_001)
"""float64 still tells tanh(18) from 1."""
SAMPLES = 50_000
MEANS = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]

log_prob_of = jax.jit(tanh_normal_log_prob)
sample = jax.jit(tanh_normal_sample)


def density(mean: float, log_std: float) -> np.ndarray:
    """exp(log π(a)) at a = tanh(PRE_TANH), by the library in float64."""
    with jax.enable_x64(True):
        column = PRE_TANH[:, None]
        return np.exp(log_prob_of(np.full_like(column, mean), np.full_like(column, log_std), column))


@pytest.mark.parametrize(("mean", "log_std"), SHAPES)
def test_the_density_integrates_to_one(mean: float, log_std: float) -> None:
    """Over actions, not over what is squashed: the trapezoids' widths are differences of actions."""
    assert_allclose(np.trapezoid(density(mean, log_std), np.tanh(PRE_TANH)), 1.0, atol=1e-5)


@pytest.mark.parametrize(("mean", "log_std"), SHAPES)
def test_log_probabilities_change_variables(mean: float, log_std: float) -> None:
    """log N(u; μ, σ²) - log(1 - tanh²u), where float64 can still subtract tanh²u from 1."""
    near = np.abs(PRE_TANH) < 8
    u = PRE_TANH[near]
    log_normal = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    plain = np.exp(log_normal - np.log(1 - np.tanh(u) ** 2))
    assert_allclose(density(mean, log_std)[near], plain, rtol=1e-7)


def test_dimensions_are_independent() -> None:
    """The log-probability of a vector is the sum over its entries."""
    rng = np.random.default_rng(0)
    mean, log_std, u = rng.standard_normal((3, 5, 4)).astype(np.float32)
    alone = sum(np.asarray(log_prob_of(mean[:, [i]], log_std[:, [i]], u[:, [i]])) for i in range(4))
    assert_allclose(log_prob_of(mean, log_std, u), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mean", "log_std"), SHAPES)
def test_samples_follow_the_density(mean: float, log_std: float) -> None:
    """Mean action and entropy of samples are the integrals ∫a π da and -∫π log π da, within five standard errors."""
    shape = (SAMPLES, 1)
    drawn = sample(np.full(shape, mean, np.float32), np.full(shape, log_std, np.float32), jax.random.key(0))
    action, log_prob = (np.asarray(x, np.float64) for x in drawn)
    a, p = np.tanh(PRE_TANH), density(mean, log_std)
    log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
    for found, expected in ((action, np.trapezoid(a * p, a)), (-log_prob, -np.trapezoid(p * log_p, a))):
        assert abs(found.mean() - expected) < 5 * found.std() / np.sqrt(SAMPLES)


def test_a_sample_comes_with_its_own_log_probability() -> None:
    """The action is tanh(μ + σε) for the key's ε, and log π that of the same u."""
    key = jax.random.key(2)
    mean, log_std = np.random.default_rng(1).standard_normal((2, *MEANS.shape)).astype(np.float32)
    action, log_prob = sample(mean, log_std, key)
    u = np.asarray(mean + np.exp(log_std) * jax.random.normal(key, mean.shape), np.float32)
    assert_allclose(action, np.tanh(u), rtol=1e-5)
    assert_allclose(log_prob, log_prob_of(mean, log_std, u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("u", [-20.0, -9.5, 0.0, 9.5, 20.0])
def test_log_probabilities_are_right_where_tanh_rounds_to_one(u: float) -> None:
    """In float32 tanh(9.5) is 1; 1 - tanh²u = 4 / (e^u + e^-u)² is still right there."""
    exact = -0.5 * ((u - 1) / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi) - (np.log(4) - 2 * np.logaddexp(u, -u))
    found = log_prob_of(*(np.array([[x]], np.float32) for x in (1.0, np.log(2), u)))
    assert_allclose(found, [exact], rtol=1e-6)


@jax.jit
def slopes(mean: jax.Array, log_std: jax.Array, key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """The gradients of a sample's action and of its log-probability."""

    def slope(i: int) -> tuple[jax.Array, jax.Array]:
        return jax.grad(lambda m, s: tanh_normal_sample(m, s, key)[i].sum(), (0, 1))(mean, log_std)

    return slope(0), slope(1)


@pytest.mark.parametrize("scale", [0, 1, 10])
@pytest.mark.parametrize("log_std", [-20.0, -14.0, -5.0, 2.0])
def test_gradients_are_finite(scale: float, log_std: float) -> None:
    """Of a sample's action and log-probability, everywhere within the bounds of log σ."""
    assert np.isfinite(slopes(scale * MEANS, np.full_like(MEANS, log_std), jax.random.key(0))).all()


@pytest.mark.parametrize("log_std", [-20.0, -14.0, -5.0, 0.0])
def test_a_samples_log_probability_has_the_reparameterised_gradient(log_std: float) -> None:
    """With u = μ + σε: ∂ log π/∂μ = 2 tanh u and ∂ log π/∂ log σ = 2 tanh(u) σε - 1, however narrow the policy."""
    key = jax.random.key(3)
    spread = np.exp(log_std) * jax.random.normal(key, MEANS.shape)
    slope = 2 * np.tanh(MEANS + spread)
    _, found = slopes(MEANS, np.full_like(MEANS, log_std), key)
    assert_allclose(found[0], slope, atol=1e-3)
    assert_allclose(found[1], slope * spread - 1, atol=1e-3)


@pytest.mark.parametrize("log_std", [-14.0, -5.0, 0.0])
def test_a_samples_log_probability_is_that_of_its_noise(log_std: float) -> None:
    """log π = Σ -½ε² - log σ - ½ log 2π - log(1 - tanh²u), also where μ + σε rounds ε away."""
    key = jax.random.key(4)
    noise = np.asarray(jax.random.normal(key, MEANS.shape), np.float64)
    u = MEANS + np.exp(log_std) * noise
    exact = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - np.tanh(u) ** 2)
    _, found = sample(MEANS, np.full_like(MEANS, log_std), key)
    assert_allclose(found, exact.sum(-1), atol=1e-3)
