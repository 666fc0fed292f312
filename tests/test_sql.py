"""Soft Q-learning is what its paper says, to float64's precision; every setting means something."""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from maxent.algorithms import sql
from maxent.algorithms.sql import SQL, State
from maxent.config import SQLConfig
from maxent.envs.host import HostEnvs
from maxent.envs.spaces import spec_of
from maxent.errors import ConfigError
from maxent.loops.host import HostLoop
from maxent.loops.programs import Programs
from maxent.networks import MLP, Linear
from maxent.settings import check, numbers, without_numbers
from maxent.types import Leaf, Spec, Transition
from oracles import X, log_integral
from probes import Alternating, Probe, Terminating, one_hot
from reference import sql_numpy as reference
from reference.sac_numpy import Adam
from test_sac import KEY, assert_close, assert_slopes_agree, compiled, make_batch, plain, plain_batch, plain_critics

OBS, ACTIONS, BATCH = 3, 2, 12
SPEC = Spec(obs=Leaf((OBS,), "float32"), action=Leaf((ACTIONS,), "float32"))
SMALL = SQLConfig(
    hidden_sizes=(8, 6), learning_rate=3e-3, batch_size=BATCH, temperature=0.5, value_particles=5, kernel_particles=7,
    greedy_particles=4, target_update_interval=2,
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "particles on the box": dict(kernel_space="action", kernel_scale=1.0, kernel_update_ratio=0.3),
    "the sampler proposes from the third update on": dict(policy_proposal_after=2, activation="tanh", tau=0.3),
    "all at once": dict(
        critics=3, layer_norm=True, activation="silu", normalize_observations=True, max_grad_norm=0.2,
        learning_rate_decay_updates=100, critic_learning_rate=1e-2, sampler_learning_rate=1e-3,
        learning_rate_steps=(1, 3), learning_rate_factor=0.5, target_update_interval=1, tau=0.1,
    ),
}  # fmt: skip
UPDATES = 4


@pytest.fixture
def float64() -> Iterator[None]:
    """JAX in double precision, so that a comparison sees formulas and not rounding."""
    with jax.enable_x64(True):
        yield


def initial_state(config: SQLConfig) -> State:
    """A fresh state, its networks drawn anew: targets differ from critics, and no offset is 0 or scale 1."""
    form = jax.eval_shape(partial(SQL.init, config, SPEC), KEY)
    rng, real = np.random.default_rng(2), jnp.zeros(()).dtype

    def draw(tree: Any) -> Any:
        return jax.tree.map(lambda x: 0.5 * rng.standard_normal(x.shape).astype(real), tree)

    def rest() -> State:
        return SQL.init(config, SPEC, KEY)._replace(sampler=(), critics=(), target_critics=())  # type: ignore[arg-type]

    state = jax.device_get(compiled(rest)())
    state = jax.tree.map(lambda x: x.astype(real) if np.issubdtype(x.dtype, np.floating) else x, state)
    return state._replace(**{name: draw(getattr(form, name)) for name in ("sampler", "critics", "target_critics")})


def observe_and_update(config: SQLConfig) -> Callable[..., Any]:
    """(state, batch, key, index) → state, metrics, as the loop calls them: with a config that has no numbers."""
    static = without_numbers(config)

    def function(state: State, batch: Transition, key: jax.Array, index: jax.Array) -> tuple[State, Any]:
        return SQL.update(static, SPEC, SQL.observe(static, SPEC, state, batch), batch, key, index)

    return function


def setting_of(config: SQLConfig, state: State) -> reference.Setting:
    number = {name: float(x) for name, x in state.numbers.items()}
    after = config.policy_proposal_after
    return reference.Setting(
        sampler_rate=number["sampler_learning_rate"],
        critic_rate=number["critic_learning_rate"],
        temperature=number["temperature"],
        tau=number["tau"],
        interval=config.target_update_interval,
        updated=config.updated_particles,
        kernel_scale=config.kernel_scale,
        space=config.kernel_space,
        proposal_after=np.inf if after == "never" else after,
        critics=config.critics,
        activation=config.activation,
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.learning_rate_decay_updates,
        steps=config.learning_rate_steps,
        factor=config.learning_rate_factor,
        normalize=config.normalize_observations,
    )


def draws_of(config: SQLConfig, key: jax.Array) -> reference.Draws:
    first, second = jax.random.split(key)
    shape = (BATCH, config.value_particles, ACTIONS)
    drawn = (
        jax.random.uniform(first, shape, minval=-1.0, maxval=1.0),
        jax.random.normal(first, shape),
        jax.random.normal(second, (BATCH, config.kernel_particles, ACTIONS)),
    )
    return reference.Draws(*(np.asarray(x, np.float64) for x in drawn))


# Against the paper ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_updates_are_the_papers(options: dict[str, Any], float64: None) -> None:
    """Losses, gradients and every array after each of several updates agree with the NumPy implementation."""
    config = replace(SMALL, **options)
    state = initial_state(config)
    setting = setting_of(config, state)
    learner = reference.Learner(
        Adam(plain(state.sampler)), Adam(plain_critics(state.critics)), plain_critics(state.target_critics)
    )
    update = compiled(observe_and_update(config))
    for index in range(UPDATES):
        batch, key = make_batch(index), jax.random.fold_in(KEY, index)
        learner.seen.append(np.asarray(batch.next_obs, np.float64))
        state, metrics = update(state, batch, key, np.uint32(index))
        expected, gradients = reference.update(setting, learner, plain_batch(batch), draws_of(config, key), index)
        assert_close(metrics, expected, rtol=1e-6, atol=1e-8)
        if index == 0 and not config.max_grad_norm:
            learned = (state.sampler, state.sampler_opt), (state.critics, state.critics_opt)
            first = [ravel_pytree(params)[1](opt.mu / 0.1) for params, opt in learned]
            assert_close(plain(first[0]), gradients["sampler"], rtol=1e-7, atol=1e-10)
            assert_close(plain_critics(first[1]), gradients["critics"], rtol=1e-7, atol=1e-10)
        assert_close(plain(state.sampler), learner.sampler.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.target_critics), learner.targets, rtol=0, atol=1e-9)


@pytest.mark.parametrize("space", ["pre_tanh", "action"])
def test_the_references_scores_are_slopes_of_log_densities(space: str) -> None:
    """Its hand-derived ∇ log p and ∂a/∂ξ agree with central differences, so that it may judge."""
    config = replace(SMALL, kernel_space=space, activation="tanh", critics=2)
    state, rng = initial_state(config), np.random.default_rng(0)
    setting, critics, sampler = setting_of(config, state), plain_critics(state.critics), plain(state.sampler)
    x, noise = rng.standard_normal((1, OBS)), rng.standard_normal((1, config.kernel_particles, ACTIONS))

    def loss(params: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
        """-mean(Δ·u) with Δ as it is at `sampler`; Δ from differences of log p."""
        gradient, _ = reference.sampler_step(setting, params, critics, x, noise)
        u, start = (particles_of(setting, p, x, noise) for p in (params, sampler))
        updated, fixed = np.split(start, [setting.updated])
        score = np.stack([differences(partial(log_density, setting, critics, x[0]), point) for point in fixed])
        delta, _ = reference.stein_direction(fixed, score, updated, setting.kernel_scale)
        return -float((delta * u[: setting.updated]).sum(-1).mean()), gradient

    assert_slopes_agree(loss, sampler, rng)
    action, log_q = reference.sampler_density(setting, sampler, x[0], noise[0, 0])
    moved = [particles_of(setting, sampler, x, noise[:, :1] + 1e-6 * e) for e in np.eye(ACTIONS)]
    behind = [particles_of(setting, sampler, x, noise[:, :1] - 1e-6 * e) for e in np.eye(ACTIONS)]
    squash = np.tanh if space == "pre_tanh" else lambda u: u
    jacobian = np.array([(squash(a) - squash(b))[0] / 2e-6 for a, b in zip(moved, behind)])
    log_normal = stats.norm.logpdf(noise[0, 0]).sum()
    assert_allclose(log_q, log_normal - np.log(abs(np.linalg.det(jacobian))), rtol=1e-6)
    assert_allclose(action, squash(particles_of(setting, sampler, x, noise[:, :1]))[0])


def particles_of(setting: reference.Setting, sampler: Any, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
    out, _ = reference.forward(sampler, np.hstack([np.tile(x, (noise.shape[1], 1)), noise[0]]), setting.activation)
    return np.tanh(out) if setting.space == "action" else out


def log_density(setting: reference.Setting, critics: Any, x: np.ndarray, particle: np.ndarray) -> float:
    action = particle if setting.space == "action" else np.tanh(particle)
    q, _ = reference.q_and_slope(setting, critics, x, action[None])
    extra = 1e-6 if setting.space == "action" else 0.0
    return q[0] / setting.temperature + np.log(1 - action**2 + extra).sum()


def differences(function: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    steps = 1e-6 * np.eye(len(at))
    return np.array([(function(at + step) - function(at - step)) / 2e-6 for step in steps])


def test_actions_are_draws_or_the_best_of_fixed_noise(float64: None) -> None:
    """Exploring, tanh f(s, ξ); otherwise the same for every key: of the fixed noises' actions, the one of highest Q."""
    config = replace(SMALL, critics=2)
    state, batch = initial_state(config), make_batch(0)
    setting = setting_of(config, state)
    critics, sampler = plain_critics(state.critics), plain(state.sampler)
    act, greedy = (
        compiled(lambda *given, explore=explore: SQL.act(without_numbers(config), SPEC, *given, explore))
        for explore in (True, False)
    )
    view, obs = SQL.view(state), np.asarray(batch.obs, np.float64)
    noise = np.asarray(jax.random.normal(KEY, (BATCH, 1, ACTIONS)))
    drawn, *rest = act(view, (), batch.obs, KEY)
    for b in range(BATCH):
        assert_allclose(drawn[b], np.tanh(particles_of(setting, sampler, obs[b : b + 1], noise[b : b + 1])[0]))
    best, *_ = greedy(view, (), batch.obs, KEY)
    assert_array_equal(best, greedy(view, (), batch.obs, jax.random.fold_in(KEY, 1))[0])
    for b in range(BATCH):
        actions = np.tanh(particles_of(setting, sampler, obs[b : b + 1], np.asarray(state.greedy_noise)[None]))
        q, _ = reference.q_and_slope(setting, critics, obs[b], actions)
        assert_allclose(best[b], actions[q.argmax()])
    assert rest == [(), ()]


# The soft value ------------------------------------------------------------------------------------------------------


def test_a_flat_critic_is_worth_itself_and_the_boxs_entropy() -> None:
    """V = c + α d log 2 from any number of uniform actions, all of which count."""
    value, efficiency = sql.soft_value(jnp.full((3, 7), 2.5), jnp.full((3, 7), -2 * np.log(2.0)), 0.4)
    assert_allclose(value, 2.5 + 0.4 * 2 * np.log(2), rtol=1e-6)
    assert_allclose(efficiency, 1, rtol=1e-5)


def test_a_single_heavy_action_counts_alone() -> None:
    """However far Q/α reaches, nothing overflows: V = max Q - α log(K q), and one of K actions counts."""
    value, efficiency = sql.soft_value(jnp.array([[-1e5, 3e4, 0.0, -5.0]]), jnp.full((1, 4), -np.log(2.0)), 0.01)
    assert_allclose(value, 3e4 + 0.01 * (np.log(2) - np.log(4)), rtol=1e-6)
    assert_allclose(efficiency, 0.25, rtol=1e-4)


def fixed_sampler(*layers: tuple[list[list[float]], list[float]]) -> MLP:
    return MLP(tuple(Linear(jnp.array(w), jnp.array(b)) for w, b in layers), ())


def propose(kind: str, sampler: MLP, key: int = 0, count: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    """Actions for one state, whose only feature is 0, and their log-density: [particle] each."""
    config = SQLConfig(value_particles=count)
    function = {"uniform": sql.propose_uniform, "sampler": sql.propose_from_sampler}[kind]
    action, log_q = jax.jit(partial(function, config))(sampler, jnp.zeros((1, 1)), jax.random.key(key))
    return np.asarray(action)[0, :, 0], np.asarray(log_q)[0]


STRETCH = fixed_sampler(([[0.0], [0.8]], [0.2]))
"""u = 0.8 ξ + 0.2: every action comes from one ξ."""
FOLD = fixed_sampler(([[0.0, 0.0], [1.0, -1.0]], [0.0, 0.0]), ([[1.0], [1.0]], [0.0]))
"""u = |ξ|: positive actions come from two ξ, negative ones from none."""


@pytest.mark.parametrize("kind", ["uniform", "sampler"])
def test_both_proposals_give_the_log_integral(kind: str) -> None:
    """V = α log ∫ exp(Q/α) da, where the sampler gives each action once; and actions have the density they claim."""
    action, log_q = propose(kind, STRETCH)
    log_f, log_f_on_grid = (2 * a - 3 * (a - 0.1) ** 2 for a in (action, X))
    value, _ = sql.soft_value(0.7 * log_f[None], log_q[None], 0.7)
    assert_allclose(value, 0.7 * log_integral(log_f_on_grid), atol=0.01)
    edges = np.linspace(-0.9, 0.9, 19)
    order = np.argsort(action)
    density = np.interp(X, action[order], np.exp(log_q[order]))
    within = [(low <= X) & (X < high) for low, high in zip(edges, edges[1:])]
    expected = np.array([np.trapezoid(np.where(inside, density, 0), X) for inside in within])
    found, _ = np.histogram(action, edges)
    statistic = ((found - len(action) * expected) ** 2 / (len(action) * expected)).sum()
    assert stats.chi2.sf(statistic, len(expected)) > 1e-4


def test_a_sampler_that_folds_counts_actions_as_often_as_it_gives_them() -> None:
    """V is then α log ∫ N(a) exp(Q/α) da, with N(a) the number of ξ that lead to a: the density is too small."""
    action, log_q = propose("sampler", FOLD)
    value, _ = sql.soft_value(action[None], log_q[None], 1.0)
    assert_allclose(value, log_integral(X + np.log(np.where(X > 0, 2, 1e-30))), atol=0.02)


def test_a_sampler_that_stands_still_gives_a_finite_value() -> None:
    """Its Jacobian is singular, as the paper warns."""
    action, log_q = propose("sampler", fixed_sampler(([[0.0], [0.0]], [0.3])), count=4)
    assert np.isfinite(sql.soft_value(action[None], log_q[None], 0.1)[0]).all()


# The whole loop ------------------------------------------------------------------------------------------------------


def test_values_on_probes_are_known() -> None:
    """What does not depend on actions earns the box's whole entropy, α log 2 a step: cut by a limit, and at an end."""
    config = SQLConfig(
        gamma=0.7, learning_rate=5e-3, temperature=0.5, tau=0.1, target_update_interval=1, hidden_sizes=(32,),
        activation="tanh", batch_size=64, buffer_size=1500, learning_starts=100, value_particles=4, kernel_particles=4,
    )  # fmt: skip
    programs = Programs(SQL, config, spec_of(Probe.observation_space, Probe.action_space))
    gamma, bonus = 0.7, 0.5 * np.log(2)
    known: dict[type[Probe], list[float]] = {
        Alternating: [
            (1 + bonus * (gamma + gamma**2)) / (1 - gamma**2),
            (gamma + bonus * (gamma + gamma**2)) / (1 - gamma**2),
        ],
        Terminating: [1 + gamma + gamma**2 + bonus * (gamma + gamma**2), 1 + gamma + bonus * gamma, 1.0],
    }
    for probe, expected in known.items():
        loop = HostLoop(programs, HostEnvs(lambda probe=probe: TimeLimit(probe(), 3), [0], 2), [0], {})
        for _ in loop.run(1600, 1600):
            pass
        state = jax.tree.map(lambda x: x[0], loop.learned.state)
        obs = np.stack([one_hot(i) for i in range(len(expected))])
        for action in (-0.8, 0.0, 0.8):
            q = SQL.q(config, programs.spec, state, obs, np.full((len(obs), 1), action, np.float32))
            assert_allclose(q, expected, rtol=0.06)


# Settings ------------------------------------------------------------------------------------------------------------

COMPILED: dict[str, Any] = {
    "hidden_sizes": (8, 7),
    "activation": "tanh",
    "layer_norm": True,
    "normalize_observations": True,
    "learning_rate_decay_updates": 3,
    "learning_rate_steps": (2,),
    "learning_rate_factor": 0.5,
    "max_grad_norm": 0.01,
    "critics": 3,
    "target_update_interval": 3,
    "value_particles": 4,
    "policy_proposal_after": 1,
    "kernel_particles": 6,
    "kernel_update_ratio": 0.3,
    "kernel_scale": 1.0,
    "kernel_space": "action",
    "greedy_particles": 5,
}
"""Settings that change the program, each with a value that differs from that of SMALL."""
TOGETHER = {"learning_rate_factor": {"learning_rate_steps": (2,)}, "learning_rate_steps": {"learning_rate_factor": 0.9}}
SWEPT: dict[str, Any] = {
    "learning_rate": 1e-2,
    "sampler_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "tau": 0.5,
    "temperature": 0.3,
}
"""Numbers that members of one program may differ in."""
ENGINE = ("gamma", "buffer_size", "learning_starts", "batch_size", "utd", "n_step")
"""Settings of the loop and the replay alone: they reach the algorithm in its batches, or not at all."""


def computation(config: SQLConfig) -> str:
    """What is computed to observe, update and act, as JAX writes it down."""
    state = jax.eval_shape(partial(SQL.init, config, SPEC), KEY)

    def everything(state: State, batch: Transition, key: jax.Array, index: jax.Array) -> Any:
        new, metrics = SQL.update(config, SPEC, SQL.observe(config, SPEC, state, batch), batch, key, index)
        return new, metrics, [SQL.act(config, SPEC, SQL.view(state), (), batch.obs, key, e) for e in (True, False)]

    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(everything)(state, make_batch(0), KEY, jnp.uint32(0))))


@pytest.fixture(scope="module")
def plain_computation() -> str:
    return computation(SMALL)


def test_every_setting_is_accounted_for() -> None:
    """A new field of the config belongs into exactly one of the three tables above."""
    assert sorted([*COMPILED, *SWEPT, *ENGINE]) == sorted(f.name for f in fields(SQLConfig))


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_setting_changes_the_computation(name: str, plain_computation: str) -> None:
    """None is silently ignored."""
    base = replace(SMALL, **TOGETHER.get(name, {}))
    before = plain_computation if base == SMALL else computation(base)
    assert computation(replace(base, **{name: COMPILED[name]})) != before


def test_swept_numbers_change_what_the_same_program_learns() -> None:
    """Each needs no other program, is read from the state alone, and is not ignored."""
    update = compiled(observe_and_update(SMALL))

    def learned(config: SQLConfig) -> list[np.ndarray]:
        state = initial_state(config)
        for index in range(3):
            state, _ = update(state, make_batch(index), KEY, np.uint32(index))
        return jax.tree.leaves(jax.device_get(state._replace(numbers={})))

    usual = learned(SMALL)
    assert SWEPT.keys() == {f.name for f in fields(SQLConfig) if f.metadata.get("swept")} - {"gamma"}
    for name, value in SWEPT.items():
        other = learned(replace(SMALL, **{name: value}))
        assert not all(np.array_equal(x, y) for x, y in zip(usual, other, strict=True)), name


@pytest.mark.parametrize("proposal", [2, "never"])
def test_swept_numbers_are_read_from_the_state_alone(proposal: int | str) -> None:
    """With NaN for every swept number in the config, the computation is the same."""
    config = replace(SMALL, normalize_observations=True, policy_proposal_after=proposal)
    static = without_numbers(config)
    assert all(np.isnan(getattr(static, name)) for name in numbers(config))
    assert computation(static) == computation(config)


@pytest.mark.parametrize("name", ["defaults", "all at once", "the sampler proposes from the third update on"])
def test_an_update_keeps_the_states_form(name: str) -> None:
    """Same tree, shapes and dtypes out as in, so that it can be scanned and donated; metrics bear their names."""
    config = replace(SMALL, **CASES[name])
    form = jax.eval_shape(partial(SQL.init, config, SPEC), KEY)
    after, metrics = jax.eval_shape(observe_and_update(config), form, make_batch(0), KEY, np.uint32(0))
    assert after == form
    assert not any(x.weak_type for x in jax.tree.leaves(after))
    assert metrics.keys() == set(SQL.metrics(config)) and all(x.shape == () for x in metrics.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(kernel_particles=4, kernel_update_ratio=0.9), "two as they are"),
        (dict(kernel_particles=4, kernel_update_ratio=0.1), "one to update"),
        (dict(learning_rate_steps=(5,)), "one needs the other"),
        (dict(learning_rate_factor=0.5), "one needs the other"),
        (dict(temperature=0.0), "above 0"),
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(replace(SMALL, **options), "sql")
