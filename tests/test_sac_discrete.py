"""SAC for discrete actions is what its paper says, and finds what the exact solvers find."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import maxent
from maxent import networks, tabular
from maxent.algorithms.sac_discrete import MOST_ACTIONS, SAC_DISCRETE, State
from maxent.config import Activation, SACDiscreteConfig
from maxent.envs.host import HostEnvs
from maxent.envs.spaces import spec_of
from maxent.errors import ConfigError
from maxent.loops.host import HostLoop
from maxent.loops.programs import Programs
from maxent.settings import numbers, without_numbers
from maxent.types import Leaf, Spec, Transition
from reference import sac_discrete_numpy as reference
from reference.sac_numpy import Adam, Arrays, Learner
from reference.sac_numpy import features as reference_features
from test_sac import KEY, assert_close, assert_slopes_agree, compiled, plain, plain_critics, same
from test_sac import float64 as float64  # a fixture

OBS, ACTIONS, BATCH, UPDATES = 3, 6, 12, 5
SPEC = Spec(obs=Leaf((OBS,), "float32"), action=Leaf((), "int32", (ACTIONS,)))
SEVERAL = replace(SPEC, action=Leaf((2,), "int32", (2, 3)))
SMALL = SACDiscreteConfig(hidden_sizes=(8, 6), learning_rate=3e-3, tau=0.1, batch_size=BATCH)
CASES: dict[str, dict[str, Any]] = {
    "as published": dict(target_entropy_ratio=0.98),
    "one critic, fixed temperature": dict(critics=1, temperature=0.2),
    "no entropy in the target, mean of three critics": dict(entropy_in_target=False, average_critics=True, critics=3),
    "bounded critics": dict(q_clip=0.1),
    "all at once": dict(
        critics=3, layer_norm=True, activation="silu", max_grad_norm=0.2, normalize_observations=True, tau=0.3,
        learning_rate_decay_updates=4, critic_learning_rate=1e-2, average_critics=True, q_clip=0.2,
    ),
}  # fmt: skip


def initial_state(config: SACDiscreteConfig, spec: Spec = SPEC) -> State:
    """A fresh state, its networks drawn anew: targets differ from critics, and no offset is 0 or scale 1."""
    form = jax.eval_shape(partial(SAC_DISCRETE.init, config, spec), KEY)
    rng, real = np.random.default_rng(2), jnp.zeros(()).dtype

    def draw(tree: Any) -> Any:
        return jax.tree.map(lambda x: 0.5 * rng.standard_normal(x.shape).astype(real), tree)

    def rest() -> State:
        none: Any = ()
        return SAC_DISCRETE.init(config, spec, KEY)._replace(policy=none, critics=none, target_critics=none)

    state = jax.device_get(compiled(rest)())
    state = jax.tree.map(lambda x: x.astype(real) if np.issubdtype(x.dtype, np.floating) else x, state)
    return state._replace(**{name: draw(getattr(form, name)) for name in ("policy", "critics", "target_critics")})


def observe_and_update(config: SACDiscreteConfig, spec: Spec = SPEC) -> Callable[..., Any]:
    """(state, batch, key, index) → state, metrics, as the loop calls them: with a config that has no numbers."""
    static = without_numbers(config)

    def function(state: State, batch: Transition, key: jax.Array, index: jax.Array) -> tuple[State, Any]:
        return SAC_DISCRETE.update(static, spec, SAC_DISCRETE.observe(static, spec, state, batch), batch, key, index)

    return function


def make_batch(seed: int) -> Transition:
    """Transitions as the replay gives them, ended ones and n-step ones among them."""
    rng = np.random.default_rng(seed)
    obs, next_obs = (rng.standard_normal((2, BATCH, OBS)) * [1, 3, 0.2] + [0, 1, 0]).astype(np.float32)
    return Transition(
        obs=obs,
        action=rng.integers(ACTIONS, size=BATCH).astype(np.int32),
        reward=rng.standard_normal(BATCH).astype(np.float32),
        discount=rng.choice(np.float32([0, 0.9, 0.81]), BATCH),
        next_obs=next_obs,
        boundary=rng.uniform(size=BATCH) < 0.3,
        real=np.ones(BATCH, bool),
    )


def learner_of(state: State) -> Learner:
    return Learner(
        policy=Adam(plain(state.policy)),
        critics=Adam(plain_critics(state.critics)),
        targets=plain_critics(state.target_critics),
        temperature=Adam({"log": np.asarray(state.log_temperature, np.float64)}),
    )


def setting_of(config: SACDiscreteConfig, state: State) -> reference.Setting:
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
        max_grad_norm=config.max_grad_norm,
        decay_updates=config.learning_rate_decay_updates,
        normalize=config.normalize_observations,
        entropy_in_target=config.entropy_in_target,
        average=config.average_critics,
        q_clip=config.q_clip,
    )


def plain_batch(batch: Transition) -> Arrays:
    names = ("obs", "action", "reward", "discount", "next_obs")
    return {name: np.asarray(getattr(batch, name), np.float64) for name in names}


# Against the paper ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_updates_are_the_papers(options: dict[str, Any], float64: None) -> None:
    """Losses, gradients and every array after each of several updates agree with the NumPy implementation."""
    config = replace(SMALL, **options)
    state = initial_state(config)
    setting, learner = setting_of(config, state), learner_of(state)
    update = compiled(observe_and_update(config))
    for index in range(UPDATES):
        batch = make_batch(index)
        learner.seen.append(np.asarray(batch.next_obs, np.float64))
        state, metrics = update(state, batch, KEY, np.uint32(index))
        expected, gradients = reference.update(setting, learner, plain_batch(batch), index)
        assert_close(metrics, expected, rtol=1e-6, atol=1e-8)
        if index == 0 and not config.max_grad_norm:  # Adam's first moment is then a tenth of the gradient
            for name, found in first_moments(state).items():
                assert_close(found, {k: 0.1 * g for k, g in gradients.get(name, {"log": 0.0}).items()}, atol=1e-10)
        assert_close(plain(state.policy), learner.policy.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.critics), learner.critics.params, rtol=0, atol=1e-9)
        assert_close(plain_critics(state.target_critics), learner.targets, rtol=0, atol=1e-9)
        assert_allclose(state.log_temperature, learner.temperature.params["log"], rtol=0, atol=1e-9)


def first_moments(state: State) -> dict[str, Arrays]:
    learned = (state.policy, state.policy_opt), (state.critics, state.critics_opt)
    policy, critics = (ravel_pytree(params)[1](opt.mu) for params, opt in learned)
    temperature = state.temperature_opt.mu[0]
    return {"policy": plain(policy), "critics": plain_critics(critics), "temperature": {"log": temperature}}


def test_a_bound_on_the_critics_binds() -> None:
    """The cases of bounded critics would prove nothing, were the bound never reached."""
    state, batch = initial_state(SMALL), plain_batch(make_batch(0))
    losses = []
    for clip in (0.1, 0.0):
        setting, learner = setting_of(replace(SMALL, q_clip=clip), state), learner_of(state)
        given = (batch["obs"], batch["action"].astype(int), batch["reward"])
        losses.append(reference.critic_loss(setting, learner.critics.params, learner.targets, *given)[0])
    assert (losses[0] > 1.05 * losses[1]).all()


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"average_critics": True}, {"q_clip": 0.1}], ids=str)
def test_the_references_gradients_are_those_of_its_losses(options: dict[str, Any]) -> None:
    """Its hand-derived gradients agree with central differences, for each activation, so that it may judge."""
    config = replace(SMALL, **options)
    state, rng = initial_state(config), np.random.default_rng(0)
    learner, batch = learner_of(state), plain_batch(make_batch(0))
    policy, critics = learner.policy.params, learner.critics.params

    def loss_of_critics(setting: reference.Setting, params: Arrays) -> tuple[float, Arrays]:
        given = (batch["obs"], batch["action"].astype(int), batch["reward"])
        losses, _, gradient = reference.critic_loss(setting, params, learner.targets, *given)
        return float(losses.sum()), gradient

    def loss_of_policy(setting: reference.Setting, params: Arrays) -> tuple[float, Arrays]:
        loss, _, gradient = reference.policy_loss(setting, params, critics, 0.4, batch["obs"])
        return loss, gradient

    for activation in Activation.__args__:
        setting = setting_of(replace(config, activation=activation), state)
        assert_slopes_agree(partial(loss_of_critics, setting), critics, rng)
        assert_slopes_agree(partial(loss_of_policy, setting), policy, rng)


def test_several_choices_are_one_choice_among_their_combinations() -> None:
    """The same is learned, bit for bit, from pairs of choices and from their numbers in C order."""
    state, batch = initial_state(SMALL), make_batch(0)
    pairs = np.stack(np.unravel_index(batch.action, SEVERAL.action.categories), -1).astype(np.int32)
    alone = compiled(observe_and_update(SMALL))(state, batch, KEY, np.uint32(0))
    several = compiled(observe_and_update(SMALL, SEVERAL))(state, batch._replace(action=pairs), KEY, np.uint32(0))
    assert same(jax.tree.leaves(alone), jax.tree.leaves(several))


# Acting --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, SEVERAL], ids=["one choice", "two choices"])
def test_actions_are_drawn_as_the_policy_says(spec: Spec) -> None:
    """Exploring, their frequencies are π(a|s); otherwise each is the likeliest. int32, in the form of the space."""
    config = replace(SMALL, normalize_observations=True, hidden_sizes=())
    state, batch, draws = initial_state(config, spec), make_batch(0), 20_000
    state = SAC_DISCRETE.observe(config, spec, state, batch)
    setting, learner = setting_of(config, state), learner_of(state)
    learner.seen.append(np.asarray(batch.next_obs, np.float64))
    x = reference_features(setting, learner, np.asarray(batch.obs, np.float64))
    policy, _, _ = reference.policy_head(setting, learner.policy.params, x)

    def act(obs: np.ndarray, explore: bool) -> np.ndarray:
        view = SAC_DISCRETE.view(state)
        action, *nothing = SAC_DISCRETE.act(without_numbers(config), spec, view, (), obs, KEY, explore)
        assert action.dtype == np.int32 and action.shape == (len(obs), *spec.action.shape) and nothing == [(), ()]
        return np.ravel_multi_index(np.asarray(action).reshape(len(obs), -1).T, spec.action.categories)

    assert_array_equal(act(batch.obs, False), policy.argmax(-1))
    assert len(set(policy.argmax(-1))) > 1  # or a constant would do
    for row in range(2):
        found = np.bincount(act(np.repeat(batch.obs[row : row + 1], draws, 0), True), minlength=ACTIONS)
        assert stats.chisquare(found, draws * policy[row]).pvalue > 1e-3


def test_spaces_beyond_it_are_refused_in_one_line() -> None:
    """Numbers for actions, and more combinations than networks should have outputs; the most are taken."""

    class Environment(gymnasium.Env):
        observation_space = spaces.Box(-1, 1, (1,))

        def __init__(self, action_space: spaces.Space) -> None:
            self.action_space = action_space

    with pytest.raises(ConfigError, match="sac_discrete does not take continuous actions: use sac") as error:
        maxent.SACDiscrete(Environment(spaces.Box(-1, 1, (2,))))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="8,192 combinations of choices .* up to 4,096") as error:
        maxent.SACDiscrete(Environment(spaces.MultiBinary(13)))
    assert "\n" not in str(error.value)
    most = replace(SPEC, action=Leaf((12,), "int32", (2,) * 12))
    state = jax.eval_shape(partial(SAC_DISCRETE.init, SMALL, most), KEY)
    assert state.policy.layers[-1].bias.shape == (MOST_ACTIONS,)


# Against exact solutions ---------------------------------------------------------------------------------------------

LINEAR = SACDiscreteConfig(
    hidden_sizes=(), learning_rate=0.05, tau=0.05, batch_size=512, learning_rate_decay_updates=4000
)
"""Of one-hot states, networks without hidden layers are tables."""


@cache
def trainer(config: SACDiscreteConfig, states: int, actions: int) -> Callable[..., State]:
    """(rewards, discounts, transitions drawn) → the state after one update from each row of them."""
    spec = Spec(Leaf((), "int32", (states,)), Leaf((), "int32", (actions,)))
    static = without_numbers(config)

    def train(reward: jax.Array, discount: jax.Array, drawn: jax.Array) -> State:
        def one(state: State, at: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
            index, triples = at
            s, a, successor = jnp.unravel_index(triples, (states, actions, states))
            batch = Transition(s, a, reward[s, a], discount[successor], successor, jnp.zeros(()), jnp.ones(()))
            return SAC_DISCRETE.update(static, spec, state, batch, KEY, index)[0], None

        start = SAC_DISCRETE.init(config, spec, KEY)
        return jax.lax.scan(one, start, (jnp.arange(len(drawn)), drawn))[0]

    return jax.jit(train)


def learn(mdp: tabular.MDP, visits: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Both critics' Q, the policy and the temperature, learned from states visited so often and uniform actions."""
    config = replace(LINEAR, **options)
    weight = (visits[:, None, None] * mdp.transition).ravel()
    size = (config.learning_rate_decay_updates, config.batch_size)
    drawn = np.random.default_rng(0).choice(weight.size, size, p=weight / weight.sum())
    discount = np.where(mdp.terminal, 0, mdp.discount)
    state = trainer(config, mdp.num_states, mdp.num_actions)(np.float32(mdp.reward), np.float32(discount), drawn)
    q, logits = (net.layers[0].weight + net.layers[0].bias[..., None, :] for net in (state.critics, state.policy))
    return np.asarray(q), np.asarray(jax.nn.softmax(logits)), float(jnp.exp(state.log_temperature))


RANDOM = tabular.random_mdp(5, 3, discount=0.9, seed=0)


@pytest.mark.parametrize(
    ("mdp", "temperature"),
    [
        (RANDOM, 0.8),
        (tabular.random_mdp(5, 3, discount=0.9, seed=1), 0.8),
        (tabular.chain(5, discount=0.95, slip=0.2), 0.05),
    ],
    ids=["random", "another", "with an end"],
)
def test_tables_become_the_soft_optimal_ones(mdp: tabular.MDP, temperature: float) -> None:
    """At a fixed temperature: each critic within 2 % of Q*, the policy within 0.02 of π* in total variation."""
    alive = ~mdp.terminal
    q, policy, _ = learn(mdp, alive / alive.sum(), temperature=temperature)
    exact = tabular.soft_policy_iteration(mdp, temperature)
    assert 0.02 < exact.policy[alive].min() < 0.5 / mdp.num_actions  # neither uniform nor greedy
    assert_allclose(q[:, alive], [exact.q[alive]] * 2, rtol=0, atol=0.02 * np.abs(exact.q).max())
    assert 0.5 * np.abs(policy - exact.policy)[alive].sum(-1).max() < 0.02


def test_the_learned_temperature_is_the_price_of_the_entropy() -> None:
    """With the states as the solution visits them: the solution of the constrained problem, and its multiplier."""
    mdp, ratio = RANDOM, 0.6
    exact = tabular.entropy_constrained(mdp, ratio * np.log(mdp.num_actions)).optimum
    visits = tabular.state_occupancy(mdp, exact.policy)
    _, policy, temperature = learn(mdp, visits, target_entropy_ratio=ratio, temperature_learning_rate=0.02)
    assert temperature == pytest.approx(float(exact.temperature), rel=0.03)
    assert 0.5 * np.abs(policy - exact.policy).sum(-1).max() < 0.02
    assert tabular.expected_return(mdp, policy) == pytest.approx(exact.dual, rel=0.02)


# The whole loop ------------------------------------------------------------------------------------------------------


class Played(gymnasium.Env):
    """A finite MDP as an environment that shows the number of its state."""

    def __init__(self, mdp: tabular.MDP) -> None:
        self.mdp = mdp
        self.observation_space, self.action_space = spaces.Discrete(mdp.num_states), spaces.Discrete(mdp.num_actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state = self.np_random.choice(self.mdp.num_states, p=self.mdp.initial)
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        reward = float(self.mdp.reward[self.state, action])
        self.state = self.np_random.choice(self.mdp.num_states, p=self.mdp.transition[self.state, action])
        return self.state, reward, bool(self.mdp.terminal[self.state]), False, {}


class Lock(gymnasium.Env):
    """It ends at once and pays for one pair of choices only: neither of the two is worth anything by itself."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    code = (6, -1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        return np.ones(1, np.float32), float(tuple(action) == self.code), True, False, {}


TEMPERATURES = np.array([0.05, 0.5], np.float32)


def train(make: Callable[[], gymnasium.Env], steps: int, **options: Any) -> HostLoop:
    """The loop after that many steps of two members, each at its own temperature, in two environments each."""
    config = SACDiscreteConfig(
        learning_rate=1e-2, tau=0.1, batch_size=64, buffer_size=2000, learning_starts=100, temperature=1.0,
        learning_rate_decay_updates=steps, activation="tanh", **options,
    )  # fmt: skip
    programs = Programs(SAC_DISCRETE, config, spec_of(make().observation_space, make().action_space))
    with jax.default_prng_impl("unsafe_rbg"):  # the kind of key whose draws compile fast
        loop = HostLoop(programs, HostEnvs(make, range(2), 2), range(2), {"temperature": TEMPERATURES})
        list(loop.run(steps, steps))
    return loop


def outputs(net: networks.MLP, x: np.ndarray) -> np.ndarray:
    """Of every member's network or ensemble of networks: [member, (critic,) batch, actions]."""
    apply = partial(networks.mlp, activation="tanh")
    for _ in range(net.layers[0].bias.ndim - 1):
        apply = jax.vmap(apply, (0, None))
    return np.asarray(apply(net, x))


def test_an_environment_of_states_and_moves_is_learned() -> None:
    """From numbers of states to the soft-optimal values: adapter, replay, targets and learner together."""
    mdp = tabular.chain(4, discount=0.8, slip=0.1)
    mdp = replace(mdp, initial=np.array([0.4, 0.3, 0.3, 0.0]))
    learned = train(lambda: Played(mdp), 1600, hidden_sizes=(), gamma=mdp.discount).learned.state
    q, policy = outputs(learned.critics, np.eye(4)), jax.nn.softmax(outputs(learned.policy, np.eye(4)))
    for member, temperature in enumerate(TEMPERATURES):
        exact = tabular.soft_policy_iteration(mdp, float(temperature))
        assert_allclose(policy[member, :3], exact.policy[:3], atol=0.05)
        seen = exact.policy[:3] > 0.02  # what the policy hardly tries, it hardly knows
        assert np.abs(q[member, :, :3] - exact.q[:3])[:, seen].max() < 0.05 * np.abs(exact.q).max()


def test_a_pair_of_choices_is_valued_as_a_pair() -> None:
    """Q is 1 for the one pair and 0 else, the policy exp(Q/α)/Z; acting greedily it opens the lock."""
    loop = train(Lock, 800, hidden_sizes=(16,))
    state = loop.learned.state
    q, logits = (outputs(net, np.ones((1, 1)))[..., 0, :] for net in (state.critics, state.policy))
    assert_allclose(q[1], [[0, 0, 0, 1, 0, 0]] * 2, atol=0.05)
    exact = np.exp(np.arange(6) == 3) ** (1 / TEMPERATURES[:, None])
    assert_allclose(jax.nn.softmax(logits), exact / exact.sum(-1, keepdims=True), atol=0.02)
    obs = np.ones((2, 2, 1), np.float32)
    with jax.default_prng_impl("unsafe_rbg"):
        action, _, _ = loop.programs.act(
            loop.view, loop.carry, obs, loop.stepped.starts, loop.roots, np.uint32(0), explore=False
        )
    assert_array_equal(action, np.broadcast_to([1, 0], (2, 2, 2)))


# Settings ------------------------------------------------------------------------------------------------------------

SWEPT: dict[str, Any] = {
    "learning_rate": 1e-2,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "temperature_learning_rate": 1e-2,
    "tau": 0.5,
    "initial_temperature": 0.3,
    "target_entropy_ratio": 0.99,
}
"""Numbers that members of one program may differ in."""


def computation(config: SACDiscreteConfig) -> str:
    """What is computed to observe, update and act, as JAX writes it down."""
    state = jax.eval_shape(partial(SAC_DISCRETE.init, config, SPEC), KEY)

    def everything(state: State, batch: Transition, key: jax.Array, index: jax.Array) -> Any:
        seen = SAC_DISCRETE.observe(config, SPEC, state, batch)
        new, metrics = SAC_DISCRETE.update(config, SPEC, seen, batch, key, index)
        view = SAC_DISCRETE.view(state)
        return new, metrics, [SAC_DISCRETE.act(config, SPEC, view, (), batch.obs, key, e) for e in (True, False)]

    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(everything)(state, make_batch(0), KEY, jnp.uint32(0))))


@pytest.fixture(scope="module")
def plain_computation() -> str:
    return computation(SMALL)


@pytest.fixture(scope="module")
def learned() -> Callable[[SACDiscreteConfig], list[np.ndarray]]:
    """Everything that two updates by the one program leave behind, but for the numbers that they obeyed."""
    update = compiled(observe_and_update(SMALL))

    def learned(config: SACDiscreteConfig) -> list[np.ndarray]:
        state = initial_state(config)
        for index in range(2):
            state, _ = update(state, make_batch(index), KEY, np.uint32(index))
        return jax.tree.leaves(jax.device_get(state._replace(numbers={})))

    return learned


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_number_changes_what_the_same_computation_learns(
    name: str, plain_computation: str, learned: Callable[[SACDiscreteConfig], list[np.ndarray]]
) -> None:
    """It needs no other program, and it is not ignored."""
    config = replace(SMALL, **{name: SWEPT[name]})
    assert computation(config) == plain_computation
    assert not same(learned(config), learned(SMALL))


@pytest.mark.parametrize("temperature", [0.2, "auto"])
def test_swept_numbers_are_read_from_the_state_alone(temperature: float | str) -> None:
    """With NaN for every swept number in the config, the computation is the same."""
    config = replace(SMALL, normalize_observations=True, temperature=temperature, actor_learning_rate=1e-3)
    static = without_numbers(config)
    assert numbers(config).keys() >= {"target_entropy_ratio", "actor_learning_rate", "gamma", "tau"}
    assert all(np.isnan(getattr(static, name)) for name in numbers(config))
    assert computation(static) == computation(config)


def test_numbers_start_where_the_config_says() -> None:
    """Each reaches the state as a float32 scalar, "auto" resolved and the target entropy in nats."""
    found = initial_state(replace(SMALL, learning_rate=0.5, critic_learning_rate=0.25)).numbers
    expected = dict(
        actor_learning_rate=0.5, critic_learning_rate=0.25, temperature_learning_rate=0.5, gamma=0.99, tau=0.1,
        target_entropy=SMALL.target_entropy_ratio * np.log(ACTIONS),
    )  # fmt: skip
    assert {name: float(x) for name, x in found.items()} == {k: float(np.float32(x)) for k, x in expected.items()}
    assert all(x.dtype == np.float32 and x.shape == () for x in found.values())


# The state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, "auto"])
def test_everything_learned_is_finite(temperature: float | str) -> None:
    """Without any weight on the entropy, and with a policy so sure that it rules actions out."""
    config = replace(SMALL, temperature=temperature)
    state = initial_state(config)
    *hidden, last = state.policy.layers
    sure = last._replace(bias=np.float32([1e4, *[0] * (ACTIONS - 1)]))
    state = state._replace(policy=state.policy._replace(layers=(*hidden, sure)))
    state, metrics = compiled(observe_and_update(config))(state, make_batch(0), KEY, np.uint32(0))
    state = state._replace(log_temperature=jnp.exp(state.log_temperature))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))


@pytest.mark.parametrize("name", ["as published", "all at once", "one critic, fixed temperature"])
def test_an_update_keeps_the_states_form(name: str) -> None:
    """Same tree, shapes and dtypes out as in, so that it can be scanned and donated; metrics bear their names."""
    config = replace(SMALL, **CASES[name])
    form = jax.eval_shape(partial(SAC_DISCRETE.init, config, SPEC), KEY)
    after, metrics = jax.eval_shape(observe_and_update(config), form, make_batch(0), KEY, np.uint32(0))
    assert after == form
    assert not any(x.weak_type for x in jax.tree.leaves(after))
    assert metrics.keys() == set(SAC_DISCRETE.metrics(config)) and all(x.shape == () for x in metrics.values())


def test_critics_start_apart_and_targets_with_them() -> None:
    """Independent critics have different weights, and each target critic starts as its critic."""
    state = compiled(partial(SAC_DISCRETE.init, replace(SMALL, critics=3, hidden_sizes=()), SPEC))(jax.random.key(0))
    for online, target in zip(jax.tree.leaves(state.critics), jax.tree.leaves(state.target_critics)):
        assert len(np.unique(online.reshape(3, -1), axis=0)) == 3
        assert_array_equal(online, target)
