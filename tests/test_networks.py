"""Observations become the features one would write by hand, and perceptrons compute what NumPy computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal

from maxent import networks, observations
from maxent.config import Activation
from maxent.envs.spaces import empty_batch, spec_of, write_observation
from maxent.networks import MLP, Linear, Norm
from maxent.types import Leaf, Tree
from reference import sac_numpy as reference

LEAVES: dict[str, tuple[Leaf, object, list[float]]] = {
    "a vector as it is": (Leaf((3,), "float32"), [1.5, -300.0, 0.0], [1.5, -300.0, 0.0]),
    "a scalar as a vector of one": (Leaf((), "float32"), 2.5, [2.5]),
    "a matrix row by row": (Leaf((2, 2), "float32"), [[1, 2], [3, 4]], [1, 2, 3, 4]),
    "bytes between 0 and 1": (Leaf((2, 2), "uint8"), [[0, 51], [102, 255]], [0, 0.2, 0.4, 1]),
    "other whole numbers as they are": (Leaf((2,), "int32"), [-7, 255], [-7, 255]),
    "bits as they are": (Leaf((3,), "int8"), [1, 0, 1], [1, 0, 1]),
    "a choice one-hot": (Leaf((), "int32", (4,)), 2, [0, 0, 1, 0]),
    "choices one after the other": (Leaf((2,), "int32", (2, 3)), [1, 0], [0, 1, 1, 0, 0]),
    "a matrix of choices row by row": (
        Leaf((2, 2), "int32", (2, 1, 2, 2)), [[0, 0], [1, 0]], [1, 0, 1, 0, 1, 1, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_becomes_features(name: str) -> None:
    leaf, obs, expected = LEAVES[name]
    found = jax.jit(observations.features, static_argnums=0)(leaf, np.array(obs, leaf.dtype)[None])
    assert found.dtype == np.float32 and observations.count_features(leaf) == len(expected)
    assert_allclose(found, [expected], rtol=1e-6)


def test_a_dictionary_becomes_its_entries_in_the_order_of_their_names() -> None:
    """Nested ones too, for every row of a batch, from the space to the features."""
    space = spaces.Dict(
        {
            "where": spaces.Box(-9, 9, (2,), np.float64),
            "eyes": spaces.Dict({"pixels": spaces.Box(0, 255, (1, 2), np.uint8)}),
            "key": spaces.Discrete(3, start=5),
        }
    )
    spec = spec_of(space, spaces.Box(-1, 1, (1,)))
    seen = [
        {"where": np.array([0.5, -2.0]), "eyes": {"pixels": np.array([[255, 0]], np.uint8)}, "key": 7},
        {"where": np.array([9.0, 4.0]), "eyes": {"pixels": np.array([[0, 51]], np.uint8)}, "key": 5},
    ]
    batch: Tree = empty_batch(spec.obs, (2,))
    for i, obs in enumerate(seen):
        write_observation(space, obs, batch, (i,))
    expected = [[1, 0, 0, 0, 1, 0.5, -2], [0, 0.2, 1, 0, 0, 9, 4]]
    assert_allclose(observations.features(spec.obs, batch), expected, rtol=1e-6)
    assert observations.count_features(spec.obs) == 7


def random_mlp(sizes: tuple[int, ...], norms: bool, seed: int = 0) -> MLP:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    layers = tuple(Linear(draw(m, n), draw(n)) for m, n in zip(sizes[:-1], sizes[1:]))
    return MLP(layers, tuple(Norm(draw(n), draw(n)) for n in sizes[1:-1]) if norms else ())


def by_numpy(net: MLP, x: np.ndarray, activation: str) -> np.ndarray:
    arrays = {f"{kind}{i}": np.float64(getattr(p, kind)) for i, p in enumerate(net.layers) for kind in p._fields}
    arrays |= {f"{kind}{i}": np.float64(getattr(p, kind)) for i, p in enumerate(net.norms) for kind in p._fields}
    return reference.forward(arrays, x, activation)[0]


@pytest.mark.parametrize("activation", Activation.__args__)
@pytest.mark.parametrize("norms", [False, True], ids=["plain", "layer norm"])
def test_a_perceptron_is_numpys(activation: str, norms: bool) -> None:
    """Every activation that the config offers, after the normalisation where there is one, and none at the end."""
    net, x = random_mlp((4, 6, 5, 2), norms), np.random.default_rng(1).standard_normal((7, 4))
    found = jax.jit(networks.mlp, static_argnums=2)(net, x.astype(np.float32), activation)
    assert_allclose(found, by_numpy(net, x, activation), rtol=1e-4, atol=1e-4)


def test_without_hidden_layers_a_perceptron_is_affine() -> None:
    net, x = random_mlp((3, 2), False), np.ones((1, 3), np.float32)
    assert_allclose(networks.mlp(net, x), x @ net.layers[0].weight + net.layers[0].bias, rtol=1e-6)


def test_layer_norm_forgets_shift_and_scale_of_a_row() -> None:
    """Rows come out with mean 0 and variance 1, then scaled and offset."""
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    apply = jax.jit(networks.layer_norm)
    unit, other = (Norm(np.full(64, a, np.float32), np.full(64, b, np.float32)) for a, b in ((1, 0), (2, 3)))
    normal = np.asarray(apply(unit, x))
    assert_allclose(normal.mean(-1), 0, atol=1e-5)
    assert_allclose(normal.std(-1), 1, atol=1e-3)
    assert_allclose(apply(unit, 30 * x + 7), normal, atol=1e-3)
    assert_allclose(apply(other, x), 2 * normal + 3, atol=1e-5)


def test_a_constant_row_is_normalised_to_zero() -> None:
    assert_array_equal(networks.layer_norm(Norm(jnp.ones(4), jnp.zeros(4)), jnp.full((1, 4), 5.0)), np.zeros((1, 4)))


def test_weights_start_uniform_within_the_fan_in() -> None:
    """±1/√inputs for weights and biases, filling that range evenly; normalisation starts as nothing."""
    net = jax.jit(lambda key: networks.init_mlp(key, 16, (100, 400), 3, layer_norm=True))(jax.random.key(0))
    assert [layer.weight.shape for layer in net.layers] == [(16, 100), (100, 400), (400, 3)]
    for layer in net.layers:
        bound = layer.weight.shape[0] ** -0.5
        assert np.abs(layer.weight).max() <= bound and np.abs(layer.bias).max() <= bound
    evenly = np.asarray(net.layers[1].weight).ravel() * 10
    assert_allclose(np.histogram(evenly, 10, (-1, 1))[0], 4000, atol=6 * np.sqrt(4000))
    assert len(np.unique(evenly)) > 0.99 * len(evenly)
    assert all((norm.scale == 1).all() and (norm.offset == 0).all() for norm in net.norms)
