"""The small equations, against the same written plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from maxent import observations, operators
from maxent.observations import Moments

add = jax.jit(observations.add_to_moments)


def moments_of(*blocks: np.ndarray, weights: list[np.ndarray] | None = None) -> Moments:
    """The blocks, one after the other."""
    moments = observations.init_moments(blocks[0].shape[1])
    for i, block in enumerate(blocks):
        weight = np.ones(len(block)) if weights is None else weights[i]
        moments = add(moments, block.astype(np.float32), weight.astype(np.float32))
    return moments


def test_a_target_bootstraps_by_its_discount() -> None:
    """A whole step of it at a time limit, nothing of it at an end, γ^m of it after m steps."""
    target = operators.bellman_target(np.ones(3), np.array([0.9, 0.0, 0.9**3]), np.full(3, 10.0))
    assert_allclose(target, [10.0, 1.0, 1 + 10 * 0.729])


def test_improbable_actions_are_worth_more() -> None:
    """V = Q - α log π, one sample."""
    assert_allclose(operators.soft_value(np.array([2.0, 2.0]), np.array([-3.0, 1.0]), 0.5), [3.5, 1.5])


@pytest.mark.parametrize(("tau", "expected"), [(0.0, 1.0), (0.25, 2.0), (1.0, 5.0)])
def test_polyak_moves_its_share_of_the_way(tau: float, expected: float) -> None:
    """From 1 towards 5, in every array of the tree."""
    target, online = ({"a": np.full(2, x), "b": (np.full((), x),)} for x in (1.0, 5.0))
    moved = operators.polyak(target, online, tau)
    assert_array_equal(moved["a"], [expected, expected])
    assert_array_equal(moved["b"][0], expected)


@pytest.mark.parametrize("cuts", [[], [1], [1, 8, 39]])
def test_moments_do_not_depend_on_how_the_rows_came(cuts: list[int]) -> None:
    """In whatever blocks: the mean and variance of all rows, far from zero too."""
    rows = np.random.default_rng(0).standard_normal((40, 3)) * [1, 5, 0.1] + [0, 100, 3]
    moments = moments_of(*np.split(rows, cuts))
    assert moments.weight == 40
    assert_allclose(moments.mean, rows.mean(0), rtol=1e-5, atol=1e-5)
    assert_allclose(moments.variance, rows.var(0), rtol=1e-3, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(weights=st.lists(st.lists(st.sampled_from([0, 1]), min_size=20, max_size=20), min_size=1, max_size=4))
def test_rows_of_weight_zero_do_not_count(weights: list[list[int]]) -> None:
    """Moments of the rows of weight one alone, whatever stands in the others; a block may have none."""
    blocks = np.random.default_rng(0).standard_normal((len(weights), 20, 2))
    weight = np.array(weights, float)
    moments = moments_of(*np.where(weight[..., None] > 0, blocks, 1e3), weights=list(weight))
    real = blocks[weight == 1]
    assert moments.weight == len(real)
    assert_allclose(moments.mean, real.mean(0) if len(real) else 0, atol=1e-5)
    assert_allclose(moments.variance, real.var(0) if len(real) else 1, atol=1e-5)


def test_moments_of_nothing_normalise_nothing() -> None:
    """Before a first row, and after rows of weight zero, observations pass as they are."""
    x = np.array([[-3.0, 0.5, 8.0]], np.float32)
    for moments in (observations.init_moments(3), moments_of(x, weights=[np.zeros(1)])):
        assert_allclose(observations.normalize(moments, x), x, rtol=1e-6)


def test_normalised_rows_have_mean_zero_and_variance_one() -> None:
    """By their own moments."""
    rows = np.random.default_rng(0).standard_normal((500, 2)) * [0.01, 50] + [-1, 7]
    normal = observations.normalize(moments_of(rows), rows.astype(np.float32))
    assert_allclose(normal.mean(0), 0, atol=1e-3)
    assert_allclose(normal.std(0), 1, atol=1e-3)


def test_normalised_outliers_are_cut_and_constants_are_zero() -> None:
    """Ten standard deviations are the most; an entry that never changed divides by no zero."""
    moments = Moments(jnp.asarray(9.0), jnp.array([1.0, 2.0]), jnp.array([4.0, 0.0]))
    x = np.array([[1e6, 2.0], [-1e6, 2.0], [5.0, 2.0]])
    assert_allclose(observations.normalize(moments, x), [[10, 0], [-10, 0], [2, 0]], rtol=1e-6)


def test_moments_survive_a_scan() -> None:
    """Same shapes and dtypes out as in."""
    start = observations.init_moments(2)
    end = jax.eval_shape(observations.add_to_moments, start, jnp.zeros((3, 2)), jnp.ones(3))
    assert end == jax.eval_shape(lambda: start)
