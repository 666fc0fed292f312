"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905).

The policy maximises reward and entropy, J(π) = Σ_t E[ r(s_t, a_t) + α H(π(·|s_t)) ]. With y the critics' target,

    soft value        V(s')  = min_i Q̄_i(s', a') - α log π(a'|s'),   a' ~ π(·|s')                  (eq. 3)
    critics           J_Q(θ) = E[ Σ_i ½ (Q_i(s, a) - y)² ],           y = r + γ V(s')               (eq. 5)
    policy            J_π(φ) = E[ α log π(a|s) - min_i Q_i(s, a) ],   a = tanh(μ(s) + σ(s) ε)       (eq. 9)
    temperature       J(α)   = E[ -α (log π(a|s) + H̄) ]                                             (eq. 18)
    target critics    Q̄_i   ← (1 - τ) Q̄_i + τ Q_i

Each update descends them once, in this order.

Differs from the paper:
  - The dual objective is stepped in log α with the gradient of -log α (log π + H̄), as the authors' code did: α stays
    positive, and the speed at which it moves does not shrink with α. (eq. 18 has α itself; its gradient in log α is
    α times ours, which Adam's scaling nearly cancels.)
  - Everything that the config offers beyond its defaults: n-step targets, more or fewer critics, layer normalisation,
    observation normalisation, decay, clipping, and a standard deviation that does not depend on the state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import distributions, networks, observations, operators, optimisers
from maxent.config import SACConfig, SquashedGaussianConfig
from maxent.networks import MLP, Gaussian
from maxent.observations import Moments
from maxent.settings import given
from maxent.types import Algorithm, Spec, Transition, Tree, no_memory

METRICS = (
    "critic_loss", "actor_loss", "temperature_loss", "temperature", "entropy",
    "q_mean", "q_std", "target_q_mean",
)  # fmt: skip


class View(NamedTuple):
    """What acting needs."""

    policy: Gaussian
    moments: Moments


class State(NamedTuple):
    """Everything that learning changes, and the numbers it obeys."""

    policy: Gaussian
    critics: MLP
    """Every array has a leading axis [critic]."""
    target_critics: MLP
    log_temperature: Array
    policy_opt: Tree
    critics_opt: Tree
    temperature_opt: Tree
    moments: Moments
    """Of the observations' features; used where normalize_observations is set."""
    numbers: dict[str, Array]
    """The swept settings, as float32 scalars."""


def policy_loss(
    config: SACConfig, policy: Gaussian, critics: MLP, temperature: Array, features: Array, key: Array
) -> tuple[Array, Array]:
    """J_π (eq. 9), a mean over the batch; and log π of the sampled actions, [batch]."""
    action, log_prob = distributions.tanh_normal_sample(*mean_and_log_std(config, policy, features), key)
    q = networks.ensemble_q(critics, features, action, config.activation).min(0)
    return (temperature * log_prob - q).mean(), log_prob


def temperature_loss(log_temperature: Array, log_prob: Array, target_entropy: Array) -> Array:
    """The dual objective (eq. 18) in log α."""
    return -log_temperature * (log_prob + target_entropy).mean()


def mean_and_log_std(config: SquashedGaussianConfig, policy: Gaussian, features: Array) -> tuple[Array, Array]:
    """μ and log σ before squashing, both [batch, d]."""
    mean, log_std = networks.gaussian(policy, features, config.activation)
    return mean, jnp.clip(log_std, config.log_std_min, config.log_std_max)


def init(config: SACConfig, spec: Spec, key: Array) -> State:
    """A fresh state; the only function that reads the config's swept numbers."""
    inputs, actions = observations.count_features(spec.obs), spec.action.shape[0]
    key_policy, key_critics = jax.random.split(key)
    policy = networks.init_gaussian(key_policy, inputs, actions, config, config.state_dependent_std)
    critics = networks.init_ensemble(key_critics, config.critics, inputs + actions, config)
    numbers = operators.scalars(
        actor_learning_rate=given(config.actor_learning_rate, config.learning_rate),
        critic_learning_rate=given(config.critic_learning_rate, config.learning_rate),
        temperature_learning_rate=given(config.temperature_learning_rate, config.learning_rate),
        gamma=config.gamma,
        tau=config.tau,
        target_entropy=given(config.target_entropy, -float(actions)),
    )
    log_temperature = jnp.log(jnp.asarray(given(config.temperature, config.initial_temperature), jnp.float32))
    adam = optimisers.Adam(config.max_grad_norm)
    return State(
        policy=policy,
        critics=critics,
        target_critics=jax.tree.map(jnp.copy, critics),
        log_temperature=log_temperature,
        policy_opt=adam.init(policy),
        critics_opt=adam.init(critics),
        temperature_opt=adam.init(log_temperature),
        moments=observations.init_moments(inputs),
        numbers=numbers,
    )


def view(state: Any) -> View:
    """The policy and the observation's statistics, of a state that has both."""
    return View(state.policy, state.moments)


def act(
    config: SquashedGaussianConfig, spec: Spec, view: View, carry: tuple[()], obs: Tree, key: Array, explore: bool
) -> tuple[Array, tuple[()], tuple[()]]:
    """A sample of the policy, or its mean action, for observations [batch, …]."""
    features = observations.features_of(config, spec, view.moments, obs)
    mean, log_std = mean_and_log_std(config, view.policy, features)
    action = distributions.tanh_normal_sample(mean, log_std, key)[0] if explore else jnp.tanh(mean)
    return action, carry, ()


def update(
    config: SACConfig, spec: Spec, state: State, batch: Transition, key: Array, index: Array
) -> tuple[State, dict[str, Array]]:
    """One descent of each objective, in the order of the docstring above."""
    key_target, key_policy = jax.random.split(key)
    numbers = state.numbers
    adam = optimisers.Adam(config.max_grad_norm)
    decay = optimisers.linear_decay(config.learning_rate_decay_updates, index)
    features = observations.features_of(config, spec, state.moments, batch.obs)
    next_features = observations.features_of(config, spec, state.moments, batch.next_obs)
    temperature = jnp.exp(state.log_temperature)

    next_action, next_log_prob = distributions.tanh_normal_sample(
        *mean_and_log_std(config, state.policy, next_features), key_target
    )
    next_q = networks.ensemble_q(state.target_critics, next_features, next_action, config.activation).min(0)
    next_value = operators.soft_value(next_q, next_log_prob, temperature)
    target_q = operators.bellman_target(batch.reward, batch.discount, next_value)

    (loss_q, (losses_q, q)), gradient = jax.value_and_grad(operators.critic_loss, has_aux=True)(
        state.critics, features, batch.action, target_q, config.activation
    )
    critics, critics_opt = adam.step(
        decay * numbers["critic_learning_rate"], gradient, state.critics_opt, state.critics
    )

    (loss_policy, log_prob), gradient = jax.value_and_grad(policy_loss, argnums=1, has_aux=True)(
        config, state.policy, critics, temperature, features, key_policy
    )
    policy, policy_opt = adam.step(decay * numbers["actor_learning_rate"], gradient, state.policy_opt, state.policy)

    log_temperature, temperature_opt, loss_temperature = state.log_temperature, state.temperature_opt, jnp.zeros(())
    if config.temperature == "auto":
        loss_temperature, gradient = jax.value_and_grad(temperature_loss)(
            log_temperature, log_prob, numbers["target_entropy"]
        )
        log_temperature, temperature_opt = adam.step(
            decay * numbers["temperature_learning_rate"], gradient, temperature_opt, log_temperature
        )

    state = state._replace(
        policy=policy,
        critics=critics,
        target_critics=operators.polyak(state.target_critics, critics, numbers["tau"]),
        log_temperature=log_temperature,
        policy_opt=policy_opt,
        critics_opt=critics_opt,
        temperature_opt=temperature_opt,
    )
    values = (
        loss_q, loss_policy, loss_temperature, temperature, -log_prob.mean(),
        q.mean(), q.std(), target_q.mean(), *losses_q,
    )  # fmt: skip
    return state, dict(zip(metrics(config), values, strict=True))


def metrics(config: SACConfig) -> tuple[str, ...]:
    """The names of what `update` reports, in its order."""
    return (*METRICS, *(f"critic_loss_{i}" for i in range(config.critics)))


SAC = Algorithm(
    "sac", init, view, no_memory, act, observations.follow, update, "replay", ("continuous",), metrics, operators.q
)
