"""Environments on the device: our own are Gymnasium's, and in no suite is a time limit an end."""

import dataclasses
import inspect
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from maxent.envs import tasks
from maxent.envs.device import on_device, playground
from maxent.envs.device.engine import engine_env
from maxent.envs.device.env import DeviceEnv, environment_action, make
from maxent.envs.spaces import environment_action as on_the_host
from maxent.envs.spaces import spec_of
from maxent.errors import ConfigError
from maxent.types import Leaf, Spec

tasks.register()
LIMITS = {
    "Pendulum-v1": 200,
    "CartPole-v1": 500,
    "MountainCarContinuous-v0": 999,
    "MultiGoal-v0": 30,
    "TwoPassage-v0": 50,
}
HIGH = {
    "Pendulum-v1": [10, 8],
    "CartPole-v1": [2.5, 2, 0.22, 2],
    "MountainCarContinuous-v0": [1.2, 0.07],
    "MultiGoal-v0": [7, 7],
    "TwoPassage-v0": [5, 5],
}
"""A box of states that holds ends, edges and walls."""
VARIANTS = [
    *((name, {}) for name in LIMITS),
    ("Pendulum-v1", {"g": 9.81}),
    ("CartPole-v1", {"sutton_barto_reward": True}),
    ("MountainCarContinuous-v0", {"goal_velocity": 0.03}),
    ("TwoPassage-v0", {"blocked": True}),
]


def actions_of(spec: Spec, shape: tuple[int, ...], beyond: float = 1.0) -> np.ndarray:
    """Random actions; the numbers have few enough bits that scaling them rounds nothing, in float32 as in float64."""
    rng, leaf = np.random.default_rng(0), spec.action
    if not spec.continuous:
        return rng.integers(0, np.reshape(leaf.categories, leaf.shape), shape + leaf.shape, np.int32)
    return (np.round(rng.uniform(-beyond, beyond, shape + leaf.shape) * 256) / 256).astype(np.float32)


def played(env: DeviceEnv, state: Any, key: jax.Array, actions: Any) -> tuple[Any, ...]:
    """(state, obs, reward, terminated) after each of the actions [step, …], whatever ends on the way."""

    def step(state: Any, action: jax.Array) -> tuple[Any, tuple[Any, ...]]:
        after = env.step(state, action, key)
        return after[0], after

    return jax.lax.scan(step, state, actions)[1]


def episode(env: DeviceEnv, actions: Any) -> tuple[Any, ...]:
    """The first observation, and what is played from there, as arrays of NumPy."""

    def run(key: jax.Array) -> tuple[Any, ...]:
        state, obs = env.reset(key)
        return obs, *played(env, state, key, actions)

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(0)))


def lasting(terminated: Any) -> np.ndarray:
    """Which steps [env, step] belong to the episodes: what follows an end may be anything."""
    return np.cumsum(terminated, axis=1) - terminated == 0


def conforms(env: DeviceEnv, envs: int = 3, steps: int = 5) -> tuple[Any, ...]:
    """What the loop relies on: types that do not change, and functions that can be vmapped and compiled."""
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key)
    after = jax.eval_shape(env.step, state, jnp.zeros(env.spec.action.shape, env.spec.action.dtype), key)
    for tree, like in ((after[0], state), (after[1], obs)):
        types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), part) for part in (tree, like)]
        assert types[0] == types[1]
    leaves = jax.tree.map(lambda x: (x.shape, str(x.dtype)), obs)
    assert leaves == jax.tree.map(lambda x: (x.shape, x.dtype), env.spec.obs, is_leaf=lambda x: isinstance(x, Leaf))
    assert [(x.shape, x.dtype) for x in after[2:]] == [((), np.float32), ((), np.bool_)]
    assert not any(jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(state))

    @jax.jit
    @jax.vmap
    def run(key: jax.Array, actions: jax.Array) -> tuple[Any, ...]:
        state, obs = env.reset(key)
        return obs, *played(env, state, key, actions)

    first, _, obs, reward, terminated = run(jax.random.split(key, envs), actions_of(env.spec, (envs, steps)))
    counts = lasting(terminated)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(first))
    assert all(np.isfinite(np.asarray(x)[counts]).all() for x in jax.tree.leaves((obs, reward)))
    starts = np.concatenate([np.reshape(x, (envs, -1)) for x in jax.tree.leaves(first)], axis=1)
    return starts, obs, np.asarray(reward), np.asarray(terminated)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_every_step_is_gymnasiums(name: str, kwargs: dict) -> None:
    """In float64: states, rewards and ends from anywhere, for actions within their bounds and beyond.

    Gymnasium rounds the state of MountainCarContinuous to float32 after each step; the others' agree to 1e-12.
    """
    env = make(f"jax/{name}", kwargs)
    with jax.enable_x64(True):
        begin = np.random.default_rng(1).uniform(np.negative(HIGH[name]), HIGH[name], (80, len(HIGH[name])))
        actions = actions_of(env.spec, (25, 80), 1.3)
        run = jax.jit(jax.vmap(partial(played, env), (0, None, 1), 1))
        after, obs, reward, terminated = map(np.asarray, run(begin, jax.random.key(0), actions))
        before = np.concatenate([begin[None], after[:-1]])
        assert after.dtype == reward.dtype == np.float64 and obs.dtype == np.float32
    twin = gymnasium.make(env.twin, disable_env_checker=True, **kwargs).unwrapped
    twin.reset(seed=0)
    attribute, take = "state" if hasattr(twin, "state") else "position", on_the_host(twin.action_space)
    rounding = 1e-7 if name == "MountainCarContinuous-v0" else 1e-12
    theirs, ended = [], np.zeros(80, bool)
    for t, e in np.ndindex(25, 80):
        if not ended[e]:  # what follows an end is nobody's business
            setattr(twin, attribute, np.array(before[t, e]))
            twin.steps_beyond_terminated = None
            action = take(actions[t, e])
            shown, paid, ended[e], cut, _ = twin.step(action if action.dtype.kind == "i" else action.astype(np.float64))
            assert not cut
            theirs.append(((t, e), getattr(twin, attribute), shown, paid, ended[e]))
    at, *expected = (np.array(part) for part in zip(*theirs, strict=True))
    ours = [part[tuple(at.T)] for part in (after, obs, reward, terminated)]
    assert_allclose(ours[0], expected[0], rtol=rounding, atol=rounding)
    assert_allclose(ours[1], expected[1], rtol=2e-7, atol=1e-7)
    assert_allclose(ours[2], expected[2], rtol=1e-12, atol=1e-12)
    assert_array_equal(ours[3], expected[3])
    assert ended.any() == (name != "Pendulum-v1") and not ended.all()
    if name == "TwoPassage-v0":
        (left, right), inside = (-0.5, 0.5), np.abs(after[..., 0]) < 0.5
        assert (after[..., 0] == left).any() and (after[..., 0] == right).any(), "the wall stopped no point"
        assert inside.any() and (np.abs(after[..., 1]) == 5).any() and (np.abs(after[..., 0]) == 5).any()
        assert not kwargs or not (inside[1:] & ~inside[:-1] & (after[1:, :, 1] > 0)).any(), "the passage is open"


@pytest.mark.parametrize("name", LIMITS)
def test_episodes_begin_where_gymnasiums_do(name: str) -> None:
    env = make(f"jax/{name}", {})
    starts = np.asarray(jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 3000))[0])
    twin = gymnasium.make(env.twin, disable_env_checker=True).unwrapped
    twin.reset(seed=0)
    attribute = "state" if hasattr(twin, "state") else "position"
    theirs = np.array([(twin.reset(), getattr(twin, attribute))[1] for _ in range(3000)])
    for ours, them in zip(starts.T, theirs.T, strict=True):
        assert_allclose([ours.min(), ours.max()], [them.min(), them.max()], atol=0.15 * max(np.ptp(them), 1e-9))
        assert stats.ks_2samp(ours, them).pvalue > 1e-3
    assert_allclose(np.cov(starts.T), np.cov(theirs.T), atol=0.08 * np.var(theirs, axis=0).max())
    if "Goal" not in name and "Passage" not in name:
        high = {"Pendulum-v1": [np.pi, 1], "CartPole-v1": 4 * [0.05]}.get(name, [-0.4, 0])
        low = [-0.6, 0] if name == "MountainCarContinuous-v0" else np.negative(high)
        assert (starts >= np.float32(low)).all() and (starts <= np.float32(high)).all()


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_they_are_described_as_gymnasium_describes_them(name: str, kwargs: dict) -> None:
    env = make(f"jax/{name}", kwargs)
    twin = gymnasium.make(env.twin, **kwargs)
    assert env.spec == spec_of(twin.observation_space, twin.action_space)
    assert env.time_limit == twin.spec.max_episode_steps == LIMITS[name]
    assert make(f"jax/{name}", kwargs, 7).time_limit == 7
    starts, *_ = conforms(env)
    assert len(np.unique(starts, axis=0)) == 3, "each key has a beginning of its own"


@pytest.mark.parametrize("name", LIMITS)
def test_no_time_limit_ends_an_episode(name: str) -> None:
    """A limit of three steps changes no flag, and one may play on behind Gymnasium's."""
    short, long = make(f"jax/{name}", {}, 3), make(f"jax/{name}", {})
    spec, steps = long.spec, LIMITS[name] + 5
    actions = jnp.zeros((steps, *spec.action.shape), spec.action.dtype)
    if name == "CartPole-v1":
        actions, steps = jnp.tile(jnp.array([0, 1]), 3), 6
    runs = [episode(env, actions)[4] for env in (short, long)]
    assert_array_equal(*runs)
    assert len(runs[0]) == steps > short.time_limit and not runs[0].any()


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-2, 2, (1,)), spaces.Box(np.array([0, -3]), np.array([1, 5])), spaces.Box(-1, 0, (2, 2)),
     spaces.Discrete(3, start=2)],
)  # fmt: skip
def test_actions_are_scaled_as_on_the_host(space: spaces.Space) -> None:
    host, device = on_the_host(space), environment_action(space)
    leaf = spec_of(spaces.Box(0, 1), space).action
    if leaf.categories:
        given = [np.int32(i) for i in range(3)]
    else:
        given = np.random.default_rng(0).uniform(-1.5, 1.5, (50, *leaf.shape)).astype(np.float32)
        given[0], given[1] = -1, 1
    for action in given:
        ours = device(jnp.asarray(action), jnp.float32)
        assert_allclose(ours, host(action), rtol=1e-6, atol=1e-6)
        assert space.contains(np.asarray(ours, space.dtype))
    if not leaf.categories:
        assert_array_equal(device(jnp.asarray(given[0]), jnp.float32), space.low)
        assert_array_equal(device(jnp.asarray(given[1]), jnp.float32), space.high)


def test_names_and_arguments_are_checked() -> None:
    assert on_device("jax/Pendulum-v1") and on_device("brax/ant")
    assert not on_device("Pendulum-v1") and not on_device("maxent/MultiGoal-v0") and not on_device("jax/my:Env")
    with pytest.raises(ConfigError, match="no device environment 'gym/Ant': it begins with jax, brax, playground,"):
        make("gym/Ant", {})
    with pytest.raises(ConfigError, match=r"suite 'jax' has no environment 'Pendulum-v0': did you mean Pendulum-v1"):
        make("jax/Pendulum-v0", {})
    with pytest.raises(ConfigError, match=r"'jax' has no environment ''; it has Pendulum-v1, CartPole-v1, "):
        make("jax/", {})
    with pytest.raises(ConfigError, match="jax/TwoPassage-v0 has no argument 'blockd': did you mean blocked"):
        make("jax/TwoPassage-v0", {"blockd": True})
    with pytest.raises(ConfigError, match="jax/MultiGoal-v0 has no argument 'blocked': it takes none"):
        make("jax/MultiGoal-v0", {"blocked": True})
    with pytest.raises(ConfigError, match=r"jax/Pendulum-v1\.g is 'low': it must be a number"):
        make("jax/Pendulum-v1", {"g": "low"})


@pytest.mark.parametrize("suite", ["brax", "playground", "gymnax"])
def test_a_missing_package_is_named_with_what_brings_it(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("brax", "brax.envs", "mujoco_playground", "gymnax"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'is missing: install it with: pip install "maxent-rl\[{suite}\]"'):
        make(f"{suite}/anything", {})


def test_the_example_in_the_documentation_is_an_environment() -> None:
    page = (Path(__file__).parent.parent / "docs" / "device-environments.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    *_, reward, terminated = conforms(names["env"], envs=2, steps=100)
    assert_array_equal(terminated, reward < -3)


# Stand-ins: what follows tests the adapters' own logic on tiny modules with the suites' interfaces, so that it runs
# where the suites are not installed. The real ones are tested below, where they are.


class Dropped(NamedTuple):
    """A state as the engines have it, of a stone above the ground."""

    height: Any
    rng: Any
    obs: Any
    reward: Any
    done: Any


class Stone:
    """Falls by |action|; done on the ground. Below -5 the simulation has diverged. The height is also kept secret."""

    action_size = 1

    def reset(self, rng: jax.Array) -> Dropped:
        rng, key = jax.random.split(rng)
        height = jax.random.uniform(key, minval=4.0, maxval=5.0)
        return Dropped(height, rng, {"state": height[None], "privileged_state": height[None]}, 0.0, 0.0)

    def step(self, state: Dropped, action: jax.Array) -> Dropped:
        height = state.height - 10 * jnp.abs(action[0])
        height = jnp.where(height < -5, jnp.nan, height)
        done = jnp.where(height > 0, 0.0, 1.0)
        return Dropped(height, state.rng, {"state": height[None], "privileged_state": height[None]}, height, done)


def test_an_engines_flag_is_read_and_its_secrets_kept() -> None:
    """Weak types and raw keys come out as the loop needs them; a diverged simulation ends with finite numbers."""
    env = engine_env(Stone(), 100)
    assert env.spec == Spec({"state": Leaf((1,), "float32")}, Leaf((1,), "float32")) and env.time_limit == 100
    conforms(env)
    first, _, obs, reward, terminated = episode(env, np.repeat([0.0, 0.1, 0.5, 0.9], [150, 1, 1, 1])[:, None])
    start = first["state"][0]
    assert 4 < start < 5 and not terminated[:150].any(), "no number of steps is an end"
    assert_allclose(reward[150:], [start - 1, start - 6, 0], rtol=1e-5)
    assert_allclose(obs["state"][150:, 0], [start - 1, start - 6, 0], rtol=1e-5)
    assert_array_equal(terminated[150:], [False, True, True])


def test_numbers_that_are_not_finite_are_left_alone_where_nothing_ended() -> None:
    """A fault has to show: it stops the training."""

    class Broken(Stone):
        def step(self, state: Dropped, action: jax.Array) -> Dropped:
            return super().step(state, action)._replace(obs=jax.tree.map(lambda x: x / 0, state.obs), done=0.0)

    assert np.isinf(episode(engine_env(Broken(), 100), np.zeros((1, 1)))[2]["state"])


def test_a_repeated_action_stops_at_the_end() -> None:
    once = engine_env(Stone(), 101)
    env = playground.repeated(once, 4)
    assert env.time_limit == 26, "of the 26 actions, the last is taken once too often rather than not at all"
    first, _, obs, reward, terminated = episode(env, np.array([[0.05], [0.2]]))
    start = first["state"][0]
    assert_allclose(obs["state"][:, 0], [start - 2, start - 6], rtol=1e-5)
    assert_allclose(reward, [4 * start - 5, 2 * start - 10], rtol=1e-5)
    assert_array_equal(terminated, [False, True])


def test_brax_is_asked_for_the_bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Base(Stone):
        def __init__(self, sys: Any = None, backend: str = "generalized") -> None:
            if backend != "generalized":
                raise ValueError("backend should be\n in ['generalized']")

    class Named(Base):
        def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    envs = SimpleNamespace(_envs={"stone": Named}, get_environment=lambda name, **kwargs: Named(**kwargs))
    for name, module in {"brax": SimpleNamespace(envs=envs), "brax.envs": envs, "mujoco": Quiet()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert make("brax/stone", {"scale": 2.0, "backend": "generalized"}).time_limit == 1000
    with pytest.raises(ConfigError, match="suite 'brax' has no environment 'stones': did you mean stone"):
        make("brax/stones", {})
    with pytest.raises(ConfigError, match="brax/stone has no argument 'sys'; it has scale, backend"):
        make("brax/stone", {"sys": 1})
    with pytest.raises(ConfigError, match=r"brax/stone cannot be made: backend should be in \['generalized'\]"):
        make("brax/stone", {"backend": "warp"})


class Quiet:
    """In MuJoCo's place."""

    def set_mju_user_warning(self, handler: Any) -> None:
        """Nothing warns."""


def test_playgrounds_config_gives_the_arguments_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Config(dict):
        def update_from_flattened_dict(self, values: dict) -> None:
            for key, value in values.items():
                within, _, last = key.rpartition(".")
                (self[within] if within else self)[last] = value

        __getattr__ = dict.__getitem__

    made: list[Config] = []

    def load(name: str, config: Config) -> Stone:
        made.append(config)
        return Stone()

    def default(name: str) -> Config:
        return Config(episode_length=10, action_repeat=1, impl="warp", reward=Config(scale=1.0))

    registry = SimpleNamespace(ALL_ENVS=("Stone",), get_default_config=default, load=load)
    monkeypatch.setitem(sys.modules, "mujoco_playground", SimpleNamespace(registry=registry))
    monkeypatch.setitem(sys.modules, "mujoco", Quiet())
    assert make("playground/Stone", {}).time_limit == 10 and made[-1].impl == "jax"
    env = make("playground/Stone", {"impl": "warp", "reward.scale": 2.0, "episode_length": 7, "action_repeat": 2})
    assert env.time_limit == 4 and made[-1].impl == "warp" and made[-1].reward.scale == 2.0
    with pytest.raises(ConfigError, match=r"/Stone has no argument 'reward\.scal': did you mean reward\.scale"):
        make("playground/Stone", {"reward.scal": 2.0})


def fake_gymnax(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """A module with Gymnax's interface, and one environment: a counter to ten, that counts by its action."""

    @dataclasses.dataclass
    class Params:
        max_steps_in_episode: int = 20
        top: float = 10.0

        replace = dataclasses.replace

    class Counter:
        def __init__(self, low: float = 0.0) -> None:
            self.low = low

        def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, dict]:
            return jnp.zeros(2), {"time": 0, "count": jnp.zeros(())}

        def step_env(self, key: jax.Array, state: dict, action: jax.Array, params: Params) -> tuple:
            state = {"time": state["time"] + 1, "count": state["count"] + action[0]}
            assert isinstance(params.top, float), "a whole number serves as a float"
            return jnp.stack([state["count"], 0.0]), state, 1, state["count"] >= params.top, {}

        step = None  # it resets, and is not to be called

        def action_space(self, params: Params) -> spaces.Space:
            return spaces.Box(self.low, 2.0, (1,))

        def observation_space(self, params: Params) -> spaces.Space:
            return spaces.Box(-np.inf, np.inf, (2,))

    part = SimpleNamespace(
        spaces=SimpleNamespace(gymnax_space_to_gym_space=lambda space: space),
        environment=SimpleNamespace(Environment=parts.get("base", SimpleNamespace(is_truncated=None))),
    )
    suite = SimpleNamespace(
        make=lambda name, **kwargs: (Counter(**kwargs), Params()), registered_envs=["Counter"], environments=part
    )
    monkeypatch.setitem(sys.modules, "gymnax", suite)


def test_gymnax_is_asked_for_the_step_that_knows_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gymnax(monkeypatch)
    env = make("gymnax/Counter", {"max_steps_in_episode": 3, "low": 1.0, "top": 10})
    assert env.time_limit == 3 and make("gymnax/Counter", {}).time_limit == 20
    conforms(env)
    _, _, obs, reward, terminated = episode(env, np.zeros((8, 1), np.float32))
    assert_allclose(obs[:, 0], 1.5 * np.arange(1, 9))
    assert_array_equal(terminated, np.arange(1, 9) >= 7)
    assert_array_equal(reward, np.ones(8, np.float32))
    with pytest.raises(ConfigError, match="gymnax/Counter has no argument 'tops': did you mean top"):
        make("gymnax/Counter", {"tops": 3})


def test_an_old_gymnax_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.0 its flags did not tell an end from a time limit."""
    fake_gymnax(monkeypatch, base=SimpleNamespace())
    with pytest.raises(ConfigError, match=r"Gymnax is older than 1\.0.*pip install"):
        make("gymnax/Counter", {})


# The real suites, where they are installed.

theirs = pytest.mark.filterwarnings("ignore")


def a_limit_of_three_ends_nothing(name: str, kwargs: dict, limit: str, steps: int = 8) -> tuple[Any, ...]:
    """The suite's own limit, set to three steps, changes no flag in what is then played; the episode is returned."""
    short, long = make(name, {**kwargs, limit: 3}), make(name, kwargs)
    assert short.time_limit == 3 < long.time_limit
    actions = actions_of(long.spec, (steps,))
    runs = [episode(env, actions) for env in (short, long)]
    assert_array_equal(runs[0][4], runs[1][4])
    return runs[1]


@theirs
def test_brax() -> None:
    """Behind its limit nothing ends, while Brax's own wrapper raises the flag there."""
    envs = pytest.importorskip("brax.envs")
    env = make("brax/fast", {})
    assert env.time_limit == inspect.signature(envs.create).parameters["episode_length"].default
    conforms(env)
    assert not episode(env, actions_of(env.spec, (env.time_limit + 100,)))[4].any()
    wrapped = envs.create("fast", episode_length=3, auto_reset=False)
    state = wrapped.reset(jax.random.key(0))
    assert [bool((state := wrapped.step(state, jnp.zeros(1))).done) for _ in range(3)] == [False, False, True]
    obs = make("brax/fast", {"obs_mode": "dict_latent_state", "asymmetric_obs": True}).spec.obs
    assert obs.keys() == {"state", "latent_pixels/view_0", "latent_pixels/view_1"}
    with pytest.raises(ConfigError, match="brax/hopper has no argument 'bakend': did you mean backend"):
        make("brax/hopper", {"bakend": "mjx"})
    with pytest.raises(ConfigError, match="brax/hopper cannot be made: backend should be in"):
        make("brax/hopper", {"backend": "warp"})


@theirs
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["generalized", "spring", "mjx"])
def test_brax_plays(backend: str) -> None:
    """A pole that may fall: it ends where Brax says, and never in between."""
    pytest.importorskip("brax.envs")
    env = make("brax/inverted_pendulum", {"backend": backend})
    starts, obs, _, terminated = conforms(env, envs=4, steps=300)
    assert len(np.unique(starts, axis=0)) == 4
    counts = lasting(terminated)
    assert_array_equal(terminated[counts], np.abs(obs[counts][:, 1]) > 0.2)
    assert terminated.any(axis=1).all() and (counts.sum(1) > 1).all()


@theirs
@pytest.mark.slow
def test_playground() -> None:
    """Nothing but a simulation that diverges ends an episode of this task, and no limit does."""
    pytest.importorskip("mujoco_playground")
    name = "playground/CartpoleBalance"
    *_, terminated = a_limit_of_three_ends_nothing(name, {}, "episode_length")
    assert not terminated.any()
    env = make(name, {"action_repeat": 4})
    assert env.time_limit == 250 and env.spec == Spec(Leaf((5,), "float32"), Leaf((1,), "float32"))
    starts, _, reward, _ = conforms(env, envs=4, steps=100)
    assert len(np.unique(starts, axis=0)) == 4 and 1 < reward.max() <= 4
    with pytest.raises(ConfigError, match="has no argument 'episode_lenght': did you mean episode_length"):
        make(name, {"episode_lenght": 3})
    with pytest.raises(ConfigError, match="has no environment 'CheetaRun': did you mean CheetahRun"):
        make("playground/CheetaRun", {})


@theirs
def test_gymnax() -> None:
    """Gymnax's own step raises its flag at the limit, ours never does."""
    gymnax = pytest.importorskip("gymnax")
    *_, terminated = a_limit_of_three_ends_nothing("gymnax/Pendulum-v1", {}, "max_steps_in_episode")
    assert not terminated.any()
    env, params = gymnax.make("Pendulum-v1")
    _, state = env.reset(jax.random.key(0), params.replace(max_steps_in_episode=1))
    assert env.step(jax.random.key(0), state, jnp.zeros(1), params.replace(max_steps_in_episode=1))[4]
    env = make("gymnax/CartPole-v1", {"force_mag": 5.0})
    assert env.spec == make("jax/CartPole-v1", {}).spec and env.time_limit == 500
    _, obs, _, terminated = conforms(env, envs=4, steps=300)
    assert_array_equal(terminated, (np.abs(obs[..., 0]) > 2.4) | (np.abs(obs[..., 2]) > np.deg2rad(12)))
    with pytest.raises(ConfigError, match="gymnax/CartPole-v1 has no argument 'force_mga': did you mean force_mag"):
        make("gymnax/CartPole-v1", {"force_mga": 5.0})


@theirs
@pytest.mark.slow
def test_all_of_gymnax() -> None:
    registered = pytest.importorskip("gymnax").registered_envs
    for name in registered:
        if name != "MNISTBandit-bsuite":  # downloads its pictures
            conforms(make(f"gymnax/{name}", {}), envs=3, steps=60)
            a_limit_of_three_ends_nothing(f"gymnax/{name}", {}, "max_steps_in_episode", steps=60)
