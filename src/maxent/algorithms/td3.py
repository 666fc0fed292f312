"""Twin Delayed Deep Deterministic policy gradient, TD3 (Fujimoto et al. 2018, arXiv 1802.09477).

The policy is a function a = π(s) that maximises the critics' values. With y the critics' target,

    target action     ã     = clip(π̄(s') + ε, -1, 1),   ε ~ clip(N(0, σ̃²), -c, c)                   (eqs. 14, 15)
    critics           J_Q(θ) = E[ Σ_i ½ (Q_i(s, a) - y)² ],   y = r + γ min_i Q̄_i(s', ã)            (eq. 10)
    policy            J_π(φ) = -E[ Q_1(s, π(s)) ]
    targets           Q̄_i ← (1 - τ) Q̄_i + τ Q_i,   π̄ ← (1 - τ) π̄ + τ π

Each update descends J_Q; every second one then descends J_π and moves the targets (algorithm 1). Actions taken while
learning are clip(π(s) + n, -1, 1) with n ~ N(0, σ²).

The same update is DDPG (`ddpg.py`) and the deterministic ablation of SAC (`sac_deterministic.py`) with other settings.

Differs from the paper:
  - ½ in J_Q: Adam does not see it.
  - As in the authors' later code: two layers of 256 units, step sizes of 3e-4 and batches of 256, where the paper has
    400 and 300 units, 1e-3 and 100; and the critic takes the action with the observation.
  - 10,000 steps of random actions at first, the paper's number for HalfCheetah and Ant, also where it has 1,000. A
    policy with so little noise of its own finds no more than the first data show.
  - Everything that the config offers beyond its defaults: noise with a memory, targets without a slow policy, a policy
    that follows the smallest critic, n-step targets, more or fewer critics, layer and observation normalisation,
    decay, clipping.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import networks, observations, operators, optimisers
from maxent.config import TD3Config
from maxent.networks import MLP
from maxent.observations import Moments
from maxent.settings import given
from maxent.types import Algorithm, Spec, Transition, Tree

METRICS = ("critic_loss", "actor_loss", "q_mean", "q_std", "target_q_mean")


class View(NamedTuple):
    """What acting needs."""

    policy: MLP
    moments: Moments
    exploration_noise: Array


class State(NamedTuple):
    """Everything that learning changes, and the numbers it obeys."""

    policy: MLP
    target_policy: MLP | tuple[()]
    """Empty where the targets' actions are the policy's own."""
    critics: MLP
    """Every array has a leading axis [critic]."""
    target_critics: MLP
    policy_opt: Tree
    critics_opt: Tree
    actor_loss: Array
    """Of the policy's last update: what the updates without one report."""
    moments: Moments
    """Of the observations' features; used where normalize_observations is set."""
    numbers: dict[str, Array]
    """The swept settings, as float32 scalars."""


def action_of(config: TD3Config, policy: MLP, features: Array) -> Array:
    """π(s) in the box [-1, 1]^d: [batch, F] → [batch, d]."""
    return jnp.tanh(networks.mlp(policy, features, config.activation))


def target_action(config: TD3Config, state: State, features: Array, key: Array) -> Array:
    """ã (eqs. 14, 15), [batch, d]."""
    action = action_of(config, state.target_policy or state.policy, features)
    if not config.target_noise_clip:
        return action
    noise = state.numbers["target_noise"] * jax.random.normal(key, action.shape)
    return jnp.clip(action + jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip), -1.0, 1.0)


def policy_loss(config: TD3Config, policy: MLP, critics: MLP, features: Array) -> Array:
    """J_π, a mean over the batch."""
    followed = critics if config.pessimistic_policy else jax.tree.map(lambda x: x[:1], critics)
    q = networks.ensemble_q(followed, features, action_of(config, policy, features), config.activation)
    return -q.min(0).mean()


def init(config: TD3Config, spec: Spec, key: Array) -> State:
    """A fresh state; the only function that reads the config's swept numbers."""
    inputs, actions = observations.count_features(spec.obs), spec.action.shape[0]
    key_policy, key_critics = jax.random.split(key)
    policy = networks.init_mlp(key_policy, inputs, config.hidden_sizes, actions, config.layer_norm)
    critics = networks.init_ensemble(key_critics, config.critics, inputs + actions, config)
    numbers = operators.scalars(
        actor_learning_rate=given(config.actor_learning_rate, config.learning_rate),
        critic_learning_rate=given(config.critic_learning_rate, config.learning_rate),
        gamma=config.gamma,
        tau=config.tau,
        exploration_noise=config.exploration_noise,
        target_noise=config.target_noise,
    )
    adam = optimisers.Adam(config.max_grad_norm)
    return State(
        policy=policy,
        target_policy=jax.tree.map(jnp.copy, policy) if config.target_policy else (),
        critics=critics,
        target_critics=jax.tree.map(jnp.copy, critics),
        policy_opt=adam.init(policy),
        critics_opt=adam.init(critics),
        actor_loss=jnp.zeros(()),
        moments=observations.init_moments(inputs),
        numbers=numbers,
    )


def view(state: State) -> View:
    """The policy, the observation's statistics and how much to explore."""
    return View(state.policy, state.moments, state.numbers["exploration_noise"])


def initial_carry(config: TD3Config, spec: Spec, batch: tuple[int, ...]) -> Any:
    """The noise before the first step, 0: [*batch, d]; no memory where all of it is forgotten."""
    return jnp.zeros((*batch, *spec.action.shape)) if config.noise_reversion < 1 else ()


def act(
    config: TD3Config, spec: Spec, view: View, carry: Any, obs: Tree, key: Array, explore: bool
) -> tuple[Array, Any, tuple[()]]:
    """The policy's actions for observations [batch, …], with noise where it explores: n ← (1 - θ) n + σ N(0, 1)."""
    action = action_of(config, view.policy, observations.features_of(config, spec, view.moments, obs))
    if not explore:
        return action, carry, ()
    noise = view.exploration_noise * jax.random.normal(key, action.shape)
    if config.noise_reversion < 1:
        noise = carry = (1 - config.noise_reversion) * carry + noise
    return jnp.clip(action + noise, -1.0, 1.0), carry, ()


def update(
    config: TD3Config, spec: Spec, state: State, batch: Transition, key: Array, index: Array
) -> tuple[State, dict[str, Array]]:
    """One descent of the critics, and, where it is their turn, of the policy and a move of the targets."""
    numbers = state.numbers
    adam = optimisers.Adam(config.max_grad_norm)
    decay = optimisers.linear_decay(config.learning_rate_decay_updates, index)
    features = observations.features_of(config, spec, state.moments, batch.obs)
    next_features = observations.features_of(config, spec, state.moments, batch.next_obs)

    next_action = target_action(config, state, next_features, key)
    next_q = networks.ensemble_q(state.target_critics, next_features, next_action, config.activation).min(0)
    target_q = operators.bellman_target(batch.reward, batch.discount, next_q)

    (loss_q, (losses_q, q)), gradient = jax.value_and_grad(operators.critic_loss, has_aux=True)(
        state.critics, features, batch.action, target_q, config.activation
    )
    critics, critics_opt = adam.step(
        decay * numbers["critic_learning_rate"], gradient, state.critics_opt, state.critics
    )
    state = state._replace(critics=critics, critics_opt=critics_opt)

    def improve(state: State) -> State:
        loss, gradient = jax.value_and_grad(policy_loss, argnums=1)(config, state.policy, state.critics, features)
        policy, policy_opt = adam.step(decay * numbers["actor_learning_rate"], gradient, state.policy_opt, state.policy)
        return state._replace(policy=policy, policy_opt=policy_opt, actor_loss=loss)

    def move_targets(state: State) -> State:
        target_policy = state.target_policy and operators.polyak(state.target_policy, state.policy, numbers["tau"])
        target_critics = operators.polyak(state.target_critics, state.critics, numbers["tau"])
        return state._replace(target_policy=target_policy, target_critics=target_critics)

    interval = int(given(config.target_update_interval, config.policy_delay))
    state = operators.every(config.policy_delay, index, improve, state)
    state = operators.every(interval, index, move_targets, state)
    values = loss_q, state.actor_loss, q.mean(), q.std(), target_q.mean(), *losses_q
    return state, dict(zip(metrics(config), values, strict=True))


def metrics(config: TD3Config) -> tuple[str, ...]:
    """The names of what `update` reports, in its order."""
    return (*METRICS, *(f"critic_loss_{i}" for i in range(config.critics)))


TD3 = Algorithm(
    "td3", init, view, initial_carry, act, observations.follow, update, "replay", ("continuous",), metrics, operators.q
)
