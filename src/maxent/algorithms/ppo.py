"""Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347).

A rollout of the policy π_old is learned from several times over, in shuffled minibatches. With δ_t = r_t + γ V(s_{t+1})
- V(s_t) and ρ_t = π(a_t|s_t) / π_old(a_t|s_t),

    advantage     Â_t = Σ_l (γλ)^l δ_{t+l}, up to where the episode is cut                   (eq. 11; arXiv 1506.02438)
    policy        L^CLIP = E[ min(ρ_t Â_t, clip(ρ_t, 1 - ε, 1 + ε) Â_t) ]                    (eq. 7)
    value         L^VF = E[ ½ (V(s_t) - R_t)² ],   R_t = V_old(s_t) + Â_t
    objective     L^CLIP - c₁ L^VF + c₂ E[ entropy of π ]                                    (eq. 9)

The policy is a Gaussian whose standard deviation does not depend on the state, or a choice among actions; V is a
network of its own.

Differs from the paper:
  - A time limit is no end: V of the true last observation is bootstrapped from.
  - Numbers: an action is a Gaussian sample cut to the box [-1, 1]^d where the environment takes it; its probability is
    the uncut sample's, as in the published results.
  - Advantages have mean 0 and variance 1 in each minibatch, layers start orthogonal, Adam's ε is 1e-5, gradients are
    cut to a norm: the habits of the authors' code (arXiv 2005.12729 measures how much they matter).
  - The standard deviation starts at ½, as arXiv 2006.05990 advises, not at 1, of which the box would cut off a third.
  - V predicts returns shifted and scaled by their running moments (arXiv 1602.07714 without its correction of the last
    layer), so that the step size need not follow the reward's scale; the authors' code scales rewards instead.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import networks, observations, operators, optimisers
from maxent.config import PPOConfig
from maxent.distributions import Categorical, Normal
from maxent.networks import MLP, Gaussian
from maxent.observations import Moments
from maxent.types import Algorithm, Spec, Transition, Tree, no_memory

METRICS = (
    "actor_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "explained_variance", "value_mean",
)  # fmt: skip
EPSILON = 1e-5
"""Adam's ε in the authors' code."""


class Params(NamedTuple):
    """What the gradient moves."""

    policy: Gaussian | MLP
    """A Gaussian, or for choices a network that gives their logits."""
    value: MLP


class View(NamedTuple):
    """What acting needs."""

    params: Params
    moments: Moments


class Extras(NamedTuple):
    """What is stored with each action, [batch]."""

    sample: Array
    """The action before it was cut to the box."""
    log_prob: Array


class State(NamedTuple):
    """Everything that learning changes, and the numbers it obeys."""

    params: Params
    opt: Tree
    moments: Moments
    """Of the observations' features; used where normalize_observations is set."""
    returns: Moments
    """Of the returns that V predicts, [1]."""
    numbers: dict[str, Array]
    """The swept settings, as float32 scalars."""


class Minibatch(NamedTuple):
    """Steps of a rollout, [batch]."""

    features: Array
    sample: Array
    log_prob: Array
    advantage: Array
    target: Array
    """R_t in the units of V's network."""
    weight: Array
    """0 for a step in which the environment only reset itself."""


def loss(
    config: PPOConfig, spec: Spec, numbers: dict[str, Array], params: Params, batch: Minibatch
) -> tuple[Array, Tree]:
    """The objective (eq. 9) to be descended, weighted means over the batch; and what is reported of it."""

    def mean(x: Array) -> Array:
        return (batch.weight * x).sum() / jnp.maximum(batch.weight.sum(), 1.0)

    log_prob, entropy = distribution(config, spec, params.policy, batch.features).evaluate(batch.sample)
    log_ratio = jnp.where(batch.weight > 0, log_prob - batch.log_prob, 0.0)  # where it weighs 0 it might be infinite
    ratio, clip = jnp.exp(log_ratio), numbers["clip_range"]
    advantage = batch.advantage - mean(batch.advantage)
    advantage *= jax.lax.rsqrt(mean(jnp.square(advantage)) + 1e-8)
    surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
    value = networks.mlp(params.value, batch.features, config.activation)[..., 0]
    actor_loss, value_loss = -mean(surrogate), mean(0.5 * jnp.square(value - batch.target))
    total = actor_loss + numbers["value_coefficient"] * value_loss - numbers["entropy_coefficient"] * mean(entropy)
    divergence = mean(ratio - 1 - log_ratio)  # an estimate of KL(π_old ‖ π) that is never negative
    return total, (actor_loss, value_loss, mean(entropy), divergence, mean(jnp.abs(ratio - 1) > clip))


def distribution(config: PPOConfig, spec: Spec, policy: Gaussian | MLP, features: Array) -> Normal | Categorical:
    """π(·|s) for features [batch, F]."""
    if isinstance(policy, Gaussian):
        return Normal(*networks.gaussian(policy, features, config.activation))
    return Categorical(networks.mlp(policy, features, config.activation), spec.action)


def init(config: PPOConfig, spec: Spec, key: Array) -> State:
    """A fresh state; the only function that reads the config's swept numbers."""
    inputs = observations.count_features(spec.obs)
    key_policy, key_value = jax.random.split(key)
    outputs = spec.action.shape[0] if spec.continuous else sum(spec.action.categories)
    network = networks.orthogonal(key_policy, inputs, outputs, config, scale=0.01)
    policy = Gaussian(network, jnp.full(outputs, config.initial_log_std, float)) if spec.continuous else network
    params = Params(policy, networks.orthogonal(key_value, inputs, 1, config, scale=1.0))
    return State(
        params=params,
        opt=optimisers.Adam(config.max_grad_norm, EPSILON).init(params),
        moments=observations.init_moments(inputs),
        returns=observations.init_moments(1),
        numbers=operators.scalars(
            learning_rate=config.learning_rate,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            value_coefficient=config.value_coefficient,
            entropy_coefficient=config.entropy_coefficient,
        ),
    )


def view(state: State) -> View:
    """The networks and the observation's statistics."""
    return View(state.params, state.moments)


def act(
    config: PPOConfig, spec: Spec, view: View, carry: tuple[()], obs: Tree, key: Array, explore: bool
) -> tuple[Array, tuple[()], Extras]:
    """A sample of the policy, or its likeliest action, for observations [batch, …]."""
    features = observations.features_of(config, spec, view.moments, obs)
    policy = distribution(config, spec, view.params.policy, features)
    sample = policy.sample(key) if explore else policy.mode()
    action = jnp.clip(sample, -1.0, 1.0) if spec.continuous else sample
    return action, carry, Extras(sample, policy.evaluate(sample)[0])


def update(
    config: PPOConfig, spec: Spec, state: State, batch: Transition, key: Array, index: Array
) -> tuple[State, dict[str, Array]]:
    """All epochs over one rollout [step, env, …]."""
    numbers, params = state.numbers, state.params
    features = observations.features_of(config, spec, state.moments, batch.obs)
    next_features = observations.features_of(config, spec, state.moments, batch.next_obs)
    value = predicted_return(config, params.value, state.returns, features)
    next_value = predicted_return(config, params.value, state.returns, next_features)
    discount = numbers["gamma"] * batch.discount
    advantage = operators.gae(batch.reward, discount, batch.boundary, value, next_value, numbers["gae_lambda"])
    target, weight = value + advantage, batch.real.astype(jnp.float32)
    returns = observations.add_to_moments(state.returns, target.reshape(-1, 1), weight.reshape(-1))
    rollout = Minibatch(
        features, batch.extras.sample, batch.extras.log_prob, advantage,
        (target - returns.mean[0]) * jax.lax.rsqrt(returns.variance[0] + 1e-8), weight,
    )  # fmt: skip
    rollout = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), rollout)
    steps = weight.size
    batch_size = min(config.batch_size, steps)
    adam = optimisers.Adam(config.max_grad_norm, EPSILON)
    learning_rate = numbers["learning_rate"] * optimisers.linear_decay(config.learning_rate_decay_updates, index)

    def descend(carry: tuple[Params, Tree], rows: Array) -> tuple[tuple[Params, Tree], Tree]:
        params, opt = carry
        minibatch = jax.tree.map(lambda x: x[rows], rollout)
        (_, reported), gradient = jax.value_and_grad(loss, argnums=3, has_aux=True)(
            config, spec, numbers, params, minibatch
        )
        return adam.step(learning_rate, gradient, opt, params), reported

    keys = jax.random.split(key, config.epochs)
    shuffled = jax.vmap(lambda k: jax.random.permutation(k, steps))(keys)
    rows = shuffled[:, : steps // batch_size * batch_size].reshape(-1, batch_size)
    (params, opt), reported = jax.lax.scan(descend, (params, state.opt), rows)

    def variance(x: Array) -> Array:
        mean = (weight * x).sum() / weight.sum()
        return (weight * jnp.square(x - mean)).sum() / weight.sum()

    explained = 1 - variance(advantage) / (variance(target) + 1e-8)
    values = (*(x.mean() for x in reported), explained, (weight * value).sum() / weight.sum())
    state = state._replace(params=params, opt=opt, returns=returns)
    return state, dict(zip(METRICS, values, strict=True))


def predicted_return(config: PPOConfig, value: MLP, returns: Moments, features: Array) -> Array:
    """V in the units of the reward: [..., F] → [...]."""
    normal = networks.mlp(value, features, config.activation)[..., 0]
    return returns.mean[0] + jnp.sqrt(returns.variance[0] + 1e-8) * normal


def metrics(config: PPOConfig) -> tuple[str, ...]:
    """The names of what `update` reports, in its order."""
    return METRICS


PPO = Algorithm(
    "ppo", init, view, no_memory, act, observations.follow, update, "rollout", ("continuous", "discrete"), metrics
)
