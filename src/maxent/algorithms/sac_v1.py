"""Soft Actor-Critic with a value network (Haarnoja et al. 2018, arXiv 1801.01290), the first of the two SAC papers.

The policy maximises scaled reward and entropy, J(π) = Σ_t E[ c r(s_t, a_t) + H(π(·|s_t)) ]                    (eq. 1)

    value             J_V(ψ) = E[ ½ (V(s) - min_i Q_i(s, a) + log π(a|s))² ],   a ~ π(·|s)          (eqs. 3, 5)
    critics           J_Q(θ) = E[ Σ_i ½ (Q_i(s, a) - y)² ],          y = c r + γ V̄(s')              (eqs. 7, 8)
    policy            J_π(φ) = E[ log π(a|s) - min_i Q_i(s, a) ],    a = tanh(μ(s) + σ(s) ε)        (eqs. 11, 12)
    target value      V̄ ← (1 - τ) V̄ + τ V

Each update descends them once, in this order (algorithm 1), with gradients by automatic differentiation (eqs. 6, 9,
13); a ~ π is drawn afresh for V and for the policy. The temperature is 1 and the reward scale c takes its place: with
1/c times the reward's and c times the entropy's unit, the same policy is the best of SAC at the temperature 1/c, and
every value here is c times the value there.

Differs from the paper:
  - c is 5 by default, the paper's for Hopper, Walker2d, HalfCheetah and Ant (20 for Humanoid, 10 for rllab's): it has
    to be tuned to the task, which is why the second paper learns a temperature instead.
  - The authors' code draws one action for V and the policy together, and takes all gradients before any step. Its
    policy follows the first critic; the smallest of both serves V alone.
  - The authors' code adds 0.001 times the means over batch and action of ½ μ² and ½ log² σ to J_π, which the paper
    leaves out: `regularization = 0.001`. It begins with 10,000 random actions on HalfCheetah and Ant, else with 1,000.
  - Everything that the config offers beyond its defaults: n-step targets, more or fewer critics, layer and observation
    normalisation, decay, clipping.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import distributions, networks, observations, operators, optimisers
from maxent.algorithms.sac import act, mean_and_log_std, view
from maxent.config import SACV1Config
from maxent.networks import MLP, Gaussian
from maxent.observations import Moments
from maxent.settings import given
from maxent.types import Algorithm, Spec, Transition, Tree, no_memory

METRICS = (
    "critic_loss", "value_loss", "actor_loss", "entropy", "q_mean", "q_std", "target_q_mean", "value_mean",
)  # fmt: skip


class State(NamedTuple):
    """Everything that learning changes, and the numbers it obeys."""

    policy: Gaussian
    critics: MLP
    """Every array has a leading axis [critic]."""
    value: MLP
    target_value: MLP
    policy_opt: Tree
    critics_opt: Tree
    value_opt: Tree
    moments: Moments
    """Of the observations' features; used where normalize_observations is set."""
    numbers: dict[str, Array]
    """The swept settings, as float32 scalars."""


def value_loss(config: SACV1Config, value: MLP, features: Array, target: Array) -> tuple[Array, Array]:
    """J_V (eq. 5), a mean over the batch; and V(s), [batch]."""
    v = value_of(config, value, features)
    return 0.5 * jnp.square(v - target).mean(), v


def policy_loss(
    config: SACV1Config, policy: Gaussian, critics: MLP, regularization: Array, features: Array, key: Array
) -> tuple[Array, Array]:
    """J_π (eq. 12) with its regularisation, a mean over the batch; and log π of the sampled actions, [batch]."""
    mean, log_std = mean_and_log_std(config, policy, features)
    action, log_prob = distributions.tanh_normal_sample(mean, log_std, key)
    q = networks.ensemble_q(critics, features, action, config.activation).min(0)
    penalty = 0.5 * (jnp.square(mean) + jnp.square(log_std)).mean()
    return (log_prob - q).mean() + regularization * penalty, log_prob


def value_of(config: SACV1Config, value: MLP, features: Array) -> Array:
    """V(s), [batch]."""
    return networks.mlp(value, features, config.activation)[..., 0]


def init(config: SACV1Config, spec: Spec, key: Array) -> State:
    """A fresh state; the only function that reads the config's swept numbers."""
    inputs, actions = observations.count_features(spec.obs), spec.action.shape[0]
    key_policy, key_critics, key_value = jax.random.split(key, 3)
    policy = networks.init_gaussian(key_policy, inputs, actions, config, state_dependent=True)
    critics = networks.init_ensemble(key_critics, config.critics, inputs + actions, config)
    value = networks.init_mlp(key_value, inputs, config.hidden_sizes, 1, config.layer_norm)
    numbers = operators.scalars(
        actor_learning_rate=given(config.actor_learning_rate, config.learning_rate),
        critic_learning_rate=given(config.critic_learning_rate, config.learning_rate),
        value_learning_rate=given(config.value_learning_rate, config.learning_rate),
        gamma=config.gamma,
        tau=config.tau,
        reward_scale=config.reward_scale,
        regularization=config.regularization,
    )
    adam = optimisers.Adam(config.max_grad_norm)
    return State(
        policy=policy,
        critics=critics,
        value=value,
        target_value=jax.tree.map(jnp.copy, value),
        policy_opt=adam.init(policy),
        critics_opt=adam.init(critics),
        value_opt=adam.init(value),
        moments=observations.init_moments(inputs),
        numbers=numbers,
    )


def update(
    config: SACV1Config, spec: Spec, state: State, batch: Transition, key: Array, index: Array
) -> tuple[State, dict[str, Array]]:
    """One descent of each objective, in the order of the docstring above."""
    key_value, key_policy = jax.random.split(key)
    numbers = state.numbers
    adam = optimisers.Adam(config.max_grad_norm)
    decay = optimisers.linear_decay(config.learning_rate_decay_updates, index)
    features = observations.features_of(config, spec, state.moments, batch.obs)
    next_features = observations.features_of(config, spec, state.moments, batch.next_obs)

    action, log_prob = distributions.tanh_normal_sample(*mean_and_log_std(config, state.policy, features), key_value)
    q = networks.ensemble_q(state.critics, features, action, config.activation).min(0)
    (loss_value, v), gradient = jax.value_and_grad(value_loss, argnums=1, has_aux=True)(
        config, state.value, features, q - log_prob
    )
    value, value_opt = adam.step(decay * numbers["value_learning_rate"], gradient, state.value_opt, state.value)

    next_value = value_of(config, state.target_value, next_features)
    target_q = operators.bellman_target(numbers["reward_scale"] * batch.reward, batch.discount, next_value)
    (loss_q, (losses_q, q)), gradient = jax.value_and_grad(operators.critic_loss, has_aux=True)(
        state.critics, features, batch.action, target_q, config.activation
    )
    critics, critics_opt = adam.step(
        decay * numbers["critic_learning_rate"], gradient, state.critics_opt, state.critics
    )

    (loss_policy, log_prob), gradient = jax.value_and_grad(policy_loss, argnums=1, has_aux=True)(
        config, state.policy, critics, numbers["regularization"], features, key_policy
    )
    policy, policy_opt = adam.step(decay * numbers["actor_learning_rate"], gradient, state.policy_opt, state.policy)

    def move_target(target: MLP) -> MLP:
        return operators.polyak(target, value, numbers["tau"])

    state = state._replace(
        policy=policy,
        critics=critics,
        value=value,
        target_value=operators.every(config.target_update_interval, index, move_target, state.target_value),
        policy_opt=policy_opt,
        critics_opt=critics_opt,
        value_opt=value_opt,
    )
    values = (
        loss_q, loss_value, loss_policy, -log_prob.mean(), q.mean(), q.std(), target_q.mean(), v.mean(), *losses_q,
    )  # fmt: skip
    return state, dict(zip(metrics(config), values, strict=True))


def metrics(config: SACV1Config) -> tuple[str, ...]:
    """The names of what `update` reports, in its order."""
    return (*METRICS, *(f"critic_loss_{i}" for i in range(config.critics)))


def q(config: SACV1Config, spec: Spec, state: State, obs: Tree, action: Array) -> Array:
    """What the critics believe in units of reward, which they learn times c: [batch]."""
    return operators.q(config, spec, state, obs, action) / state.numbers["reward_scale"]


SAC_V1 = Algorithm(
    "sac_v1", init, view, no_memory, act, observations.follow, update, "replay", ("continuous",), metrics, q
)
