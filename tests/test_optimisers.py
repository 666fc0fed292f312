"""Adam with a traced learning rate is the published Adam; clipping and decay do what they say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from maxent import optimisers
from maxent.types import Tree

PARAMS = {"a": np.array([1.0, -2.0, 0.5], np.float32), "b": np.array(3.0, np.float32)}


def gradient(i: int, scale: float = 1.0) -> Tree:
    rng = np.random.default_rng(i)
    return {name: np.float32(scale * rng.standard_normal(x.shape)) for name, x in PARAMS.items()}


def norm(tree: Tree) -> float:
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in tree.values())))


def descend(steps: int, max_grad_norm: float = 0.0, scale: float = 1.0) -> Tree:
    params, state = PARAMS, optimisers.adam(max_grad_norm).init(PARAMS)
    for i in range(steps):
        params, state = one_step(max_grad_norm, 0.1, gradient(i, scale), state, params)
    return params


@partial(jax.jit, static_argnums=0)
def one_step(max_grad_norm: float, rate: float, gradient: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
    return optimisers.step(optimisers.adam(max_grad_norm), rate, gradient, state, params)


def test_steps_are_adams_by_hand() -> None:
    """Algorithm 1 of arXiv 1412.6980, bias corrections included, over several steps."""
    found = descend(5)
    for name, start in PARAMS.items():
        x, m, v = np.float64(start), 0.0, 0.0
        for t in range(1, 6):
            g = np.float64(gradient(t - 1)[name])
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            x = x - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert_allclose(found[name], x, atol=1e-5)


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.7])
def test_steps_are_optaxs_with_a_constant_rate(max_grad_norm: float) -> None:
    """The rate as an argument changes nothing."""
    clip = optax.clip_by_global_norm(max_grad_norm) if max_grad_norm else optax.identity()
    theirs = optax.chain(clip, optax.adam(0.1))
    params, state, update = PARAMS, theirs.init(PARAMS), jax.jit(theirs.update)
    for i in range(5):
        updates, state = update(gradient(i), state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-5), descend(5, max_grad_norm), params)


def test_a_long_gradient_is_cut_to_the_norm_and_a_short_one_kept() -> None:
    """The direction stays, over all arrays together; Adam's first moment shows what it was given."""
    for scale, kept in ((100.0, 0.5), (1e-3, None)):
        g = gradient(0, scale)
        _, state = one_step(0.5, 0.1, g, optimisers.adam(0.5).init(PARAMS), PARAMS)
        given = ravel_pytree(PARAMS)[1](optax.tree_utils.tree_get(state, "mu") / 0.1)
        assert_allclose(norm(given), kept or norm(g), rtol=1e-5)
        for name in PARAMS:
            assert_allclose(given[name] / norm(given), g[name] / norm(g), rtol=1e-5)


def test_without_a_norm_nothing_is_cut() -> None:
    """Adam alone does not see the scale of its gradients, so huge ones lead where small ones do."""
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4), descend(3, scale=1e6), descend(3))


def test_a_rate_of_zero_stands_still() -> None:
    """To the bit."""
    params, _ = one_step(0.0, 0.0, gradient(0), optimisers.adam().init(PARAMS), PARAMS)
    jax.tree.map(assert_array_equal, params, PARAMS)


@pytest.mark.parametrize(("index", "factor"), [(0, 1.0), (1, 0.75), (3, 0.25), (4, 0.0), (1000, 0.0)])
def test_the_rate_falls_linearly_to_zero_and_stays_there(index: int, factor: float) -> None:
    """Over four updates, for the unsigned index that the loop counts with."""
    assert_allclose(optimisers.linear_decay(4, jnp.uint32(index)), factor)


def test_no_decay_is_a_factor_of_one() -> None:
    assert optimisers.linear_decay(0, jnp.uint32(10**6)) == 1.0


@pytest.mark.parametrize(("index", "factor"), [(0, 1.0), (4, 1.0), (5, 0.1), (8, 0.1), (9, 0.01), (1000, 0.01)])
def test_the_rate_falls_in_steps(index: int, factor: float) -> None:
    """By its factor at each of the updates that are named."""
    assert_allclose(optimisers.step_decay((5, 9), 0.1, jnp.uint32(index)), factor, rtol=1e-6)


def test_no_steps_are_a_factor_of_one() -> None:
    assert optimisers.step_decay((), 0.1, jnp.uint32(10**6)) == 1.0
