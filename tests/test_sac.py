"""SAC is what its paper says, to float64's precision, whatever is switched on; and every setting means something."""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from maxent import networks
from maxent.algorithms.sac import SAC, State
from maxent.config import Activation, SACConfig
from maxent.networks import MLP
from maxent.settings import numbers, without_numbers
from maxent.types import Leaf, Spec, Transition
from reference import sac_numpy as reference

OBS, ACTIONS, BATCH = 3, 2, 12
SPEC = Spec(obs=Leaf((OBS,), "float32"), action=Leaf((ACTIONS,), "float32"))
SMALL = SACConfig(hidden_sizes=(8, 6), learning_rate=3e-3, tau=0.1, batch_size=BATCH)
CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "one critic, fixed temperature": dict(critics=1, temperature=0.2),
    "three critics, one layer": dict(critics=3, hidden_sizes=(8,), initial_temperature=0.3, target_entropy=0.7),
    "layer norm, tanh": dict(layer_norm=True, activation="tanh"),
    "one deviation for all states": dict(state_dependent_std=False),
    "narrow bounds of the deviation": dict(log_std_min=-0.4, log_std_max=0.1),
    "a rate for each, decaying to zero": dict(
        actor_learning_rate=1e-2, critic_learning_rate=1e-3, temperature_learning_rate=3e-2,
        learning_rate_decay_updates=4,
    ),
    "normalised observations, clipped gradients": dict(normalize_observations=True, max_grad_norm=0.05),
    "all at once": dict(
        critics=3, layer_norm=True, activation="silu", state_dependent_std=False, log_std_max=0.3, max_grad_norm=0.2,
        normalize_observations=True, learning_rate_decay_updates=100, critic_learning_rate=1e-2, tau=0.3,
    ),
}  # fmt: skip
UPDATES = 5
KEY = jax.random.key(7, impl="unsafe_rbg")
"""The kind of key whose draws compile fast; the algorithm does not know the difference."""


@pytest.fixture
def float64() -> Iterator[None]:
    """JAX in double precision, so that a comparison sees formulas and not rounding."""
    with jax.enable_x64(True):
        yield


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled quickly, as each is called a few times only."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def initial_state(config: SACConfig) -> State:
    """A fresh state, its networks drawn anew: targets differ from critics, and no offset is 0 or scale 1."""
    form = jax.eval_shape(partial(SAC.init, config, SPEC), KEY)
    rng, real = np.random.default_rng(2), jnp.zeros(()).dtype

    def draw(tree: Any) -> Any:
        return jax.tree.map(lambda x: 0.5 * rng.standard_normal(x.shape).astype(real), tree)

    def rest() -> State:
        return SAC.init(config, SPEC, KEY)._replace(policy=(), critics=(), target_critics=())  # type: ignore[arg-type]

    state = jax.device_get(compiled(rest)())
    state = jax.tree.map(lambda x: x.astype(real) if np.issubdtype(x.dtype, np.floating) else x, state)
    drawn = {name: draw(getattr(form, name)) for name in ("policy", "critics", "target_critics")}
    return state._replace(**drawn)


def observe_and_update(config: SACConfig) -> Callable[..., Any]:
    """(state, batch, key, index) → state, metrics, as the loop calls them: with a config that has no numbers."""
    static = without_numbers(config)

    def function(state: State, batch: Transition, key: jax.Array, index: jax.Array) -> tuple[State, Any]:
        return SAC.update(static, SPEC, SAC.observe(static, SPEC, state, batch), batch, key, index)

    return function


def make_batch(seed: int) -> Transition:
    """Transitions as the replay gives them, ended ones and n-step ones among them."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.standard_normal((2, BATCH, OBS)).astype(np.float32) * [1, 3, 0.2] + [0, 1, 0]
    return Transition(
        obs=obs.astype(np.float32),
        action=rng.uniform(-1, 1, (BATCH, ACTIONS)).astype(np.float32),
        reward=rng.standard_normal(BATCH).astype(np.float32),
        discount=rng.choice(np.float32([0, 0.9, 0.81]), BATCH),
        next_obs=next_obs.astype(np.float32),
        boundary=rng.uniform(size=BATCH) < 0.3,
        real=np.ones(BATCH, bool),
    )


def plain(net: MLP) -> reference.Arrays:
    """A network of the library as the reference's dictionary."""
    layers = {f"{kind}{i}": getattr(x, kind) for i, x in enumerate(net.layers) for kind in ("weight", "bias")}
    norms = {f"{kind}{i}": getattr(x, kind) for i, x in enumerate(net.norms) for kind in ("scale", "offset")}
    return {name: np.asarray(x, np.float64) for name, x in (layers | norms).items()}


def plain_policy(policy: networks.Gaussian) -> reference.Arrays:
    return plain(policy.network) | ({"log_std": np.asarray(policy.log_std, np.float64)} if policy.log_std.size else {})


def plain_critics(critics: MLP) -> reference.Arrays:
    return {f"{i}/{name}": x for name, stack in plain(critics).items() for i, x in enumerate(stack)}


def first_moments(opt: Any, params: Any) -> Any:
    """After one update Adam's first moment, one flat vector, is 0.1 times the gradient: the gradient."""
    return ravel_pytree(params)[1](opt.mu / 0.1)


def plain_gradients(state: State) -> dict[str, reference.Arrays]:
    return {
        "policy": plain_policy(first_moments(state.policy_opt, state.policy)),
        "critics": plain_critics(first_moments(state.critics_opt, state.critics)),
        "temperature": {"log": first_moments(state.temperature_opt, state.log_temperature)},
    }


def learner_of(state: State) -> reference.Learner:
    return reference.Learner(
        policy=reference.Adam(plain_policy(state.policy)),
        critics=reference.Adam(plain_critics(state.critics)),
        targets=plain_critics(state.target_critics),
        temperature=reference.Adam({"log": np.asarray(state.log_temperature, np.float64)}),
    )


def setting_of(config: SACConfig, state: State) -> reference.Setting:
    number = {name: float(x) for name, x in state.numbers.items()}
    return reference.Setting(
        policy_rate=number["actor_learning_rate"],
        critic_rate=number["critic_learning_rate"],
        temperature_rate=number["temperature_learning_rate"],
        tau=number["tau"],
        target_entropy=number["target_entropy"],
        learn_temperature=config.temperature == "auto",
        critics=config.critics,
        activation=config.activation,
        log_std_min=config.log_std_min,
        log_std_max=config.log_std_max,
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.learning_rate_decay_updates,
        normalize=config.normalize_observations,
    )


def noises_of(key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The noise of the target's actions and of the policy's."""
    first, second = (np.asarray(jax.random.normal(k, (BATCH, ACTIONS))) for k in jax.random.split(key))
    return first, second


def plain_batch(batch: Transition) -> reference.Arrays:
    names = ("obs", "action", "reward", "discount", "next_obs")
    return {name: np.asarray(getattr(batch, name), np.float64) for name in names}


def assert_close(found: dict[str, Any], expected: dict[str, Any], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert_allclose(found[name], expected[name], err_msg=name, **tolerance)


# Against the paper ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_updates_are_the_papers(options: dict[str, Any], float64: None) -> None:
    """Losses, gradients and every array after each of several updates agree with the NumPy implementation."""
    config = replace(SMALL, **options)
    state = initial_state(config)
    setting, learner = setting_of(config, state), learner_of(state)
    update = compiled(observe_and_update(config))
    for index in range(UPDATES):
        batch, key = make_batch(index), jax.random.fold_in(KEY, index)
        learner.seen.append(np.asarray(batch.next_obs, np.float64))
        state, metrics = update(state, batch, key, np.uint32(index))
        expected, gradients = reference.update(setting, learner, plain_batch(batch), noises_of(key), index)
        assert_close(metrics, expected, rtol=1e-6, atol=1e-8)
        if index == 0 and not config.max_grad_norm:
            for name, gradient in gradients.items():
                assert_close(plain_gradients(state)[name], gradient, rtol=1e-7, atol=1e-10)
        assert_close(plain_policy(state.policy), learner.policy.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.target_critics), learner.targets, rtol=0, atol=1e-9)
        assert_allclose(state.log_temperature, learner.temperature.params["log"], rtol=0, atol=1e-9)


def test_single_precision_loses_little() -> None:
    """In float32, what training uses, losses and gradients agree to 1e-5 and a step to a hundredth of its size."""
    state = initial_state(SMALL)
    setting, learner = setting_of(SMALL, state), learner_of(state)
    batch, key = make_batch(0), KEY
    state, metrics = compiled(observe_and_update(SMALL))(state, batch, key, np.uint32(0))
    expected, gradients = reference.update(setting, learner, plain_batch(batch), noises_of(key), 0)
    assert {x.dtype for x in jax.tree.leaves(metrics)} == {np.dtype("float32")}
    assert_close(metrics, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        assert_close(plain_gradients(state)[name], gradient, rtol=1e-4, atol=1e-5)
    assert_close(plain_policy(state.policy), learner.policy.params, rtol=0, atol=1e-2 * setting.policy_rate)
    assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-2 * setting.critic_rate)
    assert_close(plain_critics(state.target_critics), learner.targets, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"state_dependent_std": False}], ids=str)
def test_the_references_gradients_are_those_of_its_losses(options: dict[str, Any]) -> None:
    """Its hand-derived gradients agree with central differences, for each activation, so that it may judge."""
    config = replace(SMALL, **options)
    state, rng = initial_state(config), np.random.default_rng(0)
    learner, batch, noise = learner_of(state), plain_batch(make_batch(0)), rng.standard_normal((BATCH, ACTIONS))
    policy, critics = learner.policy.params, learner.critics.params

    def loss_of_critics(setting: reference.Setting, params: reference.Arrays) -> tuple[float, reference.Arrays]:
        given = (batch[name] for name in ("obs", "action", "reward"))
        losses, _, gradient = reference.critic_loss(setting, params, *given)
        return float(losses.sum()), gradient

    def loss_of_policy(setting: reference.Setting, params: reference.Arrays) -> tuple[float, reference.Arrays]:
        loss, _, gradient = reference.policy_loss(setting, params, critics, 0.4, batch["obs"], noise)
        return loss, gradient

    for activation in Activation.__args__:
        setting = setting_of(replace(config, activation=activation), state)
        assert_slopes_agree(partial(loss_of_critics, setting), critics, rng)
        assert_slopes_agree(partial(loss_of_policy, setting), policy, rng)


def assert_slopes_agree(
    loss: Callable[[reference.Arrays], tuple[float, reference.Arrays]],
    params: reference.Arrays,
    rng: np.random.Generator,
) -> None:
    """Along a random direction within each array; a step too short to cross a kink of ReLU or of the minimum."""
    gradient, step = loss(params)[1], 1e-6
    for name, x in params.items():
        direction = rng.standard_normal(x.shape)
        ahead, behind = (loss(params | {name: x + sign * step * direction})[0] for sign in (1, -1))
        assert_allclose((ahead - behind) / (2 * step), (gradient[name] * direction).sum(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["one deviation for all states", "normalised observations, clipped gradients"])
def test_the_policy_acts_as_the_paper_says(name: str, float64: None) -> None:
    """Exploring, it draws tanh(μ + σε); otherwise it takes tanh(μ)."""
    config = replace(SMALL, **CASES[name])
    state, batch = initial_state(config), make_batch(0)
    setting, learner = setting_of(config, state), learner_of(state)
    learner.seen.append(np.asarray(batch.next_obs, np.float64))
    x = reference.features(setting, learner, np.asarray(batch.obs, np.float64))
    mean, log_std, _, _ = reference.policy_head(setting, learner.policy.params, x)

    def act(state: State, batch: Transition, key: jax.Array) -> list[Any]:
        view = SAC.view(SAC.observe(config, SPEC, state, batch))
        return [SAC.act(without_numbers(config), SPEC, view, (), batch.obs, key, explore) for explore in (True, False)]

    (drawn, *nothing), (best, *still_nothing) = compiled(act)(state, batch, KEY)
    noise = np.asarray(jax.random.normal(KEY, mean.shape))
    assert_allclose(drawn, reference.squash(mean, log_std, noise)[0], atol=1e-9)
    assert_allclose(best, np.tanh(mean), atol=1e-9)
    assert nothing == still_nothing == [(), ()]


# Settings ------------------------------------------------------------------------------------------------------------

SWEPT: dict[str, Any] = {
    "learning_rate": 1e-2,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "temperature_learning_rate": 1e-2,
    "tau": 0.5,
    "initial_temperature": 0.3,
    "target_entropy": 5.0,
}
"""Numbers that members of one program may differ in."""


def computation(config: SACConfig) -> str:
    """What is computed to observe, update and act, as JAX writes it down."""
    state = jax.eval_shape(partial(SAC.init, config, SPEC), KEY)

    def everything(state: State, batch: Transition, key: jax.Array, index: jax.Array) -> Any:
        new, metrics = SAC.update(config, SPEC, SAC.observe(config, SPEC, state, batch), batch, key, index)
        return new, metrics, [SAC.act(config, SPEC, SAC.view(state), (), batch.obs, key, e) for e in (True, False)]

    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(everything)(state, make_batch(0), KEY, jnp.uint32(0))))


@pytest.fixture(scope="module")
def plain_computation() -> str:
    return computation(SMALL)


@pytest.fixture(scope="module")
def learned() -> Callable[[SACConfig], list[np.ndarray]]:
    """Everything that two updates by the one program leave behind, but for the numbers that they obeyed."""
    update = compiled(observe_and_update(SMALL))

    def learned(config: SACConfig) -> list[np.ndarray]:
        state = initial_state(config)
        for index in range(2):
            state, _ = update(state, make_batch(index), KEY, np.uint32(index))
        return jax.tree.leaves(jax.device_get(state._replace(numbers={})))

    return learned


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_number_changes_what_the_same_computation_learns(
    name: str, plain_computation: str, learned: Callable[[SACConfig], list[np.ndarray]]
) -> None:
    """It needs no other program, and it is not ignored."""
    config = replace(SMALL, **{name: SWEPT[name]})
    assert computation(config) == plain_computation
    assert not same(learned(config), learned(SMALL))


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_own_learning_rates_replace_the_common_one(learned: Callable[[SACConfig], list[np.ndarray]]) -> None:
    """Three rates of one value are the common rate of that value."""
    rates = ("actor_learning_rate", "critic_learning_rate", "temperature_learning_rate")
    own = dict.fromkeys(rates, SMALL.learning_rate)
    assert same(learned(replace(SMALL, learning_rate=0.5, **own)), learned(SMALL))


NUMBERS: dict[str, Any] = dict(
    actor_learning_rate=1e-3, critic_learning_rate=2e-3, temperature_learning_rate=3e-3, target_entropy=-1.0
)


@pytest.mark.parametrize("temperature", [0.2, "auto"])
def test_swept_numbers_are_read_from_the_state_alone(temperature: float | str) -> None:
    """With NaN for every swept number in the config, the computation is the same."""
    config = replace(SMALL, normalize_observations=True, temperature=temperature, **NUMBERS)
    static = without_numbers(config)
    swept = {f.name for f in fields(config) if f.metadata.get("swept")}
    assert numbers(config).keys() == swept - ({"temperature"} if temperature == "auto" else set())
    assert all(np.isnan(getattr(static, name)) for name in numbers(config))
    assert computation(static) == computation(config)


@pytest.mark.parametrize("temperature", [0.0, "auto"])
def test_everything_learned_is_finite(temperature: float | str) -> None:
    """Without any number in the config, and without any weight on the entropy; but for the logarithm of that weight."""
    config = replace(SMALL, temperature=temperature, **NUMBERS)
    state, metrics = compiled(observe_and_update(config))(initial_state(config), make_batch(0), KEY, np.uint32(0))
    state = state._replace(log_temperature=jnp.exp(state.log_temperature))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))


def test_numbers_start_where_the_config_says() -> None:
    """Each swept number reaches the state as a float32 scalar, with "auto" resolved."""
    found = initial_state(replace(SMALL, learning_rate=0.5, critic_learning_rate=0.25)).numbers
    assert {name: float(x) for name, x in found.items()} == {
        "actor_learning_rate": 0.5,
        "critic_learning_rate": 0.25,
        "temperature_learning_rate": 0.5,
        "gamma": float(np.float32(0.99)),
        "tau": float(np.float32(0.1)),
        "target_entropy": -ACTIONS,
    }
    assert all(x.dtype == np.float32 and x.shape == () for x in found.values())


# The state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["as published", "all at once", "one critic, fixed temperature"])
def test_an_update_keeps_the_states_form(name: str) -> None:
    """Same tree, shapes and dtypes out as in, so that it can be scanned and donated; metrics bear their names."""
    config = replace(SMALL, **CASES[name])
    form = jax.eval_shape(partial(SAC.init, config, SPEC), KEY)
    after, metrics = jax.eval_shape(observe_and_update(config), form, make_batch(0), KEY, np.uint32(0))
    assert after == form
    assert not any(x.weak_type for x in jax.tree.leaves(after))
    assert metrics.keys() == set(SAC.metrics(config)) and all(x.shape == () for x in metrics.values())


def test_critics_start_apart_and_targets_with_them() -> None:
    """Independent critics have different weights, and each target critic starts as its critic."""
    init = compiled(partial(SAC.init, replace(SMALL, critics=3, hidden_sizes=()), SPEC))
    state = init(jax.random.key(0))
    for online, target in zip(jax.tree.leaves(state.critics), jax.tree.leaves(state.target_critics)):
        assert len(np.unique(online.reshape(3, -1), axis=0)) == 3
        assert_array_equal(online, target)
