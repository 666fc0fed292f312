"""Networks as tuples of arrays: a parameter tree is plain data, and applying it is a function.

An observation tree becomes one feature vector; multilayer perceptrons do the rest. An ensemble is the same tree with a
leading axis.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent.types import Leaf, Tree

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
NORM_EPSILON = 1e-5


class Linear(NamedTuple):
    """An affine layer."""

    weight: Array
    """[in, out]"""
    bias: Array
    """[out]"""


class Norm(NamedTuple):
    """Layer normalisation (arXiv 1607.06450), between a layer's product and its activation."""

    scale: Array
    offset: Array


class MLP(NamedTuple):
    """A multilayer perceptron; `norms` is empty or has one entry a hidden layer."""

    layers: tuple[Linear, ...]
    norms: tuple[Norm, ...]


def init_linear(key: Array, inputs: int, outputs: int) -> Linear:
    """Weights and biases uniform within ±1/√inputs, the default of the published SAC results in PyTorch."""
    key_weight, key_bias = jax.random.split(key)
    bound = inputs**-0.5
    weight = jax.random.uniform(key_weight, (inputs, outputs), minval=-bound, maxval=bound)
    return Linear(weight, jax.random.uniform(key_bias, (outputs,), minval=-bound, maxval=bound))


def init_mlp(key: Array, inputs: int, hidden: Sequence[int], outputs: int, layer_norm: bool = False) -> MLP:
    """A perceptron inputs → hidden[0] → … → outputs."""
    sizes = (inputs, *hidden, outputs)
    keys = jax.random.split(key, len(sizes) - 1)
    layers = tuple(init_linear(k, m, n) for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True))
    norms = tuple(Norm(jnp.ones(size), jnp.zeros(size)) for size in hidden) if layer_norm else ()
    return MLP(layers, norms)


def mlp(params: MLP, x: Array, activation: str = "relu") -> Array:
    """[batch, inputs] → [batch, outputs]."""
    *hidden, last = params.layers
    for i, layer in enumerate(hidden):
        x = x @ layer.weight + layer.bias
        if params.norms:
            x = layer_norm(params.norms[i], x)
        x = ACTIVATIONS[activation](x)
    return x @ last.weight + last.bias


def layer_norm(params: Norm, x: Array) -> Array:
    """Zero mean and unit variance over the last axis, then scale and offset."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + NORM_EPSILON) * params.scale + params.offset


def features(spec: Tree, obs: Tree) -> Array:
    """An observation tree, each leaf [batch, …], as one float32 matrix [batch, features].

    Choices become one-hot vectors, bytes are scaled to [0, 1], numbers are taken as they are.
    """
    encoded = jax.tree.map(_encode, spec, obs, is_leaf=lambda x: isinstance(x, Leaf))
    return jnp.concatenate(jax.tree.leaves(encoded), axis=-1)


def count_features(spec: Tree) -> int:
    """The width of `features`."""
    leaves = jax.tree.leaves(spec, is_leaf=lambda x: isinstance(x, Leaf))
    return sum(sum(leaf.categories) if leaf.categories else _size(leaf) for leaf in leaves)


def _encode(leaf: Leaf, x: Array) -> Array:
    x = x.reshape(*x.shape[: x.ndim - len(leaf.shape)], _size(leaf))
    if leaf.categories:
        one_hot = [jax.nn.one_hot(x[..., i], n) for i, n in enumerate(leaf.categories)]
        return jnp.concatenate(one_hot, axis=-1)
    return x.astype(jnp.float32) / (255.0 if leaf.dtype == "uint8" else 1.0)


def _size(leaf: Leaf) -> int:
    size = 1
    for n in leaf.shape:
        size *= n
    return size
