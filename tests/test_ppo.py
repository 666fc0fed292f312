"""PPO is what its papers say, to float64's precision; it learns from what happened, in the order in which it did."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import maxent
import tiny
from conformance import train
from maxent import networks, operators
from maxent.algorithms import ppo
from maxent.algorithms.ppo import PPO, Minibatch, State
from maxent.config import PPOConfig
from maxent.distributions import Categorical, Normal
from maxent.envs.host import HostEnvs
from maxent.errors import ConfigError
from maxent.loops.host import HostLoop
from maxent.loops.programs import Programs
from maxent.settings import build, without_numbers
from maxent.types import Leaf, Spec, Transition
from probes import Alternating, Constant, Probe, Target, Terminating, one_hot
from reference import ppo_numpy as reference
from reference.sac_numpy import Adam, Arrays
from test_conformance import HASH
from test_sac import KEY, assert_close, assert_slopes_agree, compiled, plain, plain_policy
from test_sac import float64 as float64  # a fixture

OBS, STEPS, ENVS = 3, 7, 2
NUMBERS = Spec(Leaf((OBS,), "float32"), Leaf((2,), "float32"))
CHOICES = Spec(Leaf((OBS,), "float32"), Leaf((2,), "int32", (2, 3)))
SMALL = PPOConfig(hidden_sizes=(8, 6), learning_rate=3e-3, rollout_length=STEPS, batch_size=4, epochs=3, gamma=0.9)
CASES: dict[str, tuple[Spec, dict[str, Any]]] = {
    "as published": (NUMBERS, {}),
    "one batch, larger than the rollout": (NUMBERS, dict(batch_size=100, gae_lambda=0.0, normalize_observations=False)),
    "all at once": (
        CHOICES,
        dict(layer_norm=True, activation="silu", max_grad_norm=0.05, gae_lambda=1.0, clip_range=0.05,
             learning_rate_decay_updates=2, value_coefficient=2.0, entropy_coefficient=0.3, learning_rate=3e-2),
    ),
}  # fmt: skip
UPDATES = 3


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Programs that compile fast, as they run for moments only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def initial_state(config: PPOConfig, spec: Spec) -> State:
    """A fresh state, its networks drawn anew: no offset is 0, no scale 1, no layer orthogonal."""
    form = jax.eval_shape(partial(PPO.init, config, spec), KEY)
    rng, real = np.random.default_rng(2), jnp.zeros(()).dtype
    rest = compiled(lambda: PPO.init(config, spec, KEY)._replace(params=()))()  # type: ignore[arg-type]
    rest = jax.tree.map(lambda x: x.astype(real) if np.issubdtype(x.dtype, np.floating) else x, jax.device_get(rest))
    draw = partial(jax.tree.map, lambda x: 0.5 * rng.standard_normal(x.shape).astype(real))
    return rest._replace(params=draw(form.params))


def make_rollout(spec: Spec, seed: int) -> Transition:
    """Steps [step, env] of which some end, some are cut, and some only reset; the policy was another one."""
    rng = np.random.default_rng(seed)
    obs, next_obs = (rng.standard_normal((2, STEPS, ENVS, OBS)) * [1, 3, 0.2] + [0, 1, 0]).astype(np.float32)
    ended, cut = np.zeros((2, STEPS, ENVS), bool)
    ended[1, 0] = cut[3, 1] = ended[STEPS - 2, 1] = cut[STEPS - 1, 0] = True
    boundary = ended | cut
    real = np.vstack([np.full((1, ENVS), seed % 2 == 0), ~boundary[:-1]])
    if spec.continuous:
        sample = rng.standard_normal((STEPS, ENVS, 2)).astype(np.float32)
    else:
        sample = rng.integers(spec.action.categories, size=(STEPS, ENVS, 2)).astype(np.int32)
    log_prob = rng.uniform(-3, -1, (STEPS, ENVS)).astype(np.float32)
    reward = rng.standard_normal((STEPS, ENVS)).astype(np.float32)
    return Transition(
        obs, sample, reward, 1 - ended.astype(np.float32), next_obs, boundary, real, ppo.Extras(sample, log_prob)
    )


def plain_rollout(rollout: Transition) -> Arrays:
    names = ("obs", "reward", "discount", "next_obs", "boundary", "real")
    found = {name: getattr(rollout, name) for name in names} | rollout.extras._asdict()
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def plain_params(params: Any) -> Arrays:
    policy = plain_policy(params.policy) if isinstance(params.policy, networks.Gaussian) else plain(params.policy)
    return reference.prefixed("policy", policy) | reference.prefixed("value", plain(params.value))


def setting_of(config: PPOConfig, spec: Spec, state: State) -> reference.Setting:
    number = {name: float(x) for name, x in state.numbers.items()}
    return reference.Setting(
        rate=number.pop("learning_rate"),
        **number,
        batch_size=config.batch_size,
        categories=spec.action.categories,
        activation=config.activation,
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.learning_rate_decay_updates,
        normalize=config.normalize_observations,
    )


def learner_of(state: State) -> reference.Learner:
    return reference.Learner(Adam(plain_params(state.params), epsilon=1e-5))


def make_minibatch(spec: Spec, state: State, config: PPOConfig, seed: int = 0) -> Minibatch:
    """Steps with ratios within the clip range and beyond it on either side, one of which has no weight."""
    rollout, rng = make_rollout(spec, seed), np.random.default_rng(seed)
    features, sample = (x.reshape(-1, x.shape[-1]) for x in (rollout.obs, rollout.extras.sample))
    policy = ppo.distribution(config, spec, state.params.policy, features)
    log_prob = np.asarray(policy.evaluate(sample)[0]) + rng.uniform(-0.4, 0.4, len(features))
    advantage, target = rng.standard_normal((2, len(features)))
    return Minibatch(features, sample, log_prob, advantage, target, np.arange(len(features)) != 3)


@cache
def learner_with(config: PPOConfig, spec: Spec) -> Callable[..., Any]:
    """(state, rollout, key, index) → state, metrics, as the loop has it: learned from first, and then observed."""
    static = without_numbers(config)

    def learn(state: State, rollout: Transition, key: jax.Array, index: jax.Array) -> tuple[State, Any]:
        state, metrics = PPO.update(static, spec, state, rollout, key, index)
        flat = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), rollout)
        return PPO.observe(static, spec, state, flat), metrics

    return compiled(learn)


@cache
def loss_and_gradient(spec: Spec) -> Callable[..., Any]:
    """(numbers, params, batch) → (loss, what is reported), gradient."""
    return compiled(jax.value_and_grad(partial(ppo.loss, without_numbers(SMALL), spec), argnums=1, has_aux=True))


# Against the papers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gae_lambda", [0.0, 0.8, 1.0])
def test_advantages_are_sums_up_to_where_an_episode_is_cut(gae_lambda: float, float64: None) -> None:
    """Of ends and time limits alike; the true last observation counts unless the episode terminated."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        reward, value, next_value = rng.standard_normal((3, 9, 4))
        ended, cut = rng.uniform(size=(2, 9, 4)) < 0.25
        found = operators.gae(reward, 0.7 * ~ended, ended | cut, value, next_value, jnp.asarray(gae_lambda))
        assert_allclose(found, reference.gae(reward, ended, cut, value, next_value, 0.7, gae_lambda), atol=1e-12)


def test_advantages_do_not_see_what_is_no_step(float64: None) -> None:
    """Whatever the rows of a reset hold, nothing else changes."""
    rollout, rng = make_rollout(NUMBERS, 0), np.random.default_rng(0)
    value, next_value = rng.standard_normal((2, STEPS, ENVS))
    resets = ~rollout.real
    assert resets.sum() == 3
    spoilt = [np.where(resets, 1e6, x) for x in (rollout.reward, value, next_value)]
    one, other = (
        operators.gae(r, 0.9 * rollout.discount, rollout.boundary, v, n, 0.8)
        for r, v, n in ((rollout.reward, value, next_value), spoilt)
    )
    assert_allclose(one[~resets], other[~resets])


@pytest.mark.parametrize(("spec", "options"), CASES.values(), ids=CASES.keys())
def test_updates_are_the_papers(spec: Spec, options: dict[str, Any], float64: None) -> None:
    """Every array and metric after each of several updates agrees with the NumPy implementation."""
    config = replace(SMALL, **options)
    state = initial_state(config, spec)
    setting, learner = setting_of(config, spec, state), learner_of(state)
    for index in range(UPDATES):
        rollout, key = make_rollout(spec, index), jax.random.fold_in(jax.random.key(0, impl=HASH), index)
        state, metrics = learner_with(config, spec)(state, rollout, key, np.uint32(index))
        orders = [np.asarray(jax.random.permutation(k, STEPS * ENVS)) for k in jax.random.split(key, config.epochs)]
        expected = reference.update(setting, learner, plain_rollout(rollout), np.array(orders), index)
        assert_close(metrics, expected, rtol=1e-6, atol=1e-8)
        assert_close(plain_params(state.params), learner.networks.params, rtol=0, atol=1e-8)
        mean, variance = reference.moments(learner.returns)
        assert_allclose([state.returns.mean[0], state.returns.variance[0]], [mean, variance], rtol=1e-6)


@pytest.mark.parametrize("spec", [NUMBERS, CHOICES], ids=["numbers", "choices"])
def test_the_loss_and_its_gradient_are_the_papers(spec: Spec, float64: None) -> None:
    """And the reference's gradient is that of its loss, so that it may judge."""
    config = replace(SMALL, entropy_coefficient=0.2)
    state = initial_state(config, spec)
    batch, setting = make_minibatch(spec, state, config), setting_of(config, spec, state)
    (found, reported), gradient = loss_and_gradient(spec)(state.numbers, state.params, batch)

    given = {name: np.asarray(x, np.float64) for name, x in batch._asdict().items()}
    params = plain_params(state.params)
    expected, expected_reported, expected_gradient = reference.loss(setting, params, given)
    assert_allclose(found, expected, rtol=1e-9)
    assert_allclose(reported, list(expected_reported.values()), rtol=1e-9)
    assert_close(plain_params(gradient), expected_gradient, rtol=1e-7, atol=1e-10)
    assert 0.2 < expected_reported["clip_fraction"] < 0.8  # or half of the loss would not be tested

    def loss(params: Arrays) -> tuple[float, Arrays]:
        total, _, slopes = reference.loss(setting, params, given)
        return total, slopes

    assert_slopes_agree(loss, params, np.random.default_rng(0))


@pytest.mark.parametrize("spec", [NUMBERS, CHOICES], ids=["numbers", "choices"])
def test_what_has_no_weight_changes_nothing(spec: Spec, float64: None) -> None:
    """Not even where its probability has grown without bound: an interruption's row stores no probability at all."""
    state = initial_state(SMALL, spec)
    batch = make_minibatch(spec, state, SMALL)
    spoilt = batch._replace(
        log_prob=np.where(batch.weight, batch.log_prob, -1e5),
        advantage=np.where(batch.weight, batch.advantage, 1e9),
        target=np.where(batch.weight, batch.target, 1e9),
    )
    value = loss_and_gradient(spec)
    one, other = (jax.tree.leaves(value(state.numbers, state.params, x)) for x in (batch, spoilt))
    for a, b in zip(one, other, strict=True):
        assert_allclose(a, b, rtol=1e-9)


def test_steps_do_not_follow_the_rewards_scale(float64: None) -> None:
    """With V = 0 at first, rewards a thousand times as large teach the same, and V a thousand times as much."""
    state, rollout = initial_state(SMALL, NUMBERS), make_rollout(NUMBERS, 0)
    *hidden, last = state.params.value.layers
    silent = state.params.value._replace(layers=(*hidden, jax.tree.map(jnp.zeros_like, last)))
    state = state._replace(params=state.params._replace(value=silent))
    after, known, key = [], [], jax.random.key(0, impl=HASH)
    for scale in (1.0, 1000.0):
        scaled = rollout._replace(reward=np.float32(scale) * rollout.reward)
        learned, _ = learner_with(SMALL, NUMBERS)(state, scaled, key, np.uint32(0))
        after.append(plain_params(learned.params))
        known.append(ppo.predicted_return(SMALL, learned.params.value, learned.returns, rollout.obs))
    assert_close(after[0], after[1], rtol=1e-4, atol=1e-7)
    assert_allclose(known[1], 1000 * np.asarray(known[0]), rtol=1e-3)


def test_a_batch_of_one_is_refused() -> None:
    """Its advantage, with mean 0 in its minibatch, would be 0."""
    with pytest.raises(ConfigError, match="batch_size is 1: it must be at least 2"):
        build(PPOConfig, {"batch_size": 1}, "ppo")


# Policies ------------------------------------------------------------------------------------------------------------


def test_normals_are_scipys(float64: None) -> None:
    """Log-probability and entropy, sums over independent entries; samples by Kolmogorov and Smirnov."""
    rng = np.random.default_rng(0)
    mean, log_std, x = rng.standard_normal((3, 5, 2))
    own = stats.norm(mean, np.exp(log_std))
    log_prob, entropy = Normal(mean, log_std).evaluate(x)
    assert_allclose(log_prob, own.logpdf(x).sum(-1))
    assert_allclose(entropy, own.entropy().sum(-1))
    assert_array_equal(Normal(mean, log_std).mode(), mean)
    drawn = np.asarray(Normal(np.full((20_000, 1), 1.5), np.full((20_000, 1), -0.7)).sample(jax.random.key(0)))
    assert stats.kstest(drawn[:, 0], stats.norm(1.5, np.exp(-0.7)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("action", [Leaf((), "int32", (4,)), Leaf((2,), "int32", (3, 2))], ids=["one", "two"])
def test_categoricals_are_scipys(action: Leaf, float64: None) -> None:
    """Log-probability and entropy, sums over independent choices; samples by chi-square, over all pairs at once."""
    rng, draws = np.random.default_rng(0), 20_000
    logits = rng.standard_normal((5, sum(action.categories)))
    ends = np.cumsum(action.categories)[:-1]
    probabilities = [np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in np.split(logits, ends, axis=-1)]
    chosen = rng.integers(action.categories, size=(5, len(action.categories)))
    log_prob, entropy = Categorical(logits, action).evaluate(chosen.reshape(5, *action.shape))
    rows = np.arange(5)
    assert_allclose(log_prob, sum(np.log(p[rows, chosen[:, i]]) for i, p in enumerate(probabilities)))
    assert_allclose(entropy, sum(stats.entropy(p, axis=-1) for p in probabilities))
    likeliest = np.stack([p.argmax(-1) for p in probabilities], -1).reshape(5, *action.shape)
    assert_array_equal(Categorical(logits, action).mode(), likeliest)
    drawn = Categorical(np.repeat(logits[:1], draws, 0), action).sample(jax.random.key(0))
    assert drawn.dtype == np.int32 and drawn.shape == (draws, *action.shape)
    number = np.ravel_multi_index(np.asarray(drawn).reshape(draws, -1).T, action.categories)
    joint = np.ones(1)
    for p in probabilities:
        joint = np.outer(joint, p[0]).ravel()
    assert stats.chisquare(np.bincount(number, minlength=joint.size), draws * joint).pvalue > 1e-3


def test_actions_are_cut_samples_and_stored_uncut() -> None:
    """The probability is that of the uncut sample; without exploring the action is the cut mean."""
    config = replace(SMALL, initial_log_std=1.0, normalize_observations=False)
    state = PPO.init(config, NUMBERS, KEY)
    obs = 5 * np.random.default_rng(0).standard_normal((50, OBS)).astype(np.float32)
    policy = ppo.distribution(config, NUMBERS, state.params.policy, obs)
    act = partial(PPO.act, config, NUMBERS, PPO.view(state), (), obs, KEY)
    (action, _, extras), (best, _, _) = compiled(lambda: (act(True), act(False)))()
    assert np.abs(extras.sample).max() > 1.5
    assert_array_equal(action, np.clip(extras.sample, -1, 1))
    assert_allclose(extras.log_prob, policy.evaluate(extras.sample)[0], rtol=1e-5)
    assert_allclose(np.std(extras.sample), np.e, rtol=0.2)
    assert_allclose(best, np.clip(policy.mean, -1, 1), atol=1e-5)


# Rollouts ------------------------------------------------------------------------------------------------------------


ROLLOUT = 5
Rollouts = tuple[list[Transition], HostEnvs, HostLoop]


@pytest.fixture(scope="module")
def played() -> Callable[..., Rollouts]:
    """(totals, the environment's arguments) → rollouts, environments, loop; interrupted after each of the totals."""
    seen: list[Transition] = []

    def update(config: Any, spec: Spec, state: State, batch: Transition, key: Any, index: Any) -> Any:
        jax.debug.callback(lambda batch: seen.append(batch), batch)
        return state, dict.fromkeys(ppo.METRICS, jnp.zeros(()))

    config = PPOConfig(hidden_sizes=(4,), rollout_length=ROLLOUT, batch_size=4, initial_log_std=1.0)
    programs = cache(partial(Programs, PPO._replace(update=update), config))

    def played(totals: list[int], *clock: Any) -> Rollouts:
        seen.clear()
        host = HostEnvs(lambda: tiny.Clock(*clock), [0], 2)
        loop = HostLoop(programs(host.spec), host, [0], {})
        for total in totals:
            for _ in loop.run(total, 7):
                pass
            loop.resume(loop.moment, loop.ring)
        jax.effects_barrier()
        return seen, host, loop

    return played


def test_a_rollout_is_the_steps_that_were_played_in_order(played: Callable[..., Rollouts]) -> None:
    """Each step once, over consecutive rollouts and whatever they cut; with what `act` stored with its own action."""
    seen, host, loop = played([3 * ROLLOUT * 2 + 4], 3, "truncated")  # the last two steps wait for a fourth rollout
    assert len(seen) == loop.updates == 3 and seen[0].reward.shape == (ROLLOUT, 2)
    rows = jax.tree.map(lambda *x: np.concatenate(x), *seen)
    assert np.abs(rows.extras.sample).max() > 1
    assert_array_equal(rows.action, np.clip(rows.extras.sample, -1, 1))
    assert len(np.unique(rows.extras.sample)) == rows.extras.sample.size
    number = np.arange(3 * ROLLOUT)
    episode, now = number // 4, number % 4
    real = now < 3  # of four rows three are steps, and the fourth, after a boundary, is the reset
    for env, clock in enumerate(host._envs[0]):
        assert_array_equal(rows.real[:, env], real)
        assert_array_equal(rows.obs[:, env], np.stack([episode, now], -1))
        assert_array_equal(rows.next_obs[:, env], np.where(real[:, None], [[0, 1]], [[1, -3]]) + rows.obs[:, env])
        assert_array_equal(rows.reward[:, env], np.where(real, 10 * episode + now + 1, 0))
        assert_array_equal(rows.boundary[:, env], now == 2)
        assert_array_equal(rows.discount[:, env], 1)
        assert_allclose(rows.action[real, env], np.array(clock.actions)[: real.sum()], rtol=1e-6)


def test_an_interruption_is_no_step(played: Callable[..., Rollouts]) -> None:
    """After it the rollout that was under way is filled up; the row that leads to the new episode is not real.

    A clock shows how often it was reset, once more when its episode is tried again: so that is cut.
    """
    seen, _, _ = played([2 * ROLLOUT + 4, 4 * ROLLOUT], 9)
    assert len(seen) == 2
    assert_array_equal(seen[1].obs[:, 0], [[0, 5], [0, 6], [0, 7], [2, 0], [2, 1]])
    assert_array_equal(seen[1].real[:, 0], [True, True, False, True, True])


# On environments whose values are known ------------------------------------------------------------------------------

GAMMA = 0.7
PROBED = PPOConfig(
    gamma=GAMMA, hidden_sizes=(16,), learning_rate=1e-2, rollout_length=32, batch_size=32, epochs=8,
    normalize_observations=False,
)  # fmt: skip


def values(loop: HostLoop, state: int) -> np.ndarray:
    """What each member expects of a state, [member]."""
    learned = loop.learned.state
    known = jax.vmap(partial(ppo.predicted_return, PROBED), (0, 0, None))
    return np.asarray(known(learned.params.value, learned.returns, one_hot(state)[None]))[:, 0]


@pytest.mark.parametrize(
    ("probe", "limit", "expected"),
    [
        (Constant, 20, [1 / (1 - GAMMA)]),
        (Alternating, 3, [1 / (1 - GAMMA**2), GAMMA / (1 - GAMMA**2)]),
        (Terminating, 20, [1 + GAMMA + GAMMA**2, 1 + GAMMA, 1.0]),
    ],
    ids=["a constant reward", "cut after every third step", "an end"],
)
def test_values_are_found(probe: type[Probe], limit: int, expected: list[float]) -> None:
    """A time limit does not end the value, an end does."""
    loop, _ = train(PPO, PROBED, probe, limit, steps=2560)
    for state, value in enumerate(expected):
        assert_allclose(values(loop, state), value, rtol=0.05)


def test_the_best_action_is_found() -> None:
    """By the mean of the policy, in each member. With PROBED's step size it grows sure too soon, at times of worse."""
    loop, report = train(PPO, replace(PROBED, learning_rate=3e-3), Target, steps=5120)
    obs = np.broadcast_to(one_hot(0), (*loop.envs.shape, len(one_hot(0))))
    action, _, _ = loop.programs.act(
        loop.view, loop.carry, obs, loop.stepped.starts, loop.roots, np.uint32(0), explore=False
    )
    assert_allclose(action, Target.best, atol=0.05)
    assert (report.metrics["entropy"] < 0.9).all()  # 1.42 at the start: it grows sure


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_solves_cartpole() -> None:
    """With its defaults, within 60,000 steps: 475 of 500 is the task's own mark."""
    learned = maxent.PPO("CartPole-v1", seed=0).learn(60_000)
    assert learned.evaluate(20).mean_return > 475
