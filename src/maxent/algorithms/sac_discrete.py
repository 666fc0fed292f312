"""Soft Actor-Critic for discrete actions (Christodoulou 2019, arXiv 1910.07207).

With finitely many actions every expectation over the policy is a sum: nothing is sampled but the transitions. Networks
have one output an action. With y the critics' target and H̄ a share of the largest entropy, log |A|,

    soft value        V(s')  = Σ_a π(a|s') (min_i Q̄_i(s', a) - α log π(a|s'))                      (eq. 10)
    critics           J_Q(θ) = E[ Σ_i ½ (Q_i(s, a) - y)² ],           y = r + γ V(s')               (eq. 4)
    policy            J_π(φ) = E[ Σ_a π(a|s) (α log π(a|s) - min_i Q_i(s, a)) ]                     (eq. 12)
    temperature       J(α)   = E[ Σ_a π(a|s) (-α (log π(a|s) + H̄)) ]                                (eq. 11)
    target critics    Q̄_i   ← (1 - τ) Q̄_i + τ Q_i

Each update descends them once, in this order. Several choices at once are one choice among all their combinations, so
that the sums stay exact.

Differs from the paper:
  - H̄ is 0.98 log |A| there: of two actions, neither may then have more than 58 %, and where one matters the temperature
    rises without end. Ours is 0.6 log |A|, near the entropy of a greedy policy with three random actions in ten.
  - The dual objective is stepped in log α, as in `maxent.algorithms.sac`.
  - Offered beyond it: a target without entropy (arXiv 2509.09838); the mean of the critics in place of the minimum, and
    a bound beyond which a critic gains nothing by leaving its target critic (both arXiv 2209.10081); n-step targets and
    the options that all networks share.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import networks, observations, operators, optimisers
from maxent.config import SACDiscreteConfig
from maxent.errors import ConfigError
from maxent.networks import MLP
from maxent.observations import Moments
from maxent.settings import given
from maxent.types import Algorithm, Spec, Transition, Tree, no_memory

METRICS = (
    "critic_loss", "actor_loss", "temperature_loss", "temperature", "entropy",
    "q_mean", "q_std", "target_q_mean",
)  # fmt: skip
MOST_ACTIONS = 4096
"""Combinations of choices beyond which networks with one output for each are no longer the right tool."""


class View(NamedTuple):
    """What acting needs."""

    policy: MLP
    moments: Moments


class State(NamedTuple):
    """Everything that learning changes, and the numbers it obeys."""

    policy: MLP
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


def soft_value(log_policy: Array, q: Array, temperature: Array) -> Array:
    """V(s) = Σ_a π(a|s) (Q(s, a) - α log π(a|s)) (eq. 10), [batch, actions] → [batch]."""
    return (jnp.exp(log_policy) * operators.soft_value(q, log_policy, temperature)).sum(-1)


def critic_loss(
    config: SACDiscreteConfig, critics: MLP, target_critics: MLP, features: Array, action: Array, target_q: Array
) -> tuple[Array, tuple[Array, Array]]:
    """J_Q (eq. 4) for actions [batch] by number; each critic's own, [critic], and Q, [critic, batch]."""
    q = chosen(values(config, critics, features), action)
    errors = jnp.square(q - target_q)
    if config.q_clip:
        anchor = chosen(values(config, target_critics, features), action)
        near = anchor + jnp.clip(q - anchor, -config.q_clip, config.q_clip)
        errors = jnp.maximum(errors, jnp.square(near - target_q))
    losses = 0.5 * errors.mean(-1)
    return losses.sum(), (losses, q)


def policy_loss(
    config: SACDiscreteConfig, policy: MLP, critics: MLP, temperature: Array, features: Array
) -> tuple[Array, Array]:
    """J_π (eq. 12) = -E[V(s)], a mean over the batch; and the entropy of the policy, [batch]."""
    log_policy = log_probabilities(config, policy, features)
    q = believed(config, values(config, critics, features))
    entropy = -(jnp.exp(log_policy) * log_policy).sum(-1)
    return -soft_value(log_policy, q, temperature).mean(), entropy


def temperature_loss(log_temperature: Array, entropy: Array, target_entropy: Array) -> Array:
    """The dual objective (eq. 11) in log α, with the exact entropy."""
    return log_temperature * (entropy - target_entropy).mean()


def log_probabilities(config: SACDiscreteConfig, policy: MLP, features: Array) -> Array:
    """log π(a|s), [batch, F] → [batch, actions]."""
    return jax.nn.log_softmax(networks.mlp(policy, features, config.activation))


def values(config: SACDiscreteConfig, critics: MLP, features: Array) -> Array:
    """Q_i(s, ·) of every critic, [batch, F] → [critic, batch, actions]."""
    return jax.vmap(networks.mlp, (0, None, None))(critics, features, config.activation)


def chosen(q: Array, action: Array) -> Array:
    """The values of one action each, by number: [critic, batch, actions], [batch] → [critic, batch]."""
    return (q * jax.nn.one_hot(action, q.shape[-1], dtype=q.dtype)).sum(-1)


def believed(config: SACDiscreteConfig, q: Array) -> Array:
    """One value of what the critics say, [critic, …] → […]."""
    return q.mean(0) if config.average_critics else q.min(0)


def count_actions(spec: Spec) -> int:
    """|A|: the actions of an environment, or all combinations of its choices."""
    count = math.prod(spec.action.categories)
    if count > MOST_ACTIONS:
        raise ConfigError(
            f"the action space has {count:,} combinations of choices and sac_discrete gives each an output of its own, "
            f"up to {MOST_ACTIONS:,}: wrap the environment so that it offers fewer"
        )
    return count


def number_of(spec: Spec, action: Array) -> Array:
    """The number of each action among all combinations, in C order: [batch] or [batch, k] → [batch]."""
    columns = action.reshape(len(action), -1).T
    return jnp.ravel_multi_index(tuple(columns), spec.action.categories, mode="clip")


def action_of(spec: Spec, number: Array) -> Array:
    """The inverse of `number_of`: int32, [batch] → [batch] or [batch, k]."""
    columns = jnp.unravel_index(number, spec.action.categories)
    return jnp.stack(columns, -1).astype(jnp.int32).reshape(-1, *spec.action.shape)


def init(config: SACDiscreteConfig, spec: Spec, key: Array) -> State:
    """A fresh state; the only function that reads the config's swept numbers."""
    inputs, actions = observations.count_features(spec.obs), count_actions(spec)
    key_policy, key_critics = jax.random.split(key)
    policy = networks.init_mlp(key_policy, inputs, config.hidden_sizes, actions, config.layer_norm)
    critics = networks.init_ensemble(key_critics, config.critics, inputs, config, actions)
    numbers = operators.scalars(
        actor_learning_rate=given(config.actor_learning_rate, config.learning_rate),
        critic_learning_rate=given(config.critic_learning_rate, config.learning_rate),
        temperature_learning_rate=given(config.temperature_learning_rate, config.learning_rate),
        gamma=config.gamma,
        tau=config.tau,
        target_entropy=config.target_entropy_ratio * math.log(actions),
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


def view(state: State) -> View:
    """The policy and the observation's statistics."""
    return View(state.policy, state.moments)


def act(
    config: SACDiscreteConfig, spec: Spec, view: View, carry: tuple[()], obs: Tree, key: Array, explore: bool
) -> tuple[Array, tuple[()], tuple[()]]:
    """A sample of the policy, or its likeliest action, for observations [batch, …]."""
    features = observations.features_of(config, spec, view.moments, obs)
    log_policy = log_probabilities(config, view.policy, features)
    number = jax.random.categorical(key, log_policy) if explore else log_policy.argmax(-1)
    return action_of(spec, number), carry, ()


def update(
    config: SACDiscreteConfig, spec: Spec, state: State, batch: Transition, key: Array, index: Array
) -> tuple[State, dict[str, Array]]:
    """One descent of each objective, in the order of the docstring above; no random number is drawn."""
    numbers = state.numbers
    adam = optimisers.Adam(config.max_grad_norm)
    decay = optimisers.linear_decay(config.learning_rate_decay_updates, index)
    features = observations.features_of(config, spec, state.moments, batch.obs)
    next_features = observations.features_of(config, spec, state.moments, batch.next_obs)
    temperature = jnp.exp(state.log_temperature)

    next_log_policy = log_probabilities(config, state.policy, next_features)
    next_q = believed(config, values(config, state.target_critics, next_features))
    next_value = soft_value(next_log_policy, next_q, temperature * config.entropy_in_target)
    target_q = operators.bellman_target(batch.reward, batch.discount, next_value)

    (loss_q, (losses_q, q)), gradient = jax.value_and_grad(critic_loss, argnums=1, has_aux=True)(
        config, state.critics, state.target_critics, features, number_of(spec, batch.action), target_q
    )
    critics, critics_opt = adam.step(
        decay * numbers["critic_learning_rate"], gradient, state.critics_opt, state.critics
    )

    (loss_policy, entropy), gradient = jax.value_and_grad(policy_loss, argnums=1, has_aux=True)(
        config, state.policy, critics, temperature, features
    )
    policy, policy_opt = adam.step(decay * numbers["actor_learning_rate"], gradient, state.policy_opt, state.policy)

    log_temperature, temperature_opt, loss_temperature = state.log_temperature, state.temperature_opt, jnp.zeros(())
    if config.temperature == "auto":
        loss_temperature, gradient = jax.value_and_grad(temperature_loss)(
            log_temperature, entropy, numbers["target_entropy"]
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
    measured = (
        loss_q, loss_policy, loss_temperature, temperature, entropy.mean(),
        q.mean(), q.std(), target_q.mean(), *losses_q,
    )  # fmt: skip
    return state, dict(zip(metrics(config), measured, strict=True))


def metrics(config: SACDiscreteConfig) -> tuple[str, ...]:
    """The names of what `update` reports, in its order."""
    return (*METRICS, *(f"critic_loss_{i}" for i in range(config.critics)))


SAC_DISCRETE = Algorithm(
    "sac_discrete", init, view, no_memory, act, observations.follow, update, "replay", ("discrete",), metrics
)
