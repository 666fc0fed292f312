"""Soft Q-learning with a sampler trained by Stein's method (Haarnoja et al. 2017, arXiv 1702.08165).

The policy that maximises reward and entropy has its critic for an energy, π(a|s) ∝ exp(Q(s, a)/α). A critic learns that
Q, and a sampler a = tanh(f(s, ξ)), ξ ~ N(0, 1), learns to draw from it. With Q̄ the target critic,

    soft value    V(s')  = α log E_q[ exp(Q̄(s', a')/α) / q(a') ],   a' ~ q                           (eq. 10)
    critic        J_Q(θ) = E[ ½ (Q(s, a) - y)² ],   y = r + γ V(s')                                   (eq. 11)
    sampler       ∂J_π/∂φ ∝ -E_ξ[ Δ(f(s, ξ)) ∂f(s, ξ)/∂φ ]                                            (eq. 14)
      along       Δ(u)   = E_u'[ κ(u', u) ∇ log p(u') + ∇_u' κ(u', u) ],   u' = f(s, ξ')              (eq. 13 over α)
      towards     log p(u) = Q(s, tanh u)/α + Σ log(1 - tanh² u)
    target        Q̄     ← Q, once in a thousand updates

Each update descends critic and sampler once, in this order. The expectations are means over particles: those u' that
stay where they are and the u that are moved are drawn apart from each other (appendix C.1), so that they do not see
themselves.

Differs from the paper:
  - Particles live before the squashing, where p has the factor |∂tanh u/∂u|. On the box itself the second term of Δ
    presses particles against the walls, since κ p does not vanish there. The authors' code compares and moves them on
    the box and has that factor all the same: kernel_space = "action", which aims at exp(Q/α) Π(1 - a²).
  - Actions explore by themselves; the paper adds Ornstein-Uhlenbeck noise to them, the authors' code does not.
  - The sampler's density, where policy_proposal_after asks for it, is p(ξ)/|det ∂a/∂ξ| (appendix C.2). That is exact
    where each action comes from one ξ; with N(a) of them, V becomes α log ∫ N(a) exp(Q(s, a)/α) da.
  - A deterministic action, of which the paper has none, is the best by Q of those from fixed noise.
  - Fewer particles than the paper's 50 and 2 × 32 (as in the authors' code), and everything that the config offers
    beyond: several critics, n-step targets, Polyak averaging, normalisation, decay, clipping.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import distributions, networks, observations, operators, optimisers, svgd
from maxent.config import SQLConfig
from maxent.networks import MLP
from maxent.observations import Moments
from maxent.settings import given
from maxent.types import Algorithm, Spec, Transition, Tree, no_memory

METRICS = (
    "critic_loss", "q_mean", "q_std", "target_q_mean", "value_efficiency",
    "svgd_norm", "bandwidth", "action_std", "temperature",
)  # fmt: skip
LEAST_LOG_DET = -20.0
"""Where the sampler folds or stands still, |det ∂a/∂ξ| is 0: such an action weighs next to nothing, but not nothing."""
EPSILON = 1e-6
"""Within the logarithm of 1 - a², in the form that the authors' code has."""


class View(NamedTuple):
    """What acting needs: to evaluate, the critics too."""

    sampler: MLP
    critics: MLP
    greedy_noise: Array
    moments: Moments


class State(NamedTuple):
    """Everything that learning changes, and the numbers it obeys."""

    sampler: MLP
    """(features, ξ) → u, both ξ and u of the action's size."""
    critics: MLP
    """Every array has a leading axis [critic]."""
    target_critics: MLP
    sampler_opt: Tree
    critics_opt: Tree
    greedy_noise: Array
    """The fixed ξ among which a deterministic action is looked for, [particle, d]."""
    moments: Moments
    """Of the observations' features; used where normalize_observations is set."""
    numbers: dict[str, Array]
    """The swept settings, as float32 scalars."""


def sample(config: SQLConfig, sampler: MLP, features: Array, noise: Array) -> Array:
    """u = f(s, ξ): features [batch, F] and noise [batch, particle, d] → [batch, particle, d]."""
    tiled = jnp.broadcast_to(features[:, None], (*noise.shape[:2], features.shape[-1]))
    return networks.mlp(sampler, jnp.concatenate([tiled, noise], -1), config.activation)


def particle_q(config: SQLConfig, critics: MLP, features: Array, action: Array) -> Array:
    """The smallest critic's value of each action [batch, particle, d] in its state [batch, F]: [batch, particle]."""
    tiled = jnp.broadcast_to(features[:, None], (*action.shape[:2], features.shape[-1]))
    return networks.ensemble_q(critics, tiled, action, config.activation).min(0)


def soft_value(q: Array, log_density: Array, temperature: Array) -> tuple[Array, Array]:
    """V = α log 1/K Σ exp(Q/α) / q(a) (eq. 10), [batch], of values and their actions' log q(a), both [batch, K].

    Beside it the share of the K actions that count, 1/K (Σ w)² / Σ w²: 1/K where one outweighs all others.
    """
    log_weight = q / temperature - log_density
    log_sum, log_count = jax.nn.logsumexp(log_weight, -1), jnp.log(q.shape[-1])
    log_efficiency = 2 * log_sum - jax.nn.logsumexp(2 * log_weight, -1) - log_count
    return temperature * (log_sum - log_count), jnp.exp(log_efficiency)


def propose_uniform(config: SQLConfig, sampler: MLP, features: Array, key: Array) -> tuple[Array, Array]:
    """Actions [batch, particle, d], uniform over the box, and their log-density: the logarithm of 1 over its volume."""
    shape = (len(features), config.value_particles, len(sampler.layers[-1].bias))
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0), jnp.full(shape[:2], -shape[2] * math.log(2.0))


def propose_from_sampler(config: SQLConfig, sampler: MLP, features: Array, key: Array) -> tuple[Array, Array]:
    """The sampler's actions [batch, particle, d], and log p(ξ) - log |det ∂a/∂ξ| (appendix C.2)."""
    noise = jax.random.normal(key, (len(features), config.value_particles, len(sampler.layers[-1].bias)))
    pre_tanh, pull_back = jax.vjp(lambda noise: sample(config, sampler, features, noise), noise)
    # No particle depends on another's noise: what one coordinate of all pulls back is a row of every Jacobian.
    coordinates = jnp.eye(noise.shape[-1])[:, None, None]
    (rows,) = jax.vmap(pull_back)(jnp.broadcast_to(coordinates, (len(coordinates), *noise.shape)))
    jacobian = jnp.moveaxis(rows, 0, -2)
    log_det = jnp.linalg.slogdet(jacobian)[1] + distributions.tanh_log_jacobian(pre_tanh)
    log_normal = jax.scipy.stats.norm.logpdf(noise).sum(-1)
    return jnp.tanh(pre_tanh), log_normal - jnp.maximum(log_det, LEAST_LOG_DET)


def log_target(config: SQLConfig, critics: MLP, features: Array, particles: Array, temperature: Array) -> Array:
    """The sum over all particles [batch, particle, d] of log p, up to a constant: its gradient is every ∇ log p."""
    if config.kernel_space == "pre_tanh":
        action, squashing = jnp.tanh(particles), distributions.tanh_log_jacobian(particles)
    else:
        action, squashing = particles, jnp.log(1 - jnp.square(particles) + EPSILON).sum(-1)
    return (particle_q(config, critics, features, action) / temperature + squashing).sum()


def sampler_loss(
    config: SQLConfig, sampler: MLP, critics: MLP, temperature: Array, features: Array, noise: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """A loss whose gradient is that of eq. 14; Δ, the bandwidths [batch] and the fixed particles."""
    squash = jnp.tanh if config.kernel_space == "action" else lambda x: x
    updated = squash(sample(config, sampler, features, noise[:, : config.updated_particles]))
    fixed = squash(sample(config, jax.lax.stop_gradient(sampler), features, noise[:, config.updated_particles :]))
    at = jax.lax.stop_gradient(updated)
    score = jax.grad(log_target, argnums=3)(config, critics, features, fixed, temperature)
    bandwidth = jax.vmap(svgd.median_bandwidth, (0, None))(fixed, config.kernel_scale)
    delta = jax.lax.stop_gradient(jax.vmap(svgd.direction)(fixed, score, at, bandwidth))
    return -(delta * updated).sum(-1).mean(), (delta, bandwidth, fixed)


def init(config: SQLConfig, spec: Spec, key: Array) -> State:
    """A fresh state; the only function that reads the config's swept numbers."""
    inputs, actions = observations.count_features(spec.obs), spec.action.shape[0]
    key_sampler, key_critics, key_noise = jax.random.split(key, 3)
    sampler = networks.init_mlp(key_sampler, inputs + actions, config.hidden_sizes, actions, config.layer_norm)
    critics = networks.init_ensemble(key_critics, config.critics, inputs + actions, config)
    numbers = operators.scalars(
        sampler_learning_rate=given(config.sampler_learning_rate, config.learning_rate),
        critic_learning_rate=given(config.critic_learning_rate, config.learning_rate),
        gamma=config.gamma,
        tau=config.tau,
        temperature=config.temperature,
    )
    adam = optimisers.Adam(config.max_grad_norm)
    return State(
        sampler=sampler,
        critics=critics,
        target_critics=jax.tree.map(jnp.copy, critics),
        sampler_opt=adam.init(sampler),
        critics_opt=adam.init(critics),
        greedy_noise=jax.random.normal(key_noise, (config.greedy_particles, actions)),
        moments=observations.init_moments(inputs),
        numbers=numbers,
    )


def view(state: State) -> View:
    """The sampler, the critics and the observation's statistics."""
    return View(state.sampler, state.critics, state.greedy_noise, state.moments)


def act(
    config: SQLConfig, spec: Spec, view: View, carry: tuple[()], obs: Tree, key: Array, explore: bool
) -> tuple[Array, tuple[()], tuple[()]]:
    """A draw of the sampler, or the best of those from fixed noise, for observations [batch, …]."""
    features = observations.features_of(config, spec, view.moments, obs)
    batch, (particles, d) = len(features), view.greedy_noise.shape
    if explore:
        noise = jax.random.normal(key, (batch, 1, d))
        return jnp.tanh(sample(config, view.sampler, features, noise))[:, 0], carry, ()
    noise = jnp.broadcast_to(view.greedy_noise, (batch, particles, d))
    action = jnp.tanh(sample(config, view.sampler, features, noise))
    best = particle_q(config, view.critics, features, action).argmax(-1)
    return jnp.take_along_axis(action, best[:, None, None], 1)[:, 0], carry, ()


def update(
    config: SQLConfig, spec: Spec, state: State, batch: Transition, key: Array, index: Array
) -> tuple[State, dict[str, Array]]:
    """One descent of each objective, in the order of the docstring above."""
    key_value, key_sampler = jax.random.split(key)
    numbers, temperature = state.numbers, state.numbers["temperature"]
    adam = optimisers.Adam(config.max_grad_norm)
    decay = optimisers.linear_decay(config.learning_rate_decay_updates, index)
    decay *= optimisers.step_decay(config.learning_rate_steps, config.learning_rate_factor, index)
    features = observations.features_of(config, spec, state.moments, batch.obs)
    next_features = observations.features_of(config, spec, state.moments, batch.next_obs)
    size, d = batch.action.shape

    proposal = (config, state.sampler, next_features, key_value)
    if config.policy_proposal_after == "never":
        next_action, log_density = propose_uniform(*proposal)
    else:
        next_action, log_density = jax.lax.cond(
            index < config.policy_proposal_after,
            lambda: propose_uniform(*proposal),
            lambda: propose_from_sampler(*proposal),
        )
    next_q = particle_q(config, state.target_critics, next_features, next_action)
    next_value, efficiency = soft_value(next_q, log_density, temperature)
    target_q = operators.bellman_target(batch.reward, batch.discount, next_value)

    (loss_q, (losses_q, q)), gradient = jax.value_and_grad(operators.critic_loss, has_aux=True)(
        state.critics, features, batch.action, target_q, config.activation
    )
    critics, critics_opt = adam.step(
        decay * numbers["critic_learning_rate"], gradient, state.critics_opt, state.critics
    )

    noise = jax.random.normal(key_sampler, (size, config.kernel_particles, d))
    gradient, (delta, bandwidth, particles) = jax.grad(sampler_loss, argnums=1, has_aux=True)(
        config, state.sampler, critics, temperature, features, noise
    )
    sampler, sampler_opt = adam.step(
        decay * numbers["sampler_learning_rate"], gradient, state.sampler_opt, state.sampler
    )

    target_critics = jax.lax.cond(
        (index + 1) % config.target_update_interval == 0,
        lambda: operators.polyak(state.target_critics, critics, numbers["tau"]),
        lambda: state.target_critics,
    )
    state = state._replace(
        sampler=sampler,
        critics=critics,
        target_critics=target_critics,
        sampler_opt=sampler_opt,
        critics_opt=critics_opt,
    )
    action = jnp.tanh(particles) if config.kernel_space == "pre_tanh" else particles
    values = (
        loss_q, q.mean(), q.std(), target_q.mean(), efficiency.mean(),
        jnp.linalg.norm(delta, axis=-1).mean(), bandwidth.mean(), action.std(1).mean(), temperature, *losses_q,
    )  # fmt: skip
    return state, dict(zip(metrics(config), values, strict=True))


def metrics(config: SQLConfig) -> tuple[str, ...]:
    """The names of what `update` reports, in its order."""
    return (*METRICS, *(f"critic_loss_{i}" for i in range(config.critics)))


SQL = Algorithm(
    "sql", init, view, no_memory, act, observations.follow, update, "replay", ("continuous",), metrics, operators.q
)
