"""Networks as tuples of arrays: a parameter tree is plain data, and applying it is a function.

An ensemble is the same tree with a leading axis.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import native, perceptron
from maxent.config import AlgorithmConfig

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


class Gaussian(NamedTuple):
    """A network that gives μ and log σ, or μ alone with one log σ for all inputs."""

    network: MLP
    log_std: Array
    """[d] where σ does not depend on the input, else [0]."""


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


def orthogonal(key: Array, inputs: int, outputs: int, config: AlgorithmConfig, scale: float) -> MLP:
    """A perceptron with orthogonal layers (arXiv 1312.6120): gain √2 inside, `scale` at the end, biases 0."""
    key_shapes, key_weights = jax.random.split(key)
    params = init_mlp(key_shapes, inputs, config.hidden_sizes, outputs, config.layer_norm)
    gains = [*(2**0.5 for _ in config.hidden_sizes), scale]
    keys = jax.random.split(key_weights, len(gains))
    layers = tuple(
        Linear(jax.nn.initializers.orthogonal(gain)(k, layer.weight.shape), jnp.zeros_like(layer.bias))
        for k, gain, layer in zip(keys, gains, params.layers, strict=True)
    )
    return params._replace(layers=layers)


def mlp(params: MLP, x: Array, activation: str = "relu") -> Array:
    """[…, inputs] → […, outputs].

    Where `maxent.perceptron` computes it, it has first derivatives in reverse mode, and no others.
    """
    if perceptron.covers(activation, bool(params.norms)) and native.takes(params, x):
        weights, biases = zip(*params.layers, strict=True)
        return perceptron.perceptron(x.reshape(-1, x.shape[-1]), weights, biases).reshape(
            *x.shape[:-1], len(biases[-1])
        )
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


def init_ensemble(key: Array, count: int, inputs: int, config: AlgorithmConfig, outputs: int = 1) -> MLP:
    """So many independent perceptrons with the config's hidden layers: every array has a leading axis [network]."""
    return jax.vmap(lambda k: init_mlp(k, inputs, config.hidden_sizes, outputs, config.layer_norm))(
        jax.random.split(key, count)
    )


def ensemble_q(critics: MLP, features: Array, action: Array, activation: str) -> Array:
    """Q_i(s, a) of every critic: [batch, F], [batch, d] → [critic, batch]."""
    x = jnp.concatenate([features, action], axis=-1)
    return jax.vmap(mlp, (0, None, None))(critics, x, activation)[..., 0]


def init_gaussian(key: Array, inputs: int, actions: int, config: AlgorithmConfig, state_dependent: bool) -> Gaussian:
    """A Gaussian over so many actions with the config's hidden layers."""
    outputs = 2 * actions if state_dependent else actions
    network = init_mlp(key, inputs, config.hidden_sizes, outputs, config.layer_norm)
    return Gaussian(network, jnp.zeros(0 if state_dependent else actions))


def gaussian(params: Gaussian, features: Array, activation: str) -> tuple[Array, Array]:
    """μ and log σ, [batch, F] → two [batch, d]."""
    out = mlp(params.network, features, activation)
    if params.log_std.shape[-1]:
        return out, jnp.broadcast_to(params.log_std, out.shape)
    mean, log_std = jnp.split(out, 2, axis=-1)
    return mean, log_std
