"""Problems whose soft-optimal answer is known, fed to an algorithm's updates in one scan; integrals by quadrature."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maxent.settings import without_numbers
from maxent.types import Algorithm, Leaf, Spec, Transition

SPEC = Spec(obs=Leaf((1,), "float32"), action=Leaf((1,), "float32"))
X = np.linspace(-1, 1, 20_001)
"""Where integrals over the action box are taken."""


def log_integral(log_f: np.ndarray) -> float:
    """log ∫ exp(log_f) da over the box, from values on X."""
    return float(np.log(np.trapezoid(np.exp(log_f - log_f.max()), X)) + log_f.max())


class Problem(NamedTuple):
    """Transitions to learn from, and the truth."""

    temperature: float
    draw: Callable[[jax.Array], Transition]
    states: np.ndarray
    """Where the answer is compared, [state]."""
    value: np.ndarray
    """V of them."""
    log_density: np.ndarray
    """log π of the actions X in each of them, [state, action]."""


def one_step(reward: Callable[[Any], Any], temperature: float) -> Problem:
    """One state, one step: V = α log ∫ exp(r/α), π = exp((r - V)/α). Actions to learn from are uniform."""

    def draw(key: jax.Array) -> Transition:
        action, zero = jax.random.uniform(key, (64, 1), minval=-1.0, maxval=1.0), jnp.zeros(64)
        obs = jnp.zeros((64, 1))
        return Transition(obs, action, reward(action[:, 0]), zero, obs, zero, zero)

    log_f = np.asarray(reward(X), float) / temperature
    value = temperature * log_integral(log_f)
    return Problem(temperature, draw, np.zeros(1), np.array([value]), log_f[None] - value / temperature)


def linear_quadratic(temperature: float) -> Problem:
    """s' = A s + B a, r = -C s² - D a², for ever, at a discount γ.

    V = -p s² + v, with p from the Riccati equation, and π(·|s) is normal around -k s: so narrow here that the box does
    not matter. States and actions to learn from are uniform.
    """
    a_, b_, c_, d_, gamma = 0.6, 0.4, 1.0, 0.5, 0.8
    p = c_
    for _ in range(1000):
        p = c_ + gamma * p * a_**2 - (gamma * p * a_ * b_) ** 2 / (d_ + gamma * p * b_**2)
    stiffness = d_ + gamma * p * b_**2
    v = temperature / 2 * np.log(np.pi * temperature / stiffness) / (1 - gamma)
    states = np.linspace(-0.9, 0.9, 7)
    mean, variance = -gamma * p * a_ * b_ / stiffness * states, temperature / (2 * stiffness)
    assert np.abs(mean).max() + 5 * variance**0.5 < 1
    log_density = -0.5 * (X - mean[:, None]) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)

    def draw(key: jax.Array) -> Transition:
        obs, action = jax.random.uniform(key, (2, 128, 1), minval=-1.0, maxval=1.0)
        reward = -c_ * obs[:, 0] ** 2 - d_ * action[:, 0] ** 2
        zero = jnp.zeros(128)
        return Transition(obs, action, reward, zero + gamma, a_ * obs + b_ * action, zero, zero)

    return Problem(temperature, draw, states, -p * states**2 + v, log_density)


def learn(algorithm: Algorithm, config: Any, updates: int, problem: Problem, seed: int = 0) -> Any:
    """The state after so many updates, each from a batch of its own."""
    static, key = without_numbers(config), jax.random.key(7 + seed, impl="unsafe_rbg")

    def one(state: Any, index: jax.Array) -> tuple[Any, None]:
        first, second = jax.random.split(jax.random.fold_in(key, index))
        return algorithm.update(static, SPEC, state, problem.draw(first), second, index)[0], None

    def run(state: Any) -> Any:
        return jax.lax.scan(one, state, jnp.arange(updates, dtype=jnp.uint32))[0]

    return jax.jit(run)(jax.jit(partial(algorithm.init, config, SPEC))(jax.random.key(seed)))


def soft_values(algorithm: Algorithm, config: Any, state: Any, problem: Problem) -> np.ndarray:
    """α log ∫ exp(Q/α) of the learned Q in the problem's states, [state]."""
    found = []
    for s in problem.states:
        obs = jnp.full((len(X), 1), s, jnp.float32)
        q = np.asarray(algorithm.q(config, SPEC, state, obs, jnp.asarray(X, jnp.float32)[:, None]), float)
        found.append(problem.temperature * log_integral(q / problem.temperature))
    return np.array(found)


def draws(algorithm: Algorithm, config: Any, state: Any, problem: Problem, count: int) -> np.ndarray:
    """So many actions of the learned policy in each of the problem's states, [state, draw]."""
    found = []
    for s in problem.states:
        obs = jnp.full((count, 1), s, jnp.float32)
        action, _, _ = algorithm.act(config, SPEC, algorithm.view(state), (), obs, jax.random.key(5), True)
        found.append(np.asarray(action)[:, 0])
    return np.array(found)


def distances(actions: np.ndarray, log_density: np.ndarray) -> tuple[float, float]:
    """Of actions to a density on X: Wasserstein, and total variation on twenty bins."""
    density = np.exp(log_density)
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(X))])
    found, edges = np.searchsorted(np.sort(actions), X) / len(actions), np.linspace(-1, 1, 21)
    shares = np.histogram(actions, edges)[0] / len(actions)
    variation = 0.5 * np.abs(shares - np.diff(np.interp(edges, X, cdf))).sum()
    return float(np.trapezoid(np.abs(found - cdf), X)), float(variation)
