"""TD3, DDPG and SAC's deterministic ablation are what their papers say, though one update serves all three."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from numpy.testing import assert_allclose

import maxent
from conformance import computation, initial_state, observe_and_update, train
from maxent import native
from maxent.algorithms import td3
from maxent.algorithms.ddpg import DDPG
from maxent.algorithms.sac_deterministic import SAC_DETERMINISTIC
from maxent.algorithms.td3 import TD3, State
from maxent.config import DDPGConfig, SACDeterministicConfig, TD3Config
from maxent.errors import ConfigError
from maxent.settings import build, numbers, without_numbers
from maxent.types import Algorithm
from probes import Alternating, Target, Terminating
from reference import td3_numpy as reference
from test_probes import GAMMA, assert_values, mean_action
from test_sac import (
    ACTIONS,
    BATCH,
    KEY,
    SPEC,
    assert_close,
    assert_slopes_agree,
    compiled,
    first_moments,
    float64,
    make_batch,
    plain,
    plain_batch,
    plain_critics,
    same,
)  # fmt: skip

__all__ = ["float64"]

NETWORKS = ("policy", "target_policy", "critics", "target_critics")
UPDATES = 5


class Paper(NamedTuple):
    """An algorithm and the reference's update."""

    algorithm: Algorithm
    config: TD3Config
    update: Callable[..., Any]


def small(config: TD3Config) -> TD3Config:
    return replace(config, hidden_sizes=(8, 6), learning_rate=3e-3, tau=config.tau if config.tau == 1 else 0.1)


TWIN = Paper(TD3, small(TD3Config()), reference.td3)
SINGLE = Paper(DDPG, small(DDPGConfig()), reference.ddpg)
ABLATION = Paper(
    SAC_DETERMINISTIC, replace(small(SACDeterministicConfig()), target_update_interval=3), reference.ablation
)
CASES: dict[str, tuple[Paper, dict[str, Any]]] = {
    "TD3 as published": (TWIN, {}),
    "TD3, noise cut hard, three critics, delay of three": (
        TWIN, dict(target_noise=1.0, target_noise_clip=0.3, critics=3, policy_delay=3, layer_norm=True,
                   activation="tanh"),
    ),
    "TD3, normalised, clipped, decaying to zero": (
        TWIN, dict(normalize_observations=True, max_grad_norm=0.05, learning_rate_decay_updates=4,
                   actor_learning_rate=1e-2, critic_learning_rate=1e-3),
    ),
    "DDPG as published": (SINGLE, {}),
    "ablation as published": (ABLATION, {}),
    "ablation, soft targets, layer norm": (
        ABLATION, dict(tau=0.2, target_update_interval=1, layer_norm=True, activation="silu"),
    ),
}  # fmt: skip


def learner_of(state: State) -> reference.Learner:
    return reference.Learner(
        policy=reference.Adam(plain(state.policy)),
        critics=reference.Adam(plain_critics(state.critics)),
        target_policy=plain(state.target_policy) if state.target_policy else {},
        targets=plain_critics(state.target_critics),
    )


def setting_of(config: TD3Config, state: State) -> reference.Setting:
    number = {name: float(x) for name, x in state.numbers.items()}
    interval = config.target_update_interval
    return reference.Setting(
        policy_rate=number["actor_learning_rate"],
        critic_rate=number["critic_learning_rate"],
        tau=number["tau"],
        critics=config.critics,
        activation=config.activation,
        policy_delay=config.policy_delay,
        target_interval=config.policy_delay if isinstance(interval, str) else interval,
        target_noise=number["target_noise"],
        target_noise_clip=config.target_noise_clip,
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.learning_rate_decay_updates,
        normalize=config.normalize_observations,
    )


# Against the papers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_updates_are_the_papers(case: tuple[Paper, dict[str, Any]], float64: None) -> None:
    """Losses, gradients and every array after each of several updates agree with the NumPy implementation."""
    paper, options = case
    config = replace(paper.config, **options)
    state = initial_state(paper.algorithm, config, NETWORKS)
    setting, learner = setting_of(config, state), learner_of(state)
    update = compiled(observe_and_update(paper.algorithm, config))
    moved = False
    for index in range(UPDATES):
        batch, key = make_batch(index), jax.random.fold_in(KEY, index)
        learner.seen.append(np.asarray(batch.next_obs, np.float64))
        state, metrics = update(state, batch, key, np.uint32(index))
        noise = np.asarray(jax.random.normal(key, (BATCH, ACTIONS)))
        expected, gradients = paper.update(setting, learner, plain_batch(batch), noise, index)
        assert_close(metrics, expected, rtol=1e-6, atol=1e-8)
        if not config.max_grad_norm:
            if index == 0:
                found = plain_critics(first_moments(state.critics_opt, state.critics))
                assert_close(found, gradients["critics"], rtol=1e-7, atol=1e-10)
            if "policy" in gradients and not moved:
                found, moved = plain(first_moments(state.policy_opt, state.policy)), True
                assert_close(found, gradients["policy"], rtol=1e-7, atol=1e-10)
        assert_close(plain(state.policy), learner.policy.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.target_critics), learner.targets, rtol=0, atol=1e-9)
        assert bool(state.target_policy) == config.target_policy
        if state.target_policy:
            assert_close(plain(state.target_policy), learner.target_policy, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "activation": "elu"}], ids=str)
@pytest.mark.parametrize("smallest", [False, True])
def test_the_references_policy_gradient_is_that_of_its_loss(smallest: bool, options: dict[str, Any]) -> None:
    """It agrees with central differences, so that it may judge."""
    config = replace(TWIN.config, critics=3, **options)
    state, rng = initial_state(TD3, config, NETWORKS), np.random.default_rng(0)
    setting, learner, x = setting_of(config, state), learner_of(state), plain_batch(make_batch(0))["obs"]

    def loss(params: reference.Arrays) -> tuple[float, reference.Arrays]:
        return reference.policy_loss(setting, params, learner.critics.params, x, smallest)

    assert_slopes_agree(loss, learner.policy.params, rng)


@pytest.fixture(scope="module")
def update() -> Callable[..., Any]:
    """One update of the small TD3, in float32."""
    return compiled(observe_and_update(TD3, TWIN.config))


def test_single_precision_loses_little(update: Callable[..., Any]) -> None:
    """In float32, what training uses, losses agree to 1e-5 and a step to a hundredth of its size."""
    state = initial_state(TD3, TWIN.config, NETWORKS)
    setting, learner, batch = setting_of(TWIN.config, state), learner_of(state), make_batch(0)
    state, metrics = update(state, batch, KEY, np.uint32(1))
    noise = np.asarray(jax.random.normal(KEY, (BATCH, ACTIONS)))
    expected, _ = reference.td3(setting, learner, plain_batch(batch), noise, 1)
    assert {x.dtype for x in jax.tree.leaves(metrics)} == {np.dtype("float32")}
    assert_close(metrics, expected, rtol=1e-5, atol=1e-5)
    assert_close(plain(state.policy), learner.policy.params, rtol=0, atol=1e-2 * setting.policy_rate)
    assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-2 * setting.critic_rate)


# The delay -----------------------------------------------------------------------------------------------------------


def test_between_its_turns_nothing_of_the_policy_changes(update: Callable[..., Any]) -> None:
    """Of two updates the second alone moves the policy, its optimiser and the targets; critics move in both."""
    state = initial_state(TD3, TWIN.config, NETWORKS)
    for index in range(4):
        new, metrics = update(state, make_batch(index), KEY, np.uint32(index))
        for name in ("policy", "target_policy", "target_critics", "policy_opt", "actor_loss"):
            kept = same(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(new, name)))
            assert kept == (index % 2 == 0), (index, name)
        assert not same(jax.tree.leaves(state.critics), jax.tree.leaves(new.critics))
        assert metrics["actor_loss"] == new.actor_loss
        state = new


def products(jaxpr: Any, within_branches: bool) -> int:
    """Products, or native.c's calls that make them, in a computation; those in its conditionals included or not."""
    count = 0
    for eqn in jaxpr.eqns:
        count += eqn.primitive.name == "dot_general" or eqn.params.get("target_name", "maxent_adam") != "maxent_adam"
        if eqn.primitive.name != "cond" or within_branches:
            count += sum(products(sub, within_branches) for sub in jaxprs_in_params(eqn.params))
    return count


@pytest.mark.parametrize(
    ("compiler", "critics"),
    [
        ("", 3 + 3 + 3 + 3 + 2),  # the target's action and value; Q, its weights' gradients, its hidden layers'
        ("cc", 1 + 1 + 1 + 2),  # the same; those of the weights, of the inputs
    ],
)
def test_in_between_the_policys_gradient_is_not_even_computed(
    compiler: str, critics: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with members: the conditional stays one, and all products of the policy's descent stand in its branch."""
    monkeypatch.setenv("CC", compiler)
    if compiler and not native.available():
        pytest.skip("no C compiler here")

    def jaxpr(config: TD3Config) -> Any:
        state = jax.eval_shape(jax.vmap(partial(TD3.init, config, SPEC)), jax.random.split(KEY, 2))
        batch = jax.tree.map(lambda x: np.stack([x, x]), make_batch(0))
        update = jax.vmap(partial(TD3.update, config, SPEC), (0, 0, 0, None))
        return jax.make_jaxpr(update)(state, batch, jax.random.split(KEY, 2), jnp.uint32(0)).jaxpr

    at_once, delayed = jaxpr(replace(TWIN.config, policy_delay=1)), jaxpr(TWIN.config)
    assert products(delayed, True) == products(at_once, True)
    assert products(delayed, False) == critics < products(at_once, False)


def test_ddpg_draws_no_number_in_its_update() -> None:
    """Where the targets' actions have no noise, none is drawn; where they have, some is."""
    for paper, drawn in ((SINGLE, False), (ABLATION, False), (TWIN, True)):
        state = jax.eval_shape(partial(TD3.init, paper.config, SPEC), KEY)
        update = partial(paper.algorithm.update, paper.config, SPEC)
        text = str(jax.make_jaxpr(update)(state, make_batch(0), KEY, jnp.uint32(0)))
        assert ("random_bits" in text) == drawn


# Noise ---------------------------------------------------------------------------------------------------------------


def view_of(config: TD3Config, output: float = 0.0) -> td3.View:
    """Of a policy whose network says the same for all observations."""
    state = jax.tree.map(jnp.zeros_like, jax.eval_shape(partial(TD3.init, config, SPEC), KEY))
    layers = state.policy.layers
    layers = (*layers[:-1], layers[-1]._replace(bias=jnp.full(ACTIONS, output)))
    state = state._replace(policy=state.policy._replace(layers=layers))
    return TD3.view(state)._replace(exploration_noise=jnp.float32(config.exploration_noise))


def explored(config: TD3Config, steps: int, actors: int, output: float = 0.0) -> np.ndarray:
    """Actions of so many actors in consecutive steps: [step, actor, d]."""
    static, view = without_numbers(config), view_of(config, output)
    obs = jnp.zeros((actors, *SPEC.obs.shape))

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        action, carry, _ = TD3.act(static, SPEC, view, carry, obs, key, True)
        return carry, action

    carry = TD3.initial_carry(static, SPEC, (actors,))
    return np.asarray(compiled(partial(jax.lax.scan, step))(carry, jax.random.split(KEY, steps))[1], np.float64)


def test_noise_has_the_size_that_is_set_and_no_memory() -> None:
    """Around tanh(0.5): standard deviation σ, nothing in common from step to step, actor to actor, axis to axis."""
    x = explored(replace(TWIN.config, exploration_noise=0.1), 50, 1000, output=0.5) - np.tanh(0.5)
    assert_allclose(x.mean(), 0, atol=5 * 0.1 / np.sqrt(x.size))
    assert_allclose(x.std(), 0.1, rtol=0.01)
    assert_allclose([(x[1:] * x[:-1]).mean(), (x[:, 1:] * x[:, :-1]).mean(), x.prod(-1).mean()], 0, atol=2e-4)


def test_actions_stay_in_the_box() -> None:
    """With σ = 2 all that lies beyond is cut to the bound: a share of 2 Φ(-½) = 0.617."""
    x = explored(replace(TWIN.config, exploration_noise=2.0), 20, 1000)
    assert np.abs(x).max() == 1.0
    assert_allclose((np.abs(x) == 1.0).mean(), 0.617, atol=0.01)


def test_ornstein_uhlenbeck_noise_remembers() -> None:
    """From 0 it grows to the stationary deviation σ / √(1 - (1-θ)²), and k steps later (1-θ)^k of it is left."""
    theta, sigma = 0.15, 0.05
    config = replace(TWIN.config, exploration_noise=sigma, noise_reversion=theta)
    assert TD3.initial_carry(config, SPEC, (3, 4)).shape == (3, 4, ACTIONS)
    x = explored(config, 80, 4000)
    variance = sigma**2 / (1 - (1 - theta) ** 2)
    assert_allclose((x[0] ** 2).mean(), sigma**2, rtol=0.05)
    assert_allclose((x[1] ** 2).mean(), sigma**2 * (1 + (1 - theta) ** 2), rtol=0.05)
    assert_allclose((x[40:] ** 2).mean(), variance, rtol=0.03)
    for k in (1, 5, 10):
        assert_allclose((x[40 + k :] * x[40:-k]).mean() / variance, (1 - theta) ** k, atol=0.03)


def test_what_is_remembered_is_the_noise_and_not_what_the_box_left_of_it() -> None:
    """The same noise around an action in the middle, never cut there, and around one near the bound, mostly cut."""
    config = replace(TWIN.config, exploration_noise=0.05, noise_reversion=0.15)
    noise, cut = explored(config, 20, 500), explored(config, 20, 500, output=3.0)
    assert np.abs(noise).max() < 1 and (cut == 1).mean() > 0.4
    assert_allclose(cut, np.clip(np.tanh(3.0) + noise, -1, 1), atol=1e-6)


@pytest.mark.parametrize("reversion", [1.0, 0.15])
def test_without_exploring_the_action_is_the_policys(reversion: float) -> None:
    """tanh of the network, whatever the key, the noise and its memory, which stays as it was."""
    config = replace(TWIN.config, exploration_noise=1.0, noise_reversion=reversion, layer_norm=True)
    state, batch = initial_state(TD3, config, NETWORKS), make_batch(0)
    carry = jax.tree.map(lambda x: x + 0.7, TD3.initial_carry(config, SPEC, (BATCH,)))
    action, after, extras = TD3.act(without_numbers(config), SPEC, TD3.view(state), carry, batch.obs, KEY, False)
    expected = reference.act(setting_of(config, state), plain(state.policy), plain_batch(batch)["obs"])
    assert_allclose(action, expected, atol=1e-5)
    assert after is carry and extras == ()


def test_smoothing_stays_within_its_bounds() -> None:
    """ã is never further from π̄(s') than c, never outside the box, and where σ̃ is large mostly at a bound."""
    config = replace(TWIN.config, target_noise=5.0, target_noise_clip=0.25)
    state = initial_state(TD3, config, NETWORKS)
    features = jnp.asarray(np.random.default_rng(0).standard_normal((2000, 3)), jnp.float32)
    slow = np.asarray(td3.action_of(config, state.target_policy, features))
    found = np.asarray(td3.target_action(without_numbers(config), state, features, KEY))
    assert np.abs(found).max() <= 1 and np.abs(found - slow).max() <= 0.25 + 1e-6
    bounds = np.isclose(found, np.clip(slow + 0.25, -1, 1)) | np.isclose(found, np.clip(slow - 0.25, -1, 1))
    assert bounds.mean() > 0.95
    current = td3.target_action(replace(config, target_policy=False), state._replace(target_policy=()), features, KEY)
    assert not np.allclose(current, found, atol=0.1)


# Settings ------------------------------------------------------------------------------------------------------------

SWEPT: dict[str, Any] = {
    "learning_rate": 1e-2,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "tau": 0.5,
    "exploration_noise": 0.7,
    "target_noise": 0.7,
}
"""Numbers that members of one program may differ in."""


@pytest.fixture(scope="module")
def plain_computation() -> str:
    return computation(TD3, TWIN.config)


@pytest.fixture(scope="module")
def learned(update: Callable[..., Any]) -> Callable[[TD3Config], list[np.ndarray]]:
    """What two updates by the one program leave behind, but for the numbers obeyed; and an action after them."""
    act = compiled(lambda view, obs: TD3.act(without_numbers(TWIN.config), SPEC, view, (), obs, KEY, True)[0])

    def learned(config: TD3Config) -> list[np.ndarray]:
        state = initial_state(TD3, config, NETWORKS)
        for index in range(2):
            state, _ = update(state, make_batch(index), KEY, np.uint32(index))
        return jax.tree.leaves(jax.device_get((state._replace(numbers={}), act(TD3.view(state), make_batch(0).obs))))

    return learned


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_number_changes_what_the_same_computation_gives(
    name: str, plain_computation: str, learned: Callable[[TD3Config], list[np.ndarray]]
) -> None:
    """It needs no other program, and it is not ignored."""
    config = replace(TWIN.config, **{name: SWEPT[name]})
    assert computation(TD3, config) == plain_computation
    assert not same(learned(config), learned(TWIN.config))


def test_swept_numbers_are_read_from_the_state_alone() -> None:
    """With NaN for every swept number in the config, the computation is the same."""
    config = replace(TWIN.config, normalize_observations=True, noise_reversion=0.5, actor_learning_rate=1e-3,
                     critic_learning_rate=1e-3)  # fmt: skip
    static = without_numbers(config)
    assert numbers(config).keys() == {f.name for f in fields(config) if f.metadata.get("swept")}
    assert all(np.isnan(getattr(static, name)) for name in numbers(config))
    assert computation(TD3, static) == computation(TD3, config)


def test_noise_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="target_noise is 0.2 and target_noise_clip 0"):
        build(TD3Config, {"target_noise_clip": 0.0}, "td3")


def test_ddpg_is_td3_without_its_three_additions() -> None:
    """With TD3's settings of one critic, no delay and no noise on the targets' actions, it computes the same."""
    reduced = replace(TWIN.config, critics=1, policy_delay=1, target_noise=0.0, target_noise_clip=0.0)
    assert computation(TD3, reduced) == computation(DDPG, SINGLE.config) != computation(TD3, TWIN.config)


# On environments whose values are known ------------------------------------------------------------------------------

PROBE = dict(
    gamma=GAMMA, learning_rate=5e-3, tau=0.1, hidden_sizes=(32,), activation="tanh", batch_size=64, buffer_size=1500,
    learning_starts=100, exploration_noise=0.3,
)  # fmt: skip
# DDPG computes what a reduced TD3 does, as tested above.
PROBED: dict[str, tuple[Algorithm, Any]] = {
    "td3": (TD3, TD3Config(**PROBE, noise_reversion=0.5)),
    "sac_deterministic": (
        SAC_DETERMINISTIC, SACDeterministicConfig(**PROBE | {"tau": 1.0}, target_update_interval=40),
    ),
}  # fmt: skip
probed = pytest.mark.parametrize(("algorithm", "config"), PROBED.values(), ids=PROBED)


@pytest.fixture
def quick_keys() -> Iterator[None]:
    """Random keys of the kind whose draws compile fast; nothing here depends on which numbers are drawn."""
    with jax.default_prng_impl("unsafe_rbg"):
        yield


@probed
def test_a_time_limit_does_not_end_the_value(algorithm: Algorithm, config: Any, quick_keys: None) -> None:
    """Cut after every third step, states are worth what they are without a limit."""
    loop, _ = train(algorithm, config, Alternating, limit=3, steps=1200)
    assert_values(loop, 0, [1 / (1 - GAMMA**2)] * 2)
    assert_values(loop, 1, [GAMMA / (1 - GAMMA**2)] * 2)


def test_an_end_ends_the_value(quick_keys: None) -> None:
    """States before it are worth the rewards up to it."""
    loop, _ = train(*PROBED["td3"], Terminating, steps=1200)
    for state, value in enumerate([1 + GAMMA + GAMMA**2, 1 + GAMMA, 1]):
        assert_values(loop, state, [value] * 2)


@probed
def test_the_best_action_is_found(algorithm: Algorithm, config: Any, quick_keys: None) -> None:
    """The policy is that action where it does not explore."""
    loop, _ = train(algorithm, config, Target, steps=1200)
    assert_allclose(mean_action(loop), Target.best, atol=0.1)


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "options"),
    [
        (maxent.TD3, {}),
        (maxent.DDPG, {}),
        (maxent.SACDeterministic, {"tau": 0.005, "target_update_interval": 1}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_it_learns_to_swing_up_a_pendulum(agent: Any, options: dict[str, Any]) -> None:
    """Within 20,000 steps each reaches about -140, as SAC does."""
    options |= dict(hidden_sizes=(64, 64), learning_rate=1e-3, learning_starts=1000)
    learned = agent("Pendulum-v1", seed=0, **options).learn(20_000)
    assert learned.evaluate(20).mean_return > -200
