"""Adam with a traced learning rate is the published Adam, computed by XLA or by native.c; clipping and decay work."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from maxent import native, optimisers
from maxent.optimisers import Adam
from maxent.types import Tree

PARAMS = {"a": np.array([1.0, -2.0, 0.5], np.float32), "b": np.array(3.0, np.float32)}


SHAPES = {"critics": (2, 23, 40), "wide": (130, 140), "none": (0,), "number": (), "last": (17,)}
"""More numbers than one task of native.c has, in arrays that begin and end within tasks."""


@pytest.fixture(autouse=True, params=["", "cc"])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Without one XLA computes it."""
    monkeypatch.setenv("CC", request.param)
    if request.param and not native.available():
        pytest.skip("no C compiler here")
    one_step.clear_cache()
    return request.param


def gradient(i: int, scale: float = 1.0) -> Tree:
    return drawn(i, {name: x.shape for name, x in PARAMS.items()}, scale)


def drawn(seed: int, shapes: dict[str, tuple[int, ...]], scale: float = 1.0) -> Tree:
    rng = np.random.default_rng(seed)
    return {name: np.float32(scale * rng.standard_normal(shape)) for name, shape in shapes.items()}


def norm(tree: Tree) -> float:
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in tree.values())))


def descend(steps: int, max_grad_norm: float = 0.0, scale: float = 1.0) -> Tree:
    params, state = PARAMS, Adam(max_grad_norm).init(PARAMS)
    for i in range(steps):
        params, state = one_step(max_grad_norm, 0.1, gradient(i, scale), state, params)
    return params


@partial(jax.jit, static_argnums=0)
def one_step(max_grad_norm: float, rate: float, gradient: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
    return Adam(max_grad_norm).step(rate, gradient, state, params)


def by_hand(start: np.ndarray, gradients: list[np.ndarray], rate: float) -> np.ndarray:
    """Algorithm 1 of arXiv 1412.6980 in float64."""
    x, m, v = np.float64(start), 0.0, 0.0
    for t, g in enumerate(map(np.float64, gradients), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


def test_steps_are_adams_by_hand() -> None:
    """Bias corrections included, over several steps."""
    found = descend(5)
    for name, start in PARAMS.items():
        assert_allclose(found[name], by_hand(start, [gradient(t)[name] for t in range(5)], 0.1), atol=1e-5)


def test_members_of_any_shape_step_as_each_does_alone(compiler: str) -> None:
    """With rates of their own; by native.c to the bit, since it sums nothing. What is given stays as it was."""
    members, rates = [drawn(i, SHAPES) for i in range(3)], np.float32([0.1, 0.01, 0.0])
    params, adam = jax.tree.map(lambda *x: jnp.stack(x), *members), Adam()
    before, state = jax.tree.map(np.array, params), jax.vmap(adam.init)(params)
    step = jax.jit(jax.vmap(adam.step))
    together, gradients = params, [[drawn(10 * t + i, SHAPES) for i in range(3)] for t in range(4)]
    for each in gradients:
        together, state = step(rates, jax.tree.map(lambda *x: np.stack(x), *each), state, together)
    jax.tree.map(assert_array_equal, params, before)
    for i, start in enumerate(members):
        alone, memory = start, adam.init(start)
        for each in gradients:
            alone, memory = one_step(0.0, rates[i], each[i], memory, alone)
        for name in SHAPES:
            expected = by_hand(start[name], [each[i][name] for each in gradients], float(rates[i]))
            assert_allclose(together[name][i], expected, atol=1e-5)
            assert_allclose(together[name][i], alone[name], atol=0 if compiler else 1e-6)


def test_whether_native_c_steps_is_told_by_the_program(compiler: str) -> None:
    """Of float32 on a CPU; in place, where the arrays are given away: no array is copied."""
    params = drawn(0, SHAPES)
    state = Adam().init(params)
    program = jax.jit(Adam().step, donate_argnums=(2, 3)).lower(np.float32(0.1), params, state, params).compile()
    assert program.as_text().count('"maxent_adam"') == bool(compiler)
    if compiler:
        assert program.memory_analysis().temp_size_in_bytes < state.mu.nbytes / 10
    half = jax.tree.map(jnp.float16, params)
    text = jax.jit(Adam().step).lower(np.float16(0.1), half, Adam().init(half), half).as_text()
    assert "maxent_adam" not in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_jax_counts_in_64_bits_parameters_keep_their_own(dtype: type) -> None:
    """Nothing that a step computes beside them may widen them, nor be read as what it is not."""
    with jax.enable_x64(True):
        params, gradients = (jax.tree.map(lambda x: np.asarray(x, dtype), drawn(i, SHAPES)) for i in (0, 1))
        new, state = jax.jit(Adam(1e6).step)(np.float32(0.1), gradients, Adam().init(params), params)
        for name in SHAPES:
            assert new[name].dtype == state.mu.dtype == dtype
            assert_allclose(new[name], by_hand(params[name], [gradients[name]], 0.1), atol=1e-5)


def test_a_gradient_of_another_form_is_refused() -> None:
    for wrong in ({"a": gradient(0)["a"]}, gradient(0) | {"a": np.ones(2, np.float32)}):
        with pytest.raises((ValueError, TypeError)):
            Adam().step(jnp.float32(0.1), wrong, Adam().init(PARAMS), PARAMS)


def test_a_gradient_that_is_not_finite_is_not_hidden() -> None:
    wrong = gradient(0) | {"b": np.float32(np.nan)}
    params, _ = one_step(0.0, 0.1, wrong, Adam().init(PARAMS), PARAMS)
    assert np.isnan(params["b"]) and np.isfinite(params["a"]).all()


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
        _, state = one_step(0.5, 0.1, g, Adam(0.5).init(PARAMS), PARAMS)
        given = ravel_pytree(PARAMS)[1](state.mu / 0.1)
        assert_allclose(norm(given), kept or norm(g), rtol=1e-5)
        for name in PARAMS:
            assert_allclose(given[name] / norm(given), g[name] / norm(g), rtol=1e-5)


def test_without_a_norm_nothing_is_cut() -> None:
    """Adam alone does not see the scale of its gradients, so huge ones lead where small ones do."""
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4), descend(3, scale=1e6), descend(3))


def test_a_rate_of_zero_stands_still() -> None:
    """To the bit."""
    params, _ = one_step(0.0, 0.0, gradient(0), Adam().init(PARAMS), PARAMS)
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
