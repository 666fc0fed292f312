"""On problems whose soft-optimal answer is known, the algorithms find it: values within 2 % of the largest,
policies as densities.

One critic each, since the smaller of two is biased on purpose.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from maxent.algorithms.sac import SAC
from maxent.algorithms.sql import SQL
from maxent.config import SACConfig, SQLConfig
from oracles import X, distances, draws, learn, linear_quadratic, log_integral, one_step, soft_values

ALPHA = 0.5


def one_peak(a: Any) -> Any:
    return 1 - 2 * (a - 0.3) ** 2


def two_peaks(a: Any) -> Any:
    """Of the probability, the lower peak holds two fifths."""
    return ALPHA * (0.35 * a - 2 * jnp.cos(2 * jnp.pi * a))


def check_sampler(reward: Any, updates: int, seeds: int, wasserstein: float, variation: float) -> None:
    """The soft value of every seed and the distance of its draws, with the paper's 2 × 32 particles."""
    problem = one_step(reward, ALPHA)
    config = SQLConfig(
        learning_rate=5e-3, temperature=ALPHA, learning_rate_decay_updates=updates, hidden_sizes=(32, 32),
        kernel_particles=64,
    )  # fmt: skip
    for seed in range(seeds):
        state = learn(SQL, config, updates, problem, seed)
        assert_allclose(soft_values(SQL, config, state, problem), problem.value, rtol=0.02)
        found = distances(draws(SQL, config, state, problem, 20_000)[0], problem.log_density[0])
        assert found[0] < wasserstein and found[1] < variation


def test_the_sampler_finds_both_peaks_quickly() -> None:
    """Within 0.06 (Wasserstein, on a box of width 2) and 0.1 (total variation) of exp((Q - V)/α)."""
    check_sampler(two_peaks, 1200, 1, 0.06, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("reward", [one_peak, two_peaks])
def test_the_sampler_draws_from_the_energy(reward: Any) -> None:
    """Within 0.03 and 0.05, given time: each of three seeds."""
    check_sampler(reward, 4000, 3, 0.03, 0.05)


@pytest.mark.slow
def test_particles_on_the_box_aim_at_a_narrower_density() -> None:
    """The published code's form draws from exp(Q/α) (1 - a²), and so not from exp(Q/α)."""
    problem = one_step(one_peak, ALPHA)
    config = SQLConfig(
        learning_rate=5e-3, temperature=ALPHA, learning_rate_decay_updates=4000, hidden_sizes=(32, 32),
        kernel_space="action",
    )  # fmt: skip
    actions = draws(SQL, config, learn(SQL, config, 4000, problem), problem, 20_000)[0]
    narrower = problem.log_density[0] + np.log(1 - X**2 + 1e-9)
    assert (
        distances(actions, narrower - log_integral(narrower))[1] < 0.06 < distances(actions, problem.log_density[0])[1]
    )


def assert_as_good_as(algorithm: Any, config: Any, problem: Any, updates: int) -> None:
    """Values within 2 % of the largest; actions with the right mean and deviation."""
    state = learn(algorithm, config, updates, problem)
    found = soft_values(algorithm, config, state, problem)
    assert_allclose(found, problem.value, atol=0.02 * np.abs(problem.value).max())
    actions, density = draws(algorithm, config, state, problem, 4000), np.exp(problem.log_density)
    mean = np.trapezoid(density * X, X)
    std = np.trapezoid(density * (X - mean[:, None]) ** 2, X) ** 0.5
    assert_allclose(actions.mean(1), mean, atol=0.2 * std.max())
    assert_allclose(actions.std(1), std, rtol=0.15)


@pytest.mark.slow
def test_sql_solves_a_linear_system() -> None:
    config = SQLConfig(
        learning_rate=2e-3, temperature=0.02, learning_rate_decay_updates=4000, hidden_sizes=(64, 64),
        value_particles=64, target_update_interval=1, tau=0.02, activation="silu",
    )  # fmt: skip
    assert_as_good_as(SQL, config, linear_quadratic(0.02), 4000)


SAC_ORACLE = SACConfig(
    learning_rate=3e-3, temperature=0.02, learning_rate_decay_updates=3000, hidden_sizes=(32, 32), critics=1, tau=0.02,
    activation="silu",
)  # fmt: skip


@pytest.mark.slow
def test_sac_solves_one_step() -> None:
    """A narrow peak within the box, which a squashed Gaussian fits."""
    assert_as_good_as(SAC, SAC_ORACLE, one_step(one_peak, 0.02), 3000)


@pytest.mark.slow
def test_sac_solves_a_linear_system() -> None:
    assert_as_good_as(SAC, SAC_ORACLE, linear_quadratic(0.02), 3000)
