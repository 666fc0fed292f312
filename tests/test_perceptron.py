"""The compiled perceptron gives what NumPy does in float64, for all shapes, under vmap, on any number of threads."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from numpy.testing import assert_allclose, assert_array_equal

from maxent import native, networks
from maxent.config import SACConfig
from maxent.networks import MLP
from maxent.types import Tree

pytestmark = pytest.mark.skipif(not native.available(), reason="no C compiler here")

SIZES = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 64, 70])


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "")


def ensemble(seed: int, count: int, inputs: int, hidden: tuple[int, ...], outputs: int = 1) -> MLP:
    """Drawn by NumPy, which compiles nothing for new sizes."""
    config, rng = SACConfig(hidden_sizes=hidden), np.random.default_rng(seed)
    form = jax.eval_shape(lambda key: networks.init_ensemble(key, count, inputs, config, outputs), jax.random.key(0))
    return jax.tree.map(lambda x: drawn(rng, *x.shape) / (form.layers[0].weight.shape[1] ** 0.5), form)


def drawn(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def values(critics: MLP, x: jax.Array) -> jax.Array:
    return jax.vmap(networks.mlp, (0, None))(critics, x)


def loss(critics: MLP, x: jax.Array) -> jax.Array:
    """With the smallest of them, whose gradient is 0 in most rows of each."""
    return jnp.square(values(critics, x).min(0) - 0.3).sum()


def wide(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def by_hand(critics: MLP, x: np.ndarray) -> tuple[float, Tree, np.ndarray]:
    """`loss` and its gradients in float64, network by network and row by row."""
    critics = wide(critics)
    count, outputs = critics.layers[0].weight.shape[0], critics.layers[-1].bias.shape[-1]
    hidden, y = [], np.zeros((count, len(x), outputs))
    for i in range(count):
        h = [x]
        for layer in critics.layers[:-1]:
            h.append(np.maximum(h[-1] @ layer.weight[i] + layer.bias[i], 0))
        hidden.append(h)
        y[i] = h[-1] @ critics.layers[-1].weight[i] + critics.layers[-1].bias[i]
    least = y.min(0)
    gradient = jax.tree.map(np.zeros_like, critics)
    to_x = np.zeros_like(x)
    for i in range(count):
        delta = np.where(y[i] == least, 2 * (least - 0.3), 0) / (y == least).sum(0)
        for n in reversed(range(len(critics.layers))):
            layer, found = critics.layers[n], gradient.layers[n]
            found.weight[i], found.bias[i] = hidden[i][n].T @ delta, delta.sum(0)
            delta = delta @ layer.weight[i].T * (hidden[i][n] > 0 if n else 1)
        to_x += delta
    return float(np.square(least - 0.3).sum()), gradient, to_x


def at_a_kink(critics: MLP, x: np.ndarray) -> bool:
    """Whether float32's rounding decides if a hidden unit passes, or which network's output is the least.

    The derivative jumps there, so neither precision's gradient is near the other's.
    """
    critics, epsilon = wide(critics), float(np.finfo(np.float32).eps)
    outputs, roundings = [], []
    for i in range(critics.layers[0].weight.shape[0]):
        h, rounding = x, np.zeros_like(x)
        for n, layer in enumerate(critics.layers):
            weight, bias = layer.weight[i], layer.bias[i]
            rounding = (rounding + epsilon * np.abs(h)) @ np.abs(weight) + epsilon * np.abs(bias)
            h = h @ weight + bias
            if n < len(critics.layers) - 1:
                if ((h != 0) & (np.abs(h) < rounding)).any():
                    return True
                h, rounding = np.maximum(h, 0), np.where(h > 0, rounding, 0)
        outputs.append(h)
        roundings.append(rounding)
    nearest = np.diff(np.sort(outputs, axis=0)[:2], axis=0)
    return bool(((nearest != 0) & (nearest < 2 * np.max(roundings, axis=0))).any())


def close(found: Tree, expected: Tree) -> None:
    """To float32's precision, beside the largest entry of an array."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_allclose(a, b, rtol=0, atol=3e-5 * max(1e-3, float(np.abs(b).max(initial=0))))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1000), st.integers(1, 3), SIZES, st.lists(SIZES, max_size=3).map(tuple), SIZES, SIZES,
)  # fmt: skip
def test_values_and_gradients_are_those_of_float64(
    seed: int, count: int, inputs: int, hidden: tuple[int, ...], outputs: int, batch: int
) -> None:
    critics = ensemble(seed, count, inputs, hidden, outputs)
    x = drawn(np.random.default_rng(seed + 1), batch, inputs)
    assume(not at_a_kink(critics, wide(x)))
    value, (gradient, to_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(critics, x)
    close((value, gradient, to_x), by_hand(critics, wide(x)))


def test_an_example_at_a_kink_is_known() -> None:
    """A unit's input is -4e-9 in float64, and 0 where float32 adds it to the first 1."""
    first = networks.Linear(np.array([[[1.0], [-4e-9], [-1.0]]], np.float32), np.zeros((1, 1), np.float32))
    critics = MLP((first, networks.Linear(np.ones((1, 1, 1), np.float32), np.zeros((1, 1), np.float32))), ())
    assert at_a_kink(critics, np.ones((1, 3))) and not at_a_kink(critics, np.array([[1.01, 1, 1]]))


AXES = {"all their own": (0, 0), "inputs shared": (0, None), "networks shared": (None, 0)}


@pytest.mark.parametrize("name", AXES)
def test_members_get_what_each_gets_alone(name: str) -> None:
    """Bit for bit: how many there are does not change what is summed in which order."""
    critics = jax.tree.map(lambda *own: np.stack(own), *(ensemble(seed, 2, 7, (40, 33)) for seed in range(3)))
    x = drawn(np.random.default_rng(9), 3, 50, 7)
    taken = tuple(tree if axis == 0 else jax.tree.map(lambda leaf: leaf[0], tree)
                  for tree, axis in zip((critics, x), AXES[name], strict=True))  # fmt: skip
    both = jax.grad(loss, argnums=(0, 1))
    together = jax.jit(jax.vmap(both, AXES[name]))(*taken)
    for i in range(3):
        own = [jax.tree.map(lambda leaf: leaf[i], tree) if axis == 0 else tree  # noqa: B023
               for tree, axis in zip(taken, AXES[name], strict=True)]  # fmt: skip
        alone = jax.jit(both)(*own)
        jax.tree.map(lambda a, b: assert_array_equal(a[i], b), together, alone)  # noqa: B023


@pytest.mark.usefixtures("without_compiler")
def test_without_a_compiler_xla_computes_the_same() -> None:
    critics, x = ensemble(0, 2, 7, (40, 33)), drawn(np.random.default_rng(1), 50, 7)
    assert not native.available()
    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(critics, x)
    assert "maxent_" not in program.as_text()
    value, (gradient, to_x) = program.compile()(critics, x)
    close((value, gradient, to_x), by_hand(critics, wide(x)))


@pytest.mark.parametrize(("activation", "layer_norm"), [("tanh", False), ("relu", True)])
def test_networks_of_another_kind_are_left_to_xla(activation: str, layer_norm: bool) -> None:
    config = SACConfig(hidden_sizes=(8,), layer_norm=layer_norm)
    critics = networks.init_ensemble(jax.random.key(0), 2, 3, config)
    text = jax.jit(networks.ensemble_q, static_argnums=3).lower(critics, jnp.ones((4, 2)), jnp.ones((4, 1)), activation)
    assert "maxent_" not in text.as_text()


def test_numbers_that_are_not_finite_are_not_hidden() -> None:
    """A training that has gone wrong is found by its losses."""
    critics = ensemble(0, 2, 7, (40, 33))
    x = jnp.ones((50, 7)).at[3, 2].set(jnp.nan)
    y = jax.jit(values)(critics, x)
    assert jnp.isnan(y[:, 3]).all() and jnp.isfinite(y[:, :3]).all() and jnp.isfinite(y[:, 4:]).all()


def test_what_nobody_looks_at_is_not_computed() -> None:
    """A policy's loss asks the critics for no gradients of their weights, a critics' loss for none of its inputs."""
    critics, x = ensemble(0, 2, 7, (40, 33)), jnp.ones((50, 7))
    for argument, expected in ((0, (1, 0, 1)), (1, (1, 1, 0))):
        text = jax.jit(jax.grad(loss, argnums=argument)).lower(critics, x).compile().as_text()
        assert tuple(text.count(f'custom_call_target="{name}"') for name in native.HANDLERS[:3]) == expected


GRADIENT = """
import hashlib, os, sys
if len(sys.argv) > 1: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np, jax.numpy as jnp
sys.path.insert(0, "tests")
from test_perceptron import drawn, ensemble, loss, native, networks
assert native.available()
critics, x = ensemble(0, 2, 23, (256, 256)), drawn(np.random.default_rng(1), 256, 23)
found = jax.jit(jax.grad(loss, argnums=(0, 1)))
for _ in range(20): result = found(critics, x)
print(hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(result))).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are as many as cores")
def test_the_number_of_threads_changes_no_bit() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", GRADIENT, *words], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parents[1],
        ).stdout
        for words in ([], ["alone"])
    ]  # fmt: skip
    assert found[0] == found[1]


def test_several_threads_may_compute_at_once() -> None:
    """As several devices do; one of them has the helpers."""
    critics, x = ensemble(0, 2, 23, (128, 128)), drawn(np.random.default_rng(1), 256, 23)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(critics, x).compile()
    expected, wrong = gradient(critics, x), []

    def repeat() -> None:
        for _ in range(100):
            same = jax.tree.map(lambda a, b: bool((a == b).all()), gradient(critics, x), expected)
            if not all(jax.tree.leaves(same)):
                wrong.append(same)

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


ENDING = """
import os, threading, jax, jax.numpy as jnp
from maxent import native, perceptron
assert native.available()
sizes, x = (16, 256, 256, 1), jnp.ones((4096, 16))
weights = tuple(jnp.ones(shape) for shape in zip(sizes, sizes[1:]))
gradient = jax.jit(jax.grad(lambda weights: perceptron.perceptron(x, weights, tuple(map(jnp.zeros, sizes[1:]))).sum()))
def bytes_after(threads):
    for _ in range(threads):
        thread = threading.Thread(target=lambda: jax.block_until_ready(gradient(weights)))
        thread.start()
        thread.join()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = bytes_after(40)
assert bytes_after(40) - before < 200e6  # 40 times 9 MB otherwise
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="nothing says how much memory there is")
def test_a_thread_that_ends_gives_its_memory_back() -> None:
    """XLA computes on the thread that asks where it finds a program small."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_", "PJRT_"))}
    subprocess.run([sys.executable, "-c", ENDING], check=True, env=environment)


def test_denormal_numbers_are_0_on_every_thread() -> None:
    """As XLA has them: a hidden unit that some thread took for positive would have a gradient."""
    first = networks.Linear(jnp.full((64, 256), 1e-20), jnp.zeros(256))
    params = MLP((first, networks.Linear(jnp.ones((256, 256)), jnp.zeros(256))), ())
    x = jnp.full((256, 64), 1e-20)
    gradient = jax.jit(jax.grad(lambda params: networks.mlp(params, x).sum()))
    for _ in range(100):
        assert not np.asarray(gradient(params).layers[0].bias).any()


def test_a_batch_may_be_empty() -> None:
    critics = ensemble(0, 2, 7, (40, 33))
    value, gradient = jax.jit(jax.value_and_grad(loss))(critics, jnp.ones((0, 7)))
    assert value == 0 and values(critics, jnp.ones((0, 7))).shape == (2, 0, 1)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))
