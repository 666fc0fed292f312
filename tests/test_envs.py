"""Environments as rows: spaces survive, actions reach the bounds, ends are what they are, faults are named."""

import os
import sys
import textwrap

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.testing import assert_array_equal

import tiny
from maxent.envs.host import HostEnvs
from maxent.envs.make import Factory
from maxent.envs.spaces import empty_batch, environment_action, spec_of, write_observation
from maxent.envs.vector import VectorEnvs
from maxent.errors import ConfigError, EnvironmentFault
from maxent.replay import ring
from maxent.streams import episode_seed
from maxent.types import Leaf

ANY_ACTION = spaces.Box(-1, 1, (1,))


def one_line(error: pytest.ExceptionInfo, *parts: str) -> bool:
    """Whether a message is one line with these parts in it."""
    message = str(error.value)
    assert all(part in message for part in parts), message
    return "\n" not in message


# --- spaces: hypothesis -------------------------------------------------------------------------------------

SHAPES = nps.array_shapes(min_dims=0, max_dims=3, max_side=3)
LARGEST = {"float16": 2.0**14, "float32": 2.0**100, "float64": 2.0**1000}
NARROWED = {"float16": "float32", "float64": "float32", "int64": "int32"}


@st.composite
def boxes(draw, largest: float = np.inf):
    """Bounded, of any shape and number type, each entry with bounds of its own."""
    dtype = np.dtype(draw(st.sampled_from("uint8 int8 int16 int32 int64 float16 float32 float64".split())))
    shape = draw(SHAPES)
    if dtype.kind == "f":
        top = min(largest, LARGEST[dtype.name])
        entries = st.floats(-top, top, width=8 * dtype.itemsize, allow_subnormal=False)
    else:
        info = np.iinfo(dtype)
        entries = st.integers(max(info.min, -(2**31)), min(info.max, 2**31 - 1))
    a, b = draw(nps.arrays(dtype, shape, elements=entries)), draw(nps.arrays(dtype, shape, elements=entries))
    assume(np.all(a != b))
    return spaces.Box(np.minimum(a, b), np.maximum(a, b), dtype=dtype.type)


discretes = st.builds(spaces.Discrete, st.integers(1, 50), start=st.integers(-20, 20))
counts = nps.arrays(np.int64, nps.array_shapes(max_dims=2, max_side=3), elements=st.integers(1, 9))
starts = st.integers(-5, 5)
multi_discretes = counts.flatmap(
    lambda n: st.builds(spaces.MultiDiscrete, st.just(n), start=nps.arrays(np.int64, n.shape, elements=starts))
)
multi_binaries = st.builds(spaces.MultiBinary, st.lists(st.integers(1, 4), min_size=1, max_size=2))
unbounded = st.builds(lambda shape: spaces.Box(-np.inf, np.inf, shape, np.float64), SHAPES)
plain = boxes(largest=2.0**100) | unbounded | discretes | multi_discretes | multi_binaries
keys = st.text(min_size=1, max_size=3)
nested = st.recursive(
    plain, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3).map(spaces.Dict), max_leaves=5
)


def assert_kept(space, sample, leaf, stored):
    """What is stored is what was shown, in the declared structure; choices counted from 0, 64 bits made 32."""
    if isinstance(space, spaces.Dict):
        assert set(space.spaces) == set(leaf) == set(stored)
        for key, sub in space.spaces.items():
            assert_kept(sub, sample[key], leaf[key], stored[key])
        return
    assert stored.shape == leaf.shape == space.shape and stored.dtype == leaf.dtype
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        choices = space.n if isinstance(space, spaces.Discrete) else space.nvec
        assert leaf.dtype == "int32" and leaf.categories == tuple(np.ravel(choices))
        assert_array_equal(stored, sample - space.start)
        assert np.all(stored >= 0) and np.all(stored.ravel() < leaf.categories)
    else:
        dtype = np.dtype(space.dtype).name
        assert leaf.dtype == NARROWED.get(dtype, dtype) and leaf.categories == ()
        assert_array_equal(stored, np.asarray(sample).astype(leaf.dtype))


@settings(max_examples=150, deadline=None)
@given(nested, st.integers(0, 2**31 - 1))
def test_observations_of_any_space_survive(space, seed):
    space.seed(seed)
    spec, sample = spec_of(space, ANY_ACTION), space.sample()
    batch = empty_batch(spec.obs, (2, 3))
    write_observation(space, sample, batch, (1, 2))
    stored = jax.tree.map(lambda x: x[1, 2], batch)
    assert_kept(space, sample, spec.obs, stored)


@settings(max_examples=200, deadline=None)
@given(boxes(), st.data())
def test_box_actions_reach_exactly_their_bounds(space, data):
    """Asymmetric ones too, in the environment's own shape and number type; all between stays inside."""
    leaf = spec_of(ANY_ACTION, space).action
    assert leaf == Leaf((int(np.prod(space.shape)),), "float32")
    for canonical, bound in ((-1.0, space.low), (1.0, space.high)):
        taken = environment_action(space)(np.full(leaf.shape, canonical, np.float32))
        assert taken.shape == space.shape and taken.dtype == space.dtype
        assert_array_equal(taken, bound)
    inside = data.draw(nps.arrays(np.float32, leaf.shape, elements=st.floats(-1, 1, width=32)))
    assert space.contains(environment_action(space)(inside))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_box_actions_are_linear_between_the_bounds(dtype):
    space = spaces.Box(np.array([[-2, 0], [3, -8]], dtype), np.array([[2, 1], [5, -4]], dtype), dtype=dtype)
    for canonical, expected in ((0.0, [[0, 0.5], [4, -6]]), (0.5, [[1, 0.75], [4.5, -5]])):
        taken = environment_action(space)(np.full(4, canonical, np.float32))
        assert_array_equal(taken, np.array(expected, dtype), strict=True)


@settings(max_examples=50, deadline=None)
@given(discretes | multi_discretes | multi_binaries)
def test_choices_cover_the_space(space):
    """The first and the last choice of every entry, in the environment's own shape and number type."""
    leaf = spec_of(ANY_ACTION, space).action
    shape = () if isinstance(space, spaces.Discrete) else (int(np.prod(space.shape)),)
    assert (leaf.dtype, leaf.shape) == ("int32", shape)
    last = np.array(leaf.categories, np.int32).reshape(leaf.shape) - 1
    start = getattr(space, "start", 0)
    for choice in (np.zeros_like(last), last):
        taken = environment_action(space)(choice)
        assert space.contains(taken) and taken.dtype == space.dtype
        assert_array_equal(taken - start, choice.reshape(space.shape))


TYPED = [
    spaces.Discrete(3, dtype=np.int32),
    spaces.MultiDiscrete([3, 4], dtype=np.int8),
    spaces.Box(0, 9, (2,), np.uint8),
]


@pytest.mark.parametrize("space", TYPED, ids=lambda s: type(s).__name__)
def test_actions_have_the_declared_number_type(space):
    leaf = spec_of(ANY_ACTION, space).action
    assert environment_action(space)(np.zeros(leaf.shape, leaf.dtype)).dtype == space.dtype


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(np.array([0, -np.inf], np.float32), np.ones(2, np.float32)),
        spaces.Box(np.zeros(2, np.float32), np.array([1, np.inf], np.float32)),
        spaces.Box(np.zeros(2, np.float32), np.array([1, 0], np.float32)),
        spaces.Box(-np.inf, np.inf, (2,), np.int32),
    ],
    ids=["both", "low", "high", "empty", "whole numbers"],
)
def test_actions_without_true_bounds_are_refused(space):
    with pytest.raises(ConfigError) as error:
        spec_of(ANY_ACTION, space)
    assert one_line(error, "action space", "bounds", "entry")


def test_nan_bounds_are_refused():
    space = spaces.Box(-1, 1, (2,))
    space.high[1] = np.nan
    with pytest.raises(ConfigError) as error:
        spec_of(ANY_ACTION, space)
    assert one_line(error, "entry 1", "nan")


UNSUPPORTED = [spaces.Text(5), spaces.Tuple([ANY_ACTION]), spaces.Sequence(ANY_ACTION)]


@pytest.mark.parametrize("space", UNSUPPORTED, ids=lambda s: type(s).__name__)
def test_other_spaces_are_refused(space):
    with pytest.raises(ConfigError) as error:
        spec_of(space, ANY_ACTION)
    assert one_line(error, type(space).__name__, "observation space", "Box")
    with pytest.raises(ConfigError) as error:
        spec_of(spaces.Dict(inner=spaces.Dict(deep=space)), ANY_ACTION)
    assert one_line(error, "['inner']['deep']")
    with pytest.raises(ConfigError) as error:
        spec_of(ANY_ACTION, space)
    assert one_line(error, "action space", "Box")


# --- faults -------------------------------------------------------------------------------------------------


class Scripted(gymnasium.Env):
    """Shows what the script says, one entry a step; the first at reset."""

    def __init__(self, space: spaces.Space, script: list, reward: float = 0.0) -> None:
        self.observation_space, self.action_space, self.script, self.reward = space, ANY_ACTION, script, reward

    def reset(self, *, seed=None, options=None):
        self.now = 0
        return self.script[0], {}

    def step(self, action):
        self.now += 1
        return self.script[self.now], self.reward, False, False, {}


BYTES = spaces.Box(0, 255, (2,), np.uint8)
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
GOOD = {"inner": {"vector": np.zeros(3)}, "choice": 2}
DICT = spaces.Dict(inner=spaces.Dict(vector=VECTOR), choice=spaces.Discrete(3, start=1))
FAULTS = {
    "nan": (VECTOR, np.array([0, np.nan, 0]), ["observation[1]", "nan"]),
    "infinite": (VECTOR, np.array([0, 0, -np.inf]), ["observation[2]", "-inf"]),
    "shape": (VECTOR, np.zeros((3, 1)), ["observation", "(3, 1)", "(3,)"]),
    "dtype": (VECTOR, np.array(["a", "b", "c"]), ["observation", "dtype", "float32"]),
    "object": (VECTOR, None, ["observation"]),
    "fractions for bytes": (BYTES, np.array([0.5, 1.0]), ["observation", "float64", "uint8"]),
    "too large for float32": (spaces.Box(-np.inf, np.inf, (1,), np.float64), np.array([1e300]), ["observation[0]"]),
    "too large for int32": (spaces.Box(0, 100, (1,), np.int64), np.array([2**40]), ["observation"]),
    "choice": (spaces.Discrete(3, start=1), 4, ["observation", "4", "Discrete(3, start=1)"]),
    "choice below": (spaces.Discrete(3, start=1), 0, ["observation", "0", "Discrete(3, start=1)"]),
    "fraction of a choice": (spaces.Discrete(3), 1.5, ["observation", "1.5"]),
    "one of several choices": (spaces.MultiDiscrete([2, 3]), np.array([1, 3]), ["observation", "[1 3]"]),
    "deep nan": (DICT, GOOD | {"inner": {"vector": np.full(3, np.nan)}}, ["['inner']['vector'][0]", "nan"]),
    "deep choice": (DICT, GOOD | {"choice": 9}, ["observation['choice']", "9"]),
    "missing key": (DICT, {"choice": 1}, ["observation", "'choice'", "'inner'"]),
    "no dictionary": (DICT, np.zeros(3), ["observation", "ndarray"]),
}


@pytest.mark.parametrize(("space", "bad", "parts"), FAULTS.values(), ids=FAULTS)
def test_a_broken_observation_is_named(space, bad, parts):
    """With member, environment, seed, step and entry, while all others are well."""
    space.seed(0)
    good = space.sample()
    made = iter([[good] * 9] * 3 + [[good, good, bad, good]])
    envs = HostEnvs(lambda: Scripted(space, next(made)), [5, 6], 2)
    stepped = envs.reset()
    stepped = envs.step(stepped.obs, np.zeros((2, 2, 1), np.float32))
    with pytest.raises(EnvironmentFault) as error:
        envs.step(stepped.obs, np.zeros((2, 2, 1), np.float32))
    seed = f"seed {episode_seed(6, 1, 0)}"
    assert one_line(error, "environment 1 of member 1", "episode 0", seed, "step 2", *parts)


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_a_broken_reward_is_named(reward):
    envs = HostEnvs(lambda: Scripted(VECTOR, [np.zeros(3)] * 9, reward), [0], 1)
    with pytest.raises(EnvironmentFault) as error:
        envs.step(envs.reset().obs, np.zeros((1, 1, 1), np.float32))
    assert one_line(error, "environment 0 of member 0", "reward", str(reward))


def test_a_broken_reset_is_named():
    envs = HostEnvs(lambda: Scripted(VECTOR, [np.full(3, np.nan)]), [0], 1)
    with pytest.raises(EnvironmentFault) as error:
        envs.reset()
    assert one_line(error, "environment 0", "step 0", "observation[0]")


# --- rows of plain environments -----------------------------------------------------------------------------

Rows = list[tuple]
"""(obs, reward, discount, next_obs, boundary, real) of one environment, step by step."""


def play(envs, steps: int) -> list[Rows]:
    """The rows of every environment [member · env]; obs is what was acted on."""
    stepped, rows = envs.reset(), [[] for _ in range(envs.shape[0] * envs.shape[1])]
    for _ in range(steps):
        acted_on = stepped.obs.copy()
        stepped = envs.step(stepped.obs, np.zeros((*envs.shape, 1), np.float32))
        row = stepped.row
        assert_array_equal(row.obs, acted_on)
        columns = (row.obs, row.reward, row.discount, row.next_obs, row.boundary, row.real)
        for own, *values in zip(rows, *(np.reshape(c, (len(rows), *np.shape(c)[2:])) for c in columns)):
            own.append(tuple(v.tolist() for v in values))
    return rows


@pytest.mark.parametrize(("ending", "discount"), [("terminated", 0), ("truncated", 1), ("both", 0)])
def test_rows_of_plain_environments(ending, discount):
    (rows,) = play(HostEnvs(lambda: tiny.Clock(2, ending), [0], 1), 4)
    assert rows == [
        ([0, 0], 1, 1, [0, 1], False, True),
        ([0, 1], 2, discount, [0, 2], True, True),
        ([0, 2], 0, 1, [1, 0], False, False),
        ([1, 0], 11, 1, [1, 1], False, True),
    ]


def test_the_true_last_observation_is_stored_beside_others_that_go_on():
    lengths = iter([1, 3])
    short, long = play(HostEnvs(lambda: tiny.Clock(next(lengths)), [0], 2), 4)
    assert [(obs, after, real) for obs, _, _, after, _, real in short] == [
        ([0, 0], [0, 1], True), ([0, 1], [1, 0], False), ([1, 0], [1, 1], True), ([1, 1], [2, 0], False),
    ]  # fmt: skip
    assert [after for _, _, _, after, _, _ in long] == [[0, 1], [0, 2], [0, 3], [1, 0]]


def test_every_reset_is_seeded_by_member_environment_and_episode():
    made: list[tiny.Clock] = []
    envs = HostEnvs(lambda: made.append(tiny.Clock(2)) or made[-1], [7, 8], 2)
    play(envs, 7)
    assert [env.seeds for env in made] == [
        [episode_seed(seed, index, episode) for episode in range(3)] for seed in (7, 8) for index in (0, 1)
    ]
    assert (envs.episodes == 3).all()
    assert [e.seed for e in envs.finished[:4]] == [env.seeds[0] for env in made]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_evaluations_play_the_same_episodes_in_however_many_environments(count):
    made: list[tiny.Clock] = []
    play(HostEnvs(lambda: made.append(tiny.Clock(2)) or made[-1], [7], count, stream="eval"), 7)
    played = [seed for seeds in zip(*(env.seeds for env in made), strict=True) for seed in seeds]
    assert played == [episode_seed(7, 0, number, "eval") for number in range(3 * count)]


def test_an_episode_is_a_function_of_its_seed_and_its_actions():
    factory = Factory("Pendulum-v1", max_episode_steps=5)
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 2, 2, 1)).astype(np.float32)

    def rows(seeds):
        envs = HostEnvs(factory, seeds, 2)
        stepped = [envs.reset()]
        for action in actions:
            stepped.append(envs.step(stepped[-1].obs, action))
        return np.stack([s.row.next_obs for s in stepped]), np.stack([s.row.reward for s in stepped])

    for a, b in zip(rows([3, 4]), rows([3, 4])):
        assert_array_equal(a, b)
    assert not np.any(rows([3, 4])[0][0] == rows([5, 6])[0][0])


def test_a_reset_in_between_starts_new_episodes():
    envs = HostEnvs(lambda: tiny.Clock(9), [0], 1)
    play(envs, 3)
    stepped = envs.reset()
    assert stepped.obs.tolist() == [[[1, 0]]] and not stepped.row.real.any() and not stepped.row.boundary.any()
    assert envs.finished == []


def test_finished_episodes():
    envs = HostEnvs(lambda: tiny.Clock(2), [4], 1)
    play(envs, 6)
    first, second = envs.finished
    assert (first.total_reward, first.length, first.number, first.success) == (3, 2, 0, 1)
    assert (second.total_reward, second.length, second.number, second.success) == (23, 2, 1, 0)
    silent = HostEnvs(Factory("Pendulum-v1", max_episode_steps=1), [0], 1)
    play(silent, 1)
    assert silent.finished[0].success is None


# --- vector environments of the user's own ------------------------------------------------------------------


def vector(mode: AutoresetMode, ending: str = "terminated", lengths: tuple[int, ...] = (2, 3)) -> VectorEnvs:
    makers = [lambda length=length: tiny.Clock(length, ending) for length in lengths]
    return VectorEnvs(SyncVectorEnv(makers, autoreset_mode=mode), seed=0)


ENDINGS = pytest.mark.parametrize(("ending", "discount"), [("terminated", 0), ("truncated", 1), ("both", 0)])


@ENDINGS
def test_vector_rows_where_the_next_step_resets(ending, discount):
    short, long = play(vector(AutoresetMode.NEXT_STEP, ending), 5)
    assert short == [
        ([0, 0], 1, 1, [0, 1], False, True),
        ([0, 1], 2, discount, [0, 2], True, True),
        ([0, 2], 0, 1, [1, 0], False, False),
        ([1, 0], 11, 1, [1, 1], False, True),
        ([1, 1], 12, discount, [1, 2], True, True),
    ]
    assert long[2:4] == [([0, 2], 3, discount, [0, 3], True, True), ([0, 3], 0, 1, [1, 0], False, False)]


@ENDINGS
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_vector_rows_where_the_last_step_resets(mode, ending, discount):
    """The row has the true last observation; what is acted on next is the reset's."""
    short, long = play(vector(mode, ending), 5)
    assert short == [
        ([0, 0], 1, 1, [0, 1], False, True),
        ([0, 1], 2, discount, [0, 2], True, True),
        ([1, 0], 11, 1, [1, 1], False, True),
        ([1, 1], 12, discount, [1, 2], True, True),
        ([2, 0], 21, 1, [2, 1], False, True),
    ]
    assert long[2:4] == [([0, 2], 3, discount, [0, 3], True, True), ([1, 0], 11, 1, [1, 1], False, True)]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_after_a_step_of_vector_environments_that_was_broken_off_all_begin_anew(mode, monkeypatch):
    envs, action = vector(mode, lengths=(7, 8)), np.zeros((1, 2, 1), np.float32)
    last = envs.step(envs.reset().obs, action)
    step = envs._vector.step

    def interrupted(actions):
        step(actions)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(envs._vector, "step", interrupted)
        envs.step(last.obs, action)
    with monkeypatch.context() as patch, pytest.raises(EnvironmentFault):
        patch.setattr(envs._vector, "reset", lambda **_: (np.full((2, 3), np.nan), {}))
        envs.step(last.obs, action)
    anew = envs.step(last.obs, action)
    assert anew.failed.all() and anew.starts.all() and not anew.row.real.any()
    assert anew.obs[..., 1].tolist() == [[0, 0]]
    following = envs.step(anew.obs, action)
    assert following.row.real.all() and not following.failed.any() and following.obs[..., 1].tolist() == [[1, 1]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_all_that_vector_environments_put_into_the_replay_is_true(mode, ending):
    """Also of a second beginning; where they reset within a step, the first step of each later episode is left out."""
    envs = vector(mode, ending, (3, 3))
    rows = ring.empty(envs.spec, 100, 1, 2)
    for _ in range(2):
        rows = ring.cut(rows, jnp.ones((1, 2), bool))
        stepped = envs.reset()
        rows = ring.add(rows, stepped.row)
        for _ in range(21):
            stepped = envs.step(stepped.obs, np.zeros((1, 2, 1), np.float32))
            rows = ring.add(rows, stepped.row)
    batch = jax.device_get(ring.sample(rows, jax.random.split(jax.random.key(0), 1), 8192, 1, jnp.ones(1)))
    (episode, now), (next_episode, next_now) = np.moveaxis(batch.obs[0], -1, 0), np.moveaxis(batch.next_obs[0], -1, 0)
    assert_array_equal(next_episode, episode)
    assert_array_equal(next_now, now + 1)
    assert_array_equal(batch.reward[0], 10 * episode + next_now)
    assert_array_equal(batch.discount[0], np.where(next_now == 3, float(ending == "truncated"), 1))
    assert batch.boundary[0][next_now == 3].all() and set(now) == {0, 1, 2}
    firsts = {int(e) for e, n in zip(episode, now) if n == 0}
    assert len(firsts) > 9 if mode is AutoresetMode.NEXT_STEP else 0 in firsts


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_finished_episodes_of_vector_environments(mode):
    envs = vector(mode)
    play(envs, 12)
    own = [e for e in envs.finished if e.env == 0]
    assert [e.number for e in own] == list(range(len(own))) and len(own) >= 4
    for e in envs.finished:
        length = 2 + e.env
        total = sum(10 * e.number + now for now in range(1, length + 1))
        assert (e.length, e.total_reward, e.success) == (length, total, e.number % 2 == 0)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_with_dictionaries(mode):
    class Both(tiny.Clock):
        def __init__(self):
            super().__init__(2)
            self.observation_space = spaces.Dict(a=self.observation_space, b=spaces.Discrete(9))

        def _obs(self):
            return {"a": super()._obs(), "b": np.int64(self.now)}

    envs = VectorEnvs(SyncVectorEnv([Both, Both], autoreset_mode=mode), 0)
    stepped = envs.reset()
    for now in (1, 2):
        stepped = envs.step(stepped.obs, np.zeros((1, 2, 1), np.float32))
        assert_array_equal(stepped.row.next_obs["a"][0], [[0, now], [0, now]])
        assert_array_equal(stepped.row.next_obs["b"][0], [now, now])


def test_vector_environments_take_the_true_actions():
    class Wide(tiny.Clock):
        def __init__(self):
            super().__init__(9)
            self.action_space = spaces.Box(np.float32(2), np.float32(6), (1,))

    envs = VectorEnvs(SyncVectorEnv([Wide, Wide]), 0)
    envs.step(envs.reset().obs, np.array([[[-1.0], [1.0]]], np.float32))
    assert [env.actions for env in envs._vector.envs] == [[np.float32(2)], [np.float32(6)]]


def test_an_unknown_autoreset_mode_is_refused():
    made = SyncVectorEnv([tiny.Clock])
    made.metadata = made.metadata | {"autoreset_mode": "sometimes"}
    with pytest.raises(ConfigError) as error:
        VectorEnvs(made, 0)
    assert one_line(error, "autoreset_mode", "sometimes")


def test_a_vector_environments_fault_is_named():
    bad = [np.zeros(3), np.zeros(3), np.array([0, np.nan, 0])]
    envs = VectorEnvs(SyncVectorEnv([lambda: Scripted(VECTOR, [np.zeros(3)] * 9), lambda: Scripted(VECTOR, bad)]), 0)
    stepped = envs.step(envs.reset().obs, np.zeros((1, 2, 1), np.float32))
    with pytest.raises(EnvironmentFault) as error:
        envs.step(stepped.obs, np.zeros((1, 2, 1), np.float32))
    assert one_line(error, "environment 1", "observation[1]", "nan")


# --- what a user may name -----------------------------------------------------------------------------------


def limit(env: gymnasium.Env) -> int:
    """Steps until the environment cuts its episode."""
    env.reset(seed=0)
    for step in range(1, 1000):
        if env.step(env.action_space.sample())[3]:
            return step
    return 0


def test_an_id():
    factory = Factory("Pendulum-v1", {"g": 3.5})
    assert factory.name == "Pendulum-v1" and factory() is not factory()
    assert factory().unwrapped.g == 3.5 and limit(factory()) == 200


@pytest.fixture
def module(tmp_path, monkeypatch):
    source = """
        import gymnasium
        from gymnasium.envs.classic_control.pendulum import PendulumEnv

        class Mine(PendulumEnv):
            pass

        def make_mine(g=1.0):
            return Mine(g=g)

        nothing = lambda: 3
        gymnasium.register("Registered-v0", entry_point=Mine, max_episode_steps=9)
    """
    (tmp_path / "users_own.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_own"
    gymnasium.registry.pop("Registered-v0", None)


def test_a_module_and_a_name(module):
    """A class, a factory, or an id that the module registers."""
    for name in ("Mine", "make_mine"):
        factory = Factory(f"{module}:{name}", {"g": 2.0}, max_episode_steps=4)
        assert type(factory().unwrapped).__name__ == "Mine" and factory().unwrapped.g == 2.0
        assert limit(factory()) == 4 and factory.name == f"{module}:{name}"
    assert limit(Factory(f"{module}:Registered-v0")()) == 9


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("users_own:Mein", ["users_own", "Mein", "Mine"]),
        ("users_own:nothing", ["users_own:nothing", "int", "gymnasium.Env"]),
        ("no_such_module:Mine", ["no_such_module"]),
        ("Pendulm-v1", ["Pendulm-v1", "did you mean", "Pendulum-v1"]),
        ("Pendulum-v99", ["Pendulum-v99", "Pendulum-v1"]),
        ("nowhere/Qqqqqq-v7", ["nowhere/Qqqqqq-v7", "maxent list envs"]),
        ("Pendulum v1", ["Pendulum v1"]),
        ("", ["environment"]),
    ],
)
def test_an_unknown_environment_is_named_with_what_is_near(module, name, parts):
    with pytest.raises(ConfigError) as error:
        Factory(name)()
    assert one_line(error, *parts)


def test_an_unknown_argument_is_named():
    with pytest.raises(ConfigError) as error:
        Factory("Pendulum-v1", {"hardcor": True})()
    assert one_line(error, "Pendulum-v1", "hardcor")


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ('Box2D is not installed, run `pip install swig`, then `pip install "gymnasium[box2d]"`', "maxent-rl[box2d]"),
        ('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`', "maxent-rl[mujoco]"),
        ('pygame is not installed, run `pip install "gymnasium[classic-control]"`', "maxent-rl[classic]"),
        ("something else\nis missing", "something else is missing"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(message, part):
    def needs_a_package():
        raise gymnasium.error.DependencyNotInstalled(message)

    with pytest.raises(ConfigError) as error:
        Factory(needs_a_package)()
    assert one_line(error, "needs_a_package", part)


def test_an_instance_comes_first_itself_and_then_as_copies():
    env = tiny.Clock(5)
    factory = Factory(env)
    first, second = factory(), factory()
    assert first is env and second is not env and second.length == 5
    registered = Factory(gymnasium.make("Pendulum-v1", g=4.0))
    assert registered.name == "Pendulum-v1"
    assert registered().unwrapped.g == registered().unwrapped.g == 4.0
    assert registered("rgb_array").render_mode == "rgb_array"


class Simulated(tiny.Clock):
    """As a client of a physics engine is: a number, of a world that a copy of it would share."""

    worlds = 0

    def __init__(self) -> None:
        super().__init__(50)
        Simulated.worlds += 1
        self.world = Simulated.worlds


def test_further_environments_of_an_instance_share_nothing_with_it():
    gymnasium.register("Simulated-v0", entry_point=Simulated)
    try:
        factory = Factory(gymnasium.make("Simulated-v0"))
        assert len({factory().unwrapped.world for _ in range(3)}) == 3
    finally:
        gymnasium.registry.pop("Simulated-v0")


class Tenth(gymnasium.wrappers.TransformReward):
    """A wrapper whose constructor takes other arguments than the one that it records."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env, lambda reward: reward / 10)


class Heavier(gymnasium.Wrapper):
    """Changes what it wraps when it is made, and holds on to a part of it."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.inner = env.unwrapped
        self.inner.m = 3.0

    def reset(self, **given):
        self.inner.l = 2.0
        return super().reset(**given)


class Passes(gymnasium.Env):
    """No wrapper, and has the specification of the environment within it."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.env, self.spec = env, env.unwrapped.spec
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, **given):
        return self.env.reset(**given)

    def step(self, action):
        obs, _, *ends, info = self.env.step(action)
        return obs, 100.0, *ends, info


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda env: TimeLimit(gymnasium.wrappers.MaxAndSkipObservation(env, 4), 30),
        lambda env: gymnasium.wrappers.MaxAndSkipObservation(TimeLimit(env, 30), 4),
        Tenth,
        Heavier,
        Passes,
    ],
)
def test_further_environments_of_an_instance_are_wrapped_as_it_is(wrapped):
    factory = Factory(wrapped(gymnasium.make("Pendulum-v1", g=3.0)))
    first = factory()
    length = limit(first)
    other = factory()
    assert str(other) == str(first) and limit(other) == length
    played = []
    for env in (first, other):
        env.reset(seed=3)
        obs, reward, *_ = env.step(np.ones(1, np.float32))
        played.append((obs.tolist(), reward))
    assert played[0] == played[1]


def test_further_environments_of_an_instance_have_the_statistics_of_its_wrappers():
    factory = Factory(gymnasium.wrappers.NormalizeObservation(gymnasium.make("Pendulum-v1")))
    first = factory()
    assert limit(first) == 200
    assert factory().obs_rms.count == first.obs_rms.count > 200


@pytest.mark.parametrize("env", ["HalfCheetah-v5", "BipedalWalker-v3", "Acrobot-v1"])
def test_copies_of_gymnasiums_own_play_the_same(env):
    factory = Factory(gymnasium.make(env))
    one, other = factory(), factory()
    assert_array_equal(one.reset(seed=3)[0], other.reset(seed=3)[0])
    one.action_space.seed(3)
    for _ in range(20):
        action = one.action_space.sample()
        for a, b in zip(one.step(action)[:4], other.step(action)[:4], strict=True):
            assert_array_equal(a, b)


def test_a_time_limit_of_ones_own_is_not_exceeded_by_another():
    """Else training would end its episodes sooner than the evaluation."""
    made = gymnasium.make("Pendulum-v1", max_episode_steps=20)
    factory = Factory(made)
    assert [limit(factory()), limit(factory())] == [20, 20]
    nested = TimeLimit(TimeLimit(tiny.Clock(50), 20), 40)
    for env in (made, lambda: gymnasium.make("Pendulum-v1", max_episode_steps=20), nested):
        assert limit(Factory(env, max_episode_steps=6)()) == 6
        with pytest.raises(ConfigError) as error:
            Factory(env, max_episode_steps=30)()
        assert one_line(error, "max_episode_steps is 30", "time limit of 20")


class Specified(tiny.Clock):
    """Whose specification tells of a time limit that nothing keeps."""

    spec = EnvSpec("Specified-v0", max_episode_steps=6)

    def __init__(self) -> None:
        super().__init__(50, "truncated")


@pytest.mark.parametrize("env", [Specified, Specified()])
def test_a_time_limit_that_is_only_told_of_is_none(env):
    factory = Factory(env, max_episode_steps=6)
    assert [limit(factory()), limit(factory())] == [6, 6]
    others = Factory(env)
    assert [limit(others()), limit(others())] == [50, 50]


def test_an_instance_without_its_registered_time_limit_cannot_be_made_again_by_its_id():
    for steps, remakeable in ((None, True), (30, True), (-1, False)):
        factory = Factory(gymnasium.make("Pendulum-v1", max_episode_steps=steps))
        assert factory.remakeable == remakeable
        assert factory.max_episode_steps == {None: 200, 30: 30, -1: 0}[steps]
    assert "TimeLimit" not in str(factory()) + str(factory())


def test_what_is_made_takes_no_arguments():
    with pytest.raises(ConfigError) as error:
        Factory(gymnasium.make("Pendulum-v1"), {"g": 3.0})
    assert one_line(error, "Pendulum-v1", "drop g")


def test_an_instance_that_cannot_be_copied_is_made_anew_or_named():
    env = tiny.Clock()
    env.generator = (i for i in range(3))
    factory = Factory(env)
    factory()
    with pytest.raises(ConfigError) as error:
        factory()
    assert one_line(error, "Clock", "copied", "class")
    registered = gymnasium.make("Pendulum-v1", g=3.0)
    registered.unwrapped.generator = env.generator
    factory = Factory(registered)
    assert factory() is registered and factory().unwrapped.g == 3.0


@pytest.mark.parametrize("env", ["Pendulum-v1", tiny.Clock, lambda: tiny.Clock(50), tiny.Clock(50)])
def test_a_time_limit_holds_for_whatever_was_named(env):
    factory = Factory(env if env is not tiny.Clock else lambda: tiny.Clock(50), max_episode_steps=6)
    assert [limit(factory()), limit(factory())] == [6, 6]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always one")
@pytest.mark.parametrize("screen", ["", ":0"])
def test_without_a_screen_pygame_is_told_to_look_for_none(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say aloud that it found none."""
    for name in ("WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISPLAY", screen)
    Factory("Pendulum-v1")().close()
    assert os.environ.get("SDL_VIDEODRIVER") == (None if screen else "dummy")
