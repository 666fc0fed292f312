"""SAC with a value network is what its paper says, and its reward scale is an inverse temperature."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import maxent
from conformance import computation, initial_state, observe_and_update, train
from maxent import networks
from maxent.algorithms.sac_v1 import SAC_V1, State
from maxent.config import SACV1Config
from maxent.errors import ConfigError
from maxent.loops.host import HostLoop
from maxent.settings import build, numbers, without_numbers
from probes import Alternating, Constant, Target, Terminating, one_hot
from reference import sac_v1_numpy as reference
from test_probes import ENTROPY, GAMMA, TOLERANCE, assert_values, mean_action
from test_sac import (
    BATCH,
    KEY,
    SPEC,
    assert_close,
    assert_slopes_agree,
    compiled,
    first_moments,
    float64,
    make_batch,
    noises_of,
    plain,
    plain_batch,
    plain_critics,
    plain_policy,
    same,
)

__all__ = ["float64"]

NETWORKS = ("policy", "critics", "value", "target_value")
SMALL = SACV1Config(hidden_sizes=(8, 6), learning_rate=3e-3, tau=0.1)
CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "hard targets, regularised, narrow bounds, one critic": dict(
        tau=1.0, target_update_interval=2, regularization=0.5, log_std_min=-0.4, log_std_max=0.1, critics=1,
    ),
    "layer norm, normalised, clipped, decaying, rates and scale of its own": dict(
        layer_norm=True, activation="silu", normalize_observations=True, max_grad_norm=0.2, reward_scale=0.3,
        learning_rate_decay_updates=4, actor_learning_rate=1e-2, critic_learning_rate=1e-3, value_learning_rate=5e-3,
    ),
}  # fmt: skip
UPDATES = 4


def learner_of(state: State) -> reference.Learner:
    return reference.Learner(
        policy=reference.Adam(plain_policy(state.policy)),
        critics=reference.Adam(plain_critics(state.critics)),
        value=reference.Adam(plain(state.value)),
        target=plain(state.target_value),
    )


def setting_of(config: SACV1Config, state: State) -> reference.Setting:
    number = {name: float(x) for name, x in state.numbers.items()}
    return reference.Setting(
        policy_rate=number["actor_learning_rate"],
        critic_rate=number["critic_learning_rate"],
        value_rate=number["value_learning_rate"],
        tau=number["tau"],
        reward_scale=number["reward_scale"],
        regularization=number["regularization"],
        target_interval=config.target_update_interval,
        critics=config.critics,
        activation=config.activation,
        log_std_min=config.log_std_min,
        log_std_max=config.log_std_max,
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.learning_rate_decay_updates,
        normalize=config.normalize_observations,
    )


# Against the paper ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_updates_are_the_papers(options: dict[str, Any], float64: None) -> None:
    """Losses, gradients and every array after each of several updates agree with the NumPy implementation."""
    config = replace(SMALL, **options)
    state = initial_state(SAC_V1, config, NETWORKS)
    setting, learner = setting_of(config, state), learner_of(state)
    update = compiled(observe_and_update(SAC_V1, config))
    for index in range(UPDATES):
        batch, key = make_batch(index), jax.random.fold_in(KEY, index)
        learner.seen.append(np.asarray(batch.next_obs, np.float64))
        state, metrics = update(state, batch, key, np.uint32(index))
        expected, gradients = reference.update(setting, learner, plain_batch(batch), noises_of(key), index)
        assert_close(metrics, expected, rtol=1e-6, atol=1e-8)
        if index == 0 and not config.max_grad_norm:
            close = partial(assert_close, rtol=1e-7, atol=1e-10)
            close(plain_policy(first_moments(state.policy_opt, state.policy)), gradients["policy"])
            close(plain_critics(first_moments(state.critics_opt, state.critics)), gradients["critics"])
            close(plain(first_moments(state.value_opt, state.value)), gradients["value"])
        assert_close(plain_policy(state.policy), learner.policy.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-9)
        assert_close(plain(state.value), learner.value.params, rtol=0, atol=1e-9)
        assert_close(plain(state.target_value), learner.target, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def update() -> Callable[..., Any]:
    """One update with the small settings, in float32."""
    return compiled(observe_and_update(SAC_V1, SMALL))


def test_single_precision_loses_little(update: Callable[..., Any]) -> None:
    """In float32, what training uses, losses agree to 1e-5 and a step to a hundredth of its size."""
    state = initial_state(SAC_V1, SMALL, NETWORKS)
    setting, learner, batch = setting_of(SMALL, state), learner_of(state), make_batch(0)
    state, metrics = update(state, batch, KEY, np.uint32(0))
    expected, _ = reference.update(setting, learner, plain_batch(batch), noises_of(KEY), 0)
    assert {x.dtype for x in jax.tree.leaves(metrics)} == {np.dtype("float32")}
    assert_close(metrics, expected, rtol=1e-5, atol=1e-5)
    assert_close(plain_policy(state.policy), learner.policy.params, rtol=0, atol=1e-2 * setting.policy_rate)
    assert_close(plain(state.value), learner.value.params, rtol=0, atol=1e-2 * setting.value_rate)


def test_the_references_gradients_are_those_of_its_losses() -> None:
    """Its hand-derived gradients agree with central differences, so that it may judge."""
    config = replace(SMALL, regularization=0.5, log_std_min=-0.4, log_std_max=0.3)
    state, rng = initial_state(SAC_V1, config, NETWORKS), np.random.default_rng(0)
    setting, learner, batch = setting_of(config, state), learner_of(state), plain_batch(make_batch(0))
    noise = rng.standard_normal((BATCH, 2))

    def loss_of_value(params: reference.Arrays) -> tuple[float, reference.Arrays]:
        loss, _, gradient = reference.value_loss(setting, params, batch["obs"], batch["reward"])
        return loss, gradient

    def loss_of_policy(params: reference.Arrays) -> tuple[float, reference.Arrays]:
        loss, _, gradient = reference.policy_loss(setting, params, learner.critics.params, batch["obs"], noise)
        return loss, gradient

    assert_slopes_agree(loss_of_value, learner.value.params, rng)
    assert_slopes_agree(loss_of_policy, learner.policy.params, rng)


def test_the_policy_draws_when_it_explores_and_else_takes_its_mean() -> None:
    """tanh(μ + σε) and tanh(μ)."""
    state, batch = initial_state(SAC_V1, SMALL, NETWORKS), make_batch(0)
    setting, view = setting_of(SMALL, state), SAC_V1.view(state)
    drawn, best = (SAC_V1.act(without_numbers(SMALL), SPEC, view, (), batch.obs, KEY, e)[0] for e in (True, False))
    mean, log_std, _, _ = reference.policy_head(setting, plain_policy(state.policy), plain_batch(batch)["obs"])
    noise = np.asarray(jax.random.normal(KEY, mean.shape))
    assert_allclose(drawn, reference.squash(mean, log_std, noise)[0], atol=1e-5)
    assert_allclose(best, np.tanh(mean), atol=1e-5)


# Settings ------------------------------------------------------------------------------------------------------------

SWEPT: dict[str, Any] = {
    "learning_rate": 1e-2,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "value_learning_rate": 1e-2,
    "tau": 0.5,
    "reward_scale": 2.0,
    "regularization": 0.1,
}
"""Numbers that members of one program may differ in."""


@pytest.fixture(scope="module")
def plain_computation() -> str:
    return computation(SAC_V1, SMALL)


@pytest.fixture(scope="module")
def learned(update: Callable[..., Any]) -> Callable[[SACV1Config], list[np.ndarray]]:
    """Everything that one update by the one program leaves behind, but for the numbers that it obeyed."""

    def learned(config: SACV1Config) -> list[np.ndarray]:
        state, _ = update(initial_state(SAC_V1, config, NETWORKS), make_batch(0), KEY, np.uint32(0))
        return jax.tree.leaves(jax.device_get(state._replace(numbers={})))

    return learned


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_number_changes_what_the_same_computation_learns(
    name: str, plain_computation: str, learned: Callable[[SACV1Config], list[np.ndarray]]
) -> None:
    """It needs no other program, and it is not ignored."""
    config = replace(SMALL, **{name: SWEPT[name]})
    assert computation(SAC_V1, config) == plain_computation
    assert not same(learned(config), learned(SMALL))


def test_swept_numbers_are_read_from_the_state_alone() -> None:
    """With NaN for every swept number in the config, the computation is the same."""
    rates = dict.fromkeys(("actor_learning_rate", "critic_learning_rate", "value_learning_rate"), 1e-3)
    config = replace(SMALL, normalize_observations=True, **rates)
    static = without_numbers(config)
    assert numbers(config).keys() == {f.name for f in fields(config) if f.metadata.get("swept")}
    assert all(np.isnan(getattr(static, name)) for name in numbers(config))
    assert computation(SAC_V1, static) == computation(SAC_V1, config)


def test_crossed_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="log_std_min is 3"):
        build(SACV1Config, {"log_std_min": 3.0}, "sac_v1")


# On environments whose values are known ------------------------------------------------------------------------------

PROBE = SACV1Config(
    gamma=GAMMA, learning_rate=5e-3, tau=0.1, hidden_sizes=(32,), activation="tanh", batch_size=64, buffer_size=1500,
    learning_starts=100,
)  # fmt: skip
SCALES = np.array([1.0, 2.5], np.float32)
"""Of the two members."""


@pytest.fixture(autouse=True)
def quick_keys() -> Iterator[None]:
    """Random keys of the kind whose draws compile fast; nothing here depends on which numbers are drawn."""
    with jax.default_prng_impl("unsafe_rbg"):
        yield


def state_values(loop: HostLoop, state: int) -> np.ndarray:
    """V of a state: [member]."""
    obs = jnp.asarray(one_hot(state))[None]
    return np.asarray(jax.vmap(lambda v: networks.mlp(v, obs, "tanh")[0, 0])(loop.learned.state.value))


def test_a_scaled_reward_and_the_entropy_are_worth_their_geometric_sums() -> None:
    """V = (c + H) / (1 - γ) and Q = c + γ V, for each member's c: a limit of twenty steps is not in it."""
    loop, _ = train(SAC_V1, PROBE, Constant, swept={"reward_scale": SCALES})
    value = (SCALES + ENTROPY) / (1 - GAMMA)
    assert_allclose(state_values(loop, 0), value, rtol=TOLERANCE)
    assert_values(loop, 0, SCALES + GAMMA * value)


def test_a_time_limit_does_not_end_the_value() -> None:
    """Cut after every third step, states are worth what they are without a limit: the true successor follows."""
    loop, _ = train(SAC_V1, PROBE, Alternating, limit=3, swept={"reward_scale": SCALES})
    entropies = ENTROPY * GAMMA / (1 - GAMMA)
    assert_values(loop, 0, SCALES / (1 - GAMMA**2) + entropies)
    assert_values(loop, 1, GAMMA * SCALES / (1 - GAMMA**2) + entropies)


def test_an_end_ends_the_value() -> None:
    """Rewards up to it and the entropy of the states before it, none after."""
    loop, _ = train(SAC_V1, PROBE, Terminating, swept={"reward_scale": SCALES})
    assert_values(loop, 0, SCALES * (1 + GAMMA + GAMMA**2) + ENTROPY * (GAMMA + GAMMA**2))
    assert_values(loop, 1, SCALES * (1 + GAMMA) + ENTROPY * GAMMA)
    assert_values(loop, 2, SCALES)
    spec, obs, action = loop.programs.spec, jnp.asarray(one_hot(2))[None], jnp.zeros((1, 1))
    q = jax.vmap(lambda state: SAC_V1.q(PROBE, spec, state, obs, action)[0])(loop.learned.state)
    assert_allclose(q, 1, rtol=TOLERANCE)  # what the user is told is in units of reward


def test_a_reward_scale_is_an_inverse_temperature() -> None:
    """The policy is as near as it can be to exp(-c (a - a*)²), SAC's at the temperature 1/c: by quadrature its entropy
    is 0.137 nats for c = 5 and -0.147 for c = 10."""
    loop, report = train(SAC_V1, PROBE, Target, swept={"reward_scale": np.array([5.0, 10.0], np.float32)})
    assert_allclose(report.metrics["entropy"], [0.137, -0.147], atol=0.05)
    assert_allclose(mean_action(loop), Target.best, atol=0.1)


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_to_swing_up_a_pendulum() -> None:
    """Within 20,000 steps it reaches about -140, as SAC does."""
    learned = maxent.SACV1("Pendulum-v1", seed=0, hidden_sizes=(64, 64), learning_rate=1e-3).learn(20_000)
    assert learned.evaluate(20).mean_return > -200
