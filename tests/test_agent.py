"""The Python object: Stable-Baselines3's signatures, every kind of environment, saving and loading."""

import gc
import weakref
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_array_equal

import maxent
from maxent.agent import CLASSES
from maxent.registry import ALGORITHMS

TINY = {"hidden_sizes": (8,), "learning_starts": 20, "batch_size": 8, "buffer_size": 500}


class Thermostat(gymnasium.Env):
    """Observations in a dictionary, actions from 0 to 30 degrees; rewarded for 20. Ends after ten steps."""

    observation_space = spaces.Dict({"room": spaces.Box(-50, 50, (2,)), "mode": spaces.Discrete(3, start=1)})
    action_space = spaces.Box(0.0, 30.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self._obs(), -abs(float(action[0]) - 20.0), False, self.steps == 10, {"is_success": self.steps == 10}

    def _obs(self):
        return {"room": self.np_random.normal(size=2), "mode": int(self.np_random.integers(1, 4))}


@pytest.fixture(scope="module")
def agent():
    return maxent.SAC(Thermostat, seed=3, **TINY).learn(60)


def test_every_algorithm_has_a_public_class_of_its_name():
    assert CLASSES.keys() == ALGORITHMS.keys()
    for name, cls in CLASSES.items():
        assert cls.algorithm == name and getattr(maxent, cls.__name__) is cls


def test_an_agent_that_is_let_go_frees_its_memory_at_once():
    """Its replay may be most of a device: nothing may wait for a collection of cycles."""
    agent = maxent.SAC(Thermostat, seed=3, **TINY)
    left = [weakref.ref(part) for part in (agent._driver, agent._driver.loop)]
    gc.disable()
    try:
        del agent
        assert [part() for part in left] == [None, None]
    finally:
        gc.enable()


def test_predict_takes_one_observation_or_a_batch(agent):
    one = agent.observation_space.sample()
    batch = {key: np.stack([one[key]] * 4) for key in one}
    action, state = agent.predict(one, deterministic=True)
    actions, _ = agent.predict(batch, state="kept", episode_start=np.ones(4, bool), deterministic=True)
    assert agent.action_space.contains(action) and state is None
    assert actions.shape == (4, 1)
    np.testing.assert_allclose(actions, np.stack([action] * 4), rtol=1e-5, atol=3e-5)  # of a range of 30


def test_predict_samples_differently_each_time_and_within_the_bounds(agent):
    one = agent.observation_space.sample()
    drawn = [agent.predict(one)[0] for _ in range(20)]
    assert len({float(action[0]) for action in drawn}) > 10
    assert all(agent.action_space.contains(action) for action in drawn)


@pytest.mark.parametrize(
    "observation",
    [
        {"room": np.zeros(3), "mode": 1},
        {"room": np.zeros(2)},
        {"room": np.zeros(2), "mode": 4},
        {"room": np.array([np.nan, 0.0]), "mode": 1},
        np.zeros(2),
    ],
)
def test_predict_refuses_what_does_not_fit(agent, observation):
    with pytest.raises(maxent.ConfigError, match="predict"):
        agent.predict(observation)


def test_save_and_load_give_the_same_actions_and_learn_on(agent, tmp_path):
    agent.save(tmp_path / "saved")
    loaded = maxent.load(tmp_path / "saved", env=Thermostat)
    one = agent.observation_space.sample()
    assert_array_equal(agent.predict(one, deterministic=True)[0], loaded.predict(one, deterministic=True)[0])
    assert loaded.num_timesteps == 60 and loaded.config == agent.config
    assert loaded.learn(10).num_timesteps == 70
    with pytest.raises(maxent.ConfigError, match="not empty"):
        agent.save(tmp_path / "saved")


def test_a_saved_agent_takes_the_place_of_another_where_it_may(tmp_path, monkeypatch):
    def actions(agent):
        return np.stack([agent.predict(np.full(3, x, np.float32), deterministic=True)[0] for x in (-0.5, 0.5)])

    first, second = (maxent.SAC("Pendulum-v1", seed=seed, **TINY) for seed in (0, 1))
    first.save(tmp_path / "saved", overwrite=True)
    monkeypatch.setattr(second._driver, "save", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        second.save(tmp_path / "saved", overwrite=True)
    assert_array_equal(actions(maxent.load(tmp_path / "saved")), actions(first))
    monkeypatch.undo()
    with pytest.raises(maxent.ConfigError, match="overwrite=True"):
        second.save(tmp_path / "saved")
    second.save(tmp_path / "saved", overwrite=True)
    assert_array_equal(actions(maxent.load(tmp_path / "saved")), actions(second))
    assert not np.array_equal(actions(first), actions(second))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    with pytest.raises(maxent.ConfigError, match="writes by itself"):
        maxent.SAC("Pendulum-v1", out=tmp_path / "own", **TINY).save(tmp_path / "own", overwrite=True)


def test_a_saved_environment_comes_back_with_its_arguments_and_its_time_limit(tmp_path):
    maxent.SAC(gymnasium.make("Pendulum-v1", g=5.0, max_episode_steps=7), **TINY).save(tmp_path / "saved")
    loaded = maxent.load(tmp_path / "saved")
    assert loaded.evaluate(1).lengths == [7]
    env = loaded._driver.factory()
    assert env.unwrapped.g == 5.0
    vector = gymnasium.make_vec("Pendulum-v1", 1, g=6.0)
    assert maxent.load(tmp_path / "saved", env=vector).evaluate(1).lengths == [200]


def test_an_environment_that_no_name_makes_again_must_be_given_to_load(tmp_path):
    halved = gymnasium.wrappers.TransformReward(gymnasium.make("Pendulum-v1"), lambda reward: reward / 2)
    maxent.SAC(halved, **TINY).save(tmp_path / "saved")
    with pytest.raises(maxent.ConfigError, match="env="):
        maxent.load(tmp_path / "saved")
    assert maxent.load(tmp_path / "saved", env=halved).num_timesteps == 0


def test_the_runs_own_settings_are_arguments_too(tmp_path):
    agent = maxent.SAC(Thermostat, out=tmp_path / "run", log_every=10, eval_every=20, eval_episodes=1, **TINY)
    seen = []
    agent.learn(40, callback=[lambda progress: seen.append(progress.step)])
    assert seen == [10, 20, 30, 40]
    assert len((tmp_path / "run" / "evaluations.csv").read_text().splitlines()) == 3


def test_evaluation_plays_as_many_episodes_as_asked_and_repeats_itself(agent):
    first, again = agent.evaluate(3), agent.evaluate(3)
    assert first == again and len(first.returns) == 3 and first.lengths == [10, 10, 10]
    assert first.mean_return == np.mean(first.returns)
    assert agent.evaluate(3, seed=99).returns != first.returns or agent.evaluate(3, seed=98).returns != first.returns


def test_learning_is_the_same_in_two_pieces_as_in_one():
    whole = maxent.SAC(Thermostat, seed=1, **TINY).learn(50)
    pieces = maxent.SAC(Thermostat, seed=1, **TINY).learn(30).learn(20)
    one = whole.observation_space.sample()
    assert_array_equal(whole.predict(one, deterministic=True)[0], pieces.predict(one, deterministic=True)[0])


@pytest.mark.parametrize("broken", ["learn", "add", "extend"])
def test_half_a_step_is_neither_learned_on_from_nor_saved(broken, tmp_path, monkeypatch):
    """As a second Ctrl-C leaves it: what was given to a program is gone, or a row is missing."""
    agent = maxent.PPO(Thermostat, rollout_length=16) if broken == "extend" else maxent.SAC(Thermostat, **TINY)
    loop = agent.learn(60)._driver.loop
    loop._turns, own = None, getattr(loop.programs, broken)

    def interrupted(*args, **fixed):
        own(*args, **fixed)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.programs, broken, interrupted)
        agent.learn(10)
    for go_on in (lambda: agent.learn(10), lambda: agent.save(tmp_path / "agent")):
        with pytest.raises(maxent.TrainingFault, match="broken off within a step.*maxent.load"):
            go_on()
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize("broken", ["learn", "turns", "advance", "extend"])
def test_what_is_broken_off_while_it_is_compiled_has_changed_nothing(broken, tmp_path, monkeypatch):
    env = "jax/Pendulum-v1" if broken == "advance" else Thermostat
    make = partial(maxent.PPO, rollout_length=96) if broken == "extend" else partial(maxent.SAC, **TINY)
    agent, undisturbed = make(env).learn(64), make(env).learn(64)
    for each in (agent, undisturbed):
        each._driver.loop._turns = each._driver.loop._turns if broken == "turns" else None
    loop = agent._driver.loop
    if broken == "turns" and loop._turns is None:
        pytest.skip("no turns on this machine")
    programs = {name: (loop.programs, name) for name in ("learn", "extend")}
    programs |= {"turns": (loop._turns, "begin"), "advance": (loop, "_advance")}

    asked = partial(agent.save, tmp_path / "agent") if broken == "extend" else partial(agent.learn, 32)

    def compiles(*args, **fixed):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*programs[broken], compiles)
        asked()
    one = agent.observation_space.sample()
    learned = [each.learn(32).predict(one, deterministic=True)[0] for each in (agent, undisturbed)]
    assert agent.num_timesteps == undisturbed.num_timesteps == 96
    assert_array_equal(*learned)


def test_a_callback_sees_progress_and_can_stop():
    seen = []
    agent = maxent.SAC(Thermostat, **TINY)
    agent.learn(5000, callback=lambda progress: seen.append(progress.step) or progress.step < 2000)
    assert seen == [1000, 2000] and agent.num_timesteps == 2000


@pytest.mark.parametrize(
    "env",
    [
        "Pendulum-v1",
        Thermostat,
        lambda: gymnasium.make("Pendulum-v1"),
        Thermostat(),
        gymnasium.make("Pendulum-v1"),
        gymnasium.make_vec("Pendulum-v1", 2),
    ],
    ids=["id", "class", "factory", "instance", "made instance", "vector"],
)
def test_every_kind_of_environment_learns_and_evaluates(env):
    agent = maxent.SAC(env, **TINY).learn(40)
    assert agent.num_timesteps == 40
    assert len(agent.evaluate(2).returns) == 2


def test_members_are_seeds_side_by_side():
    pair = maxent.SAC(Thermostat, seed=5, seeds=2, **TINY).learn(30)
    one = pair.observation_space.sample()
    alone = maxent.SAC(Thermostat, seed=6, **TINY).learn(30)
    np.testing.assert_allclose(
        pair.predict(one, deterministic=True, member=1)[0], alone.predict(one, deterministic=True)[0], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: maxent.SAC("Pendulm-v1"), "did you mean Pendulum-v1"),
        (lambda: maxent.SAC("CartPole-v1"), "discrete actions"),
        (lambda: maxent.SAC(Thermostat, gama=0.9), "did you mean gamma"),
        (lambda: maxent.SAC(Thermostat, learning_rate=-1.0), "at least 0"),
        (lambda: maxent.SAC(Thermostat, batch_size=64, buffer_size=32), "a batch must fit"),
        (lambda: maxent.SAC(Thermostat, seeds=0), "at least 1"),
        (lambda: maxent.SAC(Thermostat, eval_every=500), "must be a multiple"),
        (lambda: maxent.SAC(Thermostat, hidden_sizes=(8, 0)), "at least one unit"),
        (lambda: maxent.SAC(Thermostat, **TINY).learn(0), "at least 1"),
        (lambda: maxent.SAC(gymnasium.make_vec("Pendulum-v1", 2), seeds=2), "one member"),
        (
            lambda: maxent.SAC(gymnasium.make_vec("Pendulum-v1", 2), max_episode_steps=50),
            "max_episode_steps is 50, .* leave it out",
        ),
        (
            lambda: maxent.SAC(gymnasium.make_vec("Pendulum-v1", 2), env_kwargs={"g": 3.0}),
            "env_kwargs is .* leave it out",
        ),
        (lambda: maxent.load("no-such-run"), "is no run"),
    ],
)
def test_errors_are_one_line_and_say_what_to_do(make, message):
    with pytest.raises(maxent.MaxentError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
