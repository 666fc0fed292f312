"""Multilayer perceptrons with ReLU on a CPU: a JAX function over the products of native.c."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

Arrays = tuple[Array, ...]


def covers(activation: str, layer_norm: bool) -> bool:
    """Whether `perceptron` computes networks of this kind, where native.c takes their arrays."""
    return activation == "relu" and not layer_norm


@jax.custom_vjp
def perceptron(x: Array, weights: Arrays, biases: Arrays) -> Array:
    """max(0, x W_1 + b_1) W_2 + …: [batch, inputs] → [batch, outputs], all float32.

    What differs between networks under `vmap` has a leading axis, and what they share is not copied.
    """
    return _layers(x, weights, biases, keep=False)[0]


def _layers(x: Array, weights: Arrays, biases: Arrays, keep: bool) -> Sequence[Array]:
    """The output and, if they are to be kept, the hidden layers' activations."""
    *hidden, output = [_like(*x.shape[:-1], weight.shape[-1]) for weight in weights]
    arrays = [array for layer in zip(weights, biases, strict=True) for array in layer]
    return _call("maxent_forward", (output, *hidden) if keep else (output,), x, *arrays)


def _forward(x: Array, weights: Arrays, biases: Arrays) -> tuple[Array, tuple[Array, Arrays, Arrays]]:
    y, *activations = _layers(x, weights, biases, keep=True)
    return y, (x, weights, tuple(activations))


def _backward(kept: tuple[Array, Arrays, Arrays], gradient: Array) -> tuple[Array, Arrays, Arrays]:
    """Two calls, each left out by XLA where nobody looks at what it gives."""
    x, weights, activations = kept
    arguments = gradient, *weights, x, *activations
    (to_input,) = _call("maxent_to_input", (_like(*x.shape),), *arguments)
    shapes = [shape for weight in weights for shape in (weight.shape, weight.shape[-1:])]
    gradients = _call("maxent_gradients", tuple(_like(*shape) for shape in shapes), *arguments)
    return to_input, tuple(gradients[0::2]), tuple(gradients[1::2])


perceptron.defvjp(_forward, _backward)


def _call(name: str, results: tuple[jax.ShapeDtypeStruct, ...], *arguments: Array) -> Sequence[Array]:
    return jax.ffi.ffi_call(name, results, vmap_method="expand_dims")(*arguments)


def _like(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
