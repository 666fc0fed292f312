"""The device loop: what the loop on the host does, compiled; chunks that depend on the step alone; whole runs."""

import json
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tiny
from maxent import cli, native, registry, streams
from maxent.config import TrainConfig
from maxent.envs import spaces
from maxent.envs.contract import Episode, Stepped
from maxent.envs.device import env as device
from maxent.envs.device import worlds
from maxent.envs.device.env import DeviceEnv
from maxent.envs.make import Factory
from maxent.errors import ConfigError, EnvironmentFault, TrainingFault
from maxent.loops.device import DeviceLoop
from maxent.loops.evaluate import Evaluator
from maxent.loops.host import HostLoop
from maxent.loops.loop import Loop, updates_due
from maxent.loops.programs import Programs
from maxent.replay import ring
from maxent.run import driver
from maxent.run.loggers import read_csv
from maxent.types import Leaf, Spec

PENDULUM = "jax/Pendulum-v1"
CONTINUOUS, DISCRETE = Leaf((2,), "float32"), Leaf((), "int32", (3,))


def clock(length: int = 3, limit: int = 0, reward: float = 1.0, action: Leaf = CONTINUOUS, blind=False) -> DeviceEnv:
    """Shows [what the episode drew, steps taken in it], or nothing; pays `reward`, terminates after `length` steps."""
    shown = 0.0 if blind else 1.0

    def reset(key):
        state = jnp.stack([jax.random.uniform(key), 0.0])
        return state, shown * state

    def step(state, action, key):
        state = state + jnp.array([0.0, 1.0])
        return state, shown * state, jnp.float32(reward), state[1] >= length

    return DeviceEnv(Spec(Leaf((2,), "float32"), action), reset, step, limit)


def loop_of(env: DeviceEnv, envs: int = 1, seeds=(0,), algo: str = "ddpg", swept=None, **settings) -> DeviceLoop:
    chunk = settings.pop("chunk", 32)
    config = registry.entry(algo).config(**{"hidden_sizes": (8,), **settings})
    return DeviceLoop(Programs(registry.algorithm(algo), config, env.spec), env, envs, list(seeds), swept or {}, chunk)


def small(env: DeviceEnv, *args, **settings) -> DeviceLoop:
    return loop_of(env, *args, **{"batch_size": 8, "buffer_size": 400, "learning_starts": 32, **settings})


def run(loop: Loop, total: int, every: int = 1000):
    return list(loop.run(total, every))


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(jax.device_get(tree))]


def state_of(loop: Loop) -> list[np.ndarray]:
    """Everything that later steps depend on, but for sums since the last report."""
    return leaves((loop.learned.state, loop.ring, loop.moment))


class OnTheHost:
    """The same environments with the same keys, stepped one by one for the loop on the host."""

    def __init__(self, env: DeviceEnv, envs: int, seeds) -> None:
        self.env, self.shape, self.spec = env, (len(seeds), envs), env.spec
        self.roots = streams.roots(seeds)
        self.observation_space, self.action_space = spaces.canonical_spaces(env.spec)
        self.finished: list[Episode] = []
        self.faults: list[str] = []
        self.index = 0
        self._step = jax.jit(partial(worlds.step, env, name="env"))

    def reset(self) -> Stepped:
        self.world = worlds.begin(self.env, self.roots, self.shape[1], "env")
        return self._stepped(worlds.first_row(self.env, self.world))

    def step(self, obs, action) -> Stepped:
        self.index += self.shape[1]
        self.world, row = self._step(self.world, jnp.array(action), self.roots, index=jnp.uint32(self.index))
        return self._stepped(row)

    def _stepped(self, row) -> Stepped:
        row = jax.device_get(row)
        return Stepped(row, row.next_obs, np.asarray(self.world.starts), np.zeros(self.shape, bool))


# --- the same as on the host ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algo", "action", "envs", "settings"),
    [
        pytest.param("sac", CONTINUOUS, 1, {"utd": 1.0}, marks=pytest.mark.slow),
        ("sac_discrete", DISCRETE, 2, {"utd": 0.3, "n_step": 2, "normalize_observations": True}),
    ],
)
def test_chunks_of_one_iteration_do_what_the_host_does(algo, action, envs, settings):
    env = clock(3, limit=2 if settings["utd"] < 1 else 0, action=action)
    loop = small(env, envs, (0, 1), algo, chunk=1, **settings)
    host = HostLoop(loop.programs, OnTheHost(env, envs, (0, 1)), [0, 1], {})  # type: ignore[arg-type]
    run(loop, 120), run(host, 120)
    assert (loop.step, loop.updates) == (host.step, host.updates) and loop.updates > 10
    for name in ("obs", "action", "reward", "discount", "boundary"):
        assert_allclose(getattr(loop.ring, name), getattr(host.ring, name), atol=2e-4, err_msg=name)
    for a, b in zip(leaves(loop.learned.state), leaves(host.learned.state), strict=True):
        assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize(("envs", "utd"), [(3, 0.4), (64, 0.125)])
def test_updates_are_made_on_the_hosts_schedule(envs, utd):
    loop = small(clock(), envs, utd=utd, buffer_size=2000)
    for report in loop.run(400, 100):
        learning = range(0, report.step - loop.learns_from, envs)
        assert report.updates == sum(updates_due(utd, step, envs) for step in learning)
    assert loop.step >= 400 and loop.updates > 0


@pytest.mark.parametrize("ending", ["terminated", "cut"])
def test_rows_say_how_episodes_end(ending):
    env = clock(3) if ending == "terminated" else clock(10, limit=3)
    loop = small(env, 2, (0, 1), learning_starts=100)
    run(loop, 64)
    obs, boundary, discount, reward = (
        np.asarray(getattr(loop.ring, n)) for n in ("obs", "boundary", "discount", "reward")
    )
    steps = obs[: int(loop.ring.written), ..., 1]
    assert_array_equal(steps, np.broadcast_to((np.arange(len(steps)) % 4)[:, None, None], steps.shape))
    last, first = steps == 3, steps == 0
    assert_array_equal(boundary[: len(steps)], last)
    assert_array_equal(discount[: len(steps)], np.where(last & (ending == "terminated"), 0, 1))
    assert_array_equal(reward[: len(steps)], np.where(first, 0, 1))
    starts = obs[: len(steps), ..., 0][first]
    assert len(np.unique(starts)) == starts.size, "every episode of every environment draws its own beginning"


def test_episodes_are_reported_once_and_as_they_were():
    env = clock(5, reward=0.5)
    loop = small(env, 2, (0, 1), learning_starts=200)
    episodes = [e for report in loop.run(120, 10) for e in report.episodes]
    assert {(e.member, e.env) for e in episodes} == {(m, i) for m in (0, 1) for i in (0, 1)}
    own = [e for e in episodes if (e.member, e.env) == (1, 1)]
    assert [e.number for e in own] == list(range(10)) and {(e.length, e.total_reward) for e in own} == {(5, 2.5)}


@pytest.mark.parametrize(("limit", "length", "value"), [(2, 99, 10.0), (0, 2, 1 / (1 - 0.45))])
def test_a_time_limit_is_bootstrapped_from_and_an_end_is_not(limit, length, value):
    """Reward 1 for ever and γ = 0.9: 1 / (1 - γ). Where every other step is an end, unforeseen: 1 / (1 - γ/2)."""
    env = clock(length, limit, action=Leaf((), "int32", (2,)), blind=True)
    loop = loop_of(
        env, 8, algo="sac_discrete", hidden_sizes=(32,), batch_size=64, buffer_size=4000, learning_starts=64, gamma=0.9,
        learning_rate=3e-3, tau=0.05, temperature=1e-6, utd=0.25,
    )  # fmt: skip
    reports = run(loop, 6000, 3000)
    assert_allclose(reports[-1].metrics["q_mean"], value, rtol=0.05)


# --- speed ---------------------------------------------------------------------------------------------------


def test_nothing_is_traced_after_warm_up():
    loop = small(clock(), 2)
    run(loop, 96)
    before = loop.programs.traces.copy()
    assert before["chunk"] == 2, "warm-up and training"
    run(loop, 512, 64)
    assert loop.programs.traces == before


def test_the_compiled_text_has_no_copy_of_the_replay():
    rows = 7919 * 13 + 1
    loop = small(clock(), 1, buffer_size=rows - 1)
    extend = loop.programs.extend.lower(loop.ring, _block(loop), np.int32(32))
    for program in (chunk_of(loop), extend):
        lines = [line for line in program.compile().as_text().splitlines() if f"[{rows}," in line]
        assert lines, "the replay is in the text"
        assert not [line for line in lines if " copy(" in line or "copy-start" in line]


@pytest.mark.skipif(not native.available(), reason="no C compiler here")
@pytest.mark.parametrize(("envs", "due"), [(1, 1), (4, None)])
def test_the_compiled_text_has_no_copy_of_the_policy(envs, due):
    loop = small(clock(), envs, algo="sac", hidden_sizes=(37, 37))
    lines = [line for line in chunk_of(loop, due).compile().as_text().splitlines() if "f32[1,37,37]" in line]
    assert lines, "the policy is in the text"
    assert not [line for line in lines if re.search(r"= f32\[1,37,37\]\S* copy\(|copy-start", line)]


def chunk_of(loop: DeviceLoop, due: int | None = 1):
    """The lowered program of a chunk of training."""
    dues = np.ones(loop._iterations, np.int32)
    moment = loop.learned, loop.carry, loop.world, loop.ring, loop.roots
    return loop._advance.lower(*moment, np.uint32(64), np.uint32(0), np.int32(len(dues)), dues, warm=False, due=due)


def _block(loop: DeviceLoop):
    row = worlds.first_row(loop.env, loop.world)._replace(obs=())
    return jax.tree.map(lambda x: jnp.zeros((32, *x.shape), x.dtype), row)


def test_a_state_with_numbers_that_are_none_is_not_kept():
    def step(state, action, key):
        return state + 1, state, jnp.where(state[0] > 40, jnp.nan, 0.0), jnp.zeros((), bool)

    env = DeviceEnv(Spec(Leaf((1,), "float32"), CONTINUOUS), lambda key: (jnp.zeros(1), jnp.zeros(1)), step, 0)
    loop = small(env)
    run(loop, 32)
    assert loop.sound
    with pytest.raises(TrainingFault, match=r"member 0 \(seed 0\) before step 64"):
        run(loop, 64)
    assert not loop.sound


# --- members -------------------------------------------------------------------------------------------------


def test_members_are_runs_of_their_own():
    both, alone = small(clock(), 2, (3, 4)), small(clock(), 2, (4,))
    run(both, 96), run(alone, 96)
    for name in ("obs", "reward", "boundary"):
        assert_array_equal(getattr(both.ring, name)[:, 1], getattr(alone.ring, name)[:, 0])
    assert_array_equal(both.ring.action[:32, 1], alone.ring.action[:32, 0])
    for a, b in zip(leaves(both.learned.state), leaves(alone.learned.state), strict=True):
        assert_allclose(a[1], b[0], atol=1e-4)


def test_the_same_seed_gives_the_same_bits_whoever_watches():
    one, other = small(clock(), 2), small(clock(), 2)
    evaluator = Evaluator(other.programs, other.env)
    run(one, 200)
    for _ in other.run(200, 40):
        evaluator.play(other.view, other.roots, 3)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(state_of(one), state_of(other), strict=True))


@pytest.mark.parametrize(("starts", "envs", "n_step"), [(0, 1, 1), (0, 1, 3), (10, 4, 5)])
def test_nothing_is_learned_before_a_whole_window_is_stored(monkeypatch, starts, envs, n_step):
    loop = small(clock(9), envs, learning_starts=starts, n_step=n_step)
    advance, before = loop._advance, []

    def spied(*args, **fixed):
        before.append((int(args[3].written), int(np.sum(args[8]))))
        return advance(*args, **fixed)

    monkeypatch.setattr(loop, "_advance", spied)
    run(loop, 200)
    assert sum(due for _, due in before) == loop.updates > 100
    assert all(due == 0 or rows > n_step for rows, due in before)


# --- rollouts ------------------------------------------------------------------------------------------------


def test_rollout_algorithms_learn_from_whole_rollouts():
    loop = loop_of(clock(), 2, algo="ppo", rollout_length=16, batch_size=8, epochs=1)
    reports = run(loop, 160, 32)
    assert [r.updates for r in reports] == [1, 2, 3, 4, 5] and loop.programs.traces["chunk"] == 1


# --- evaluation ----------------------------------------------------------------------------------------------


def test_an_evaluation_plays_every_episode_to_its_end():
    loop = small(clock(4, reward=0.25), 1, (0, 1))
    played = Evaluator(loop.programs, loop.env).play(loop.view, loop.roots, 5)
    assert [len(own) for own in played] == [5, 5]
    assert {(e.length, e.total_reward) for own in played for e in own} == {(4, 1.0)}


def test_success_is_what_the_task_says_where_an_episode_is_over():
    """Of the state in which it ended; unknown without such a task."""
    lucky = clock(4)._replace(success=lambda state: (state[0] > 0.5) & (state[1] == 4))
    loop = small(lucky, 3, (0, 1))
    episodes = [e for report in run(loop, 120, 60) for e in report.episodes]
    obs, ends = (np.moveaxis(np.asarray(x), 0, 2) for x in (loop.ring.obs, loop.ring.boundary))  # [member, env, row]
    drawn = [[(obs[m, i][ends[m, i], 0] > 0.5).tolist() for i in range(3)] for m in range(2)]
    told = [[[e.success == 1 for e in episodes if (e.member, e.env) == (m, i)] for i in range(3)] for m in range(2)]
    assert told == drawn
    assert {success for own in told for each in own for success in each} == {True, False}
    played = Evaluator(loop.programs, loop.env).play(loop.view, loop.roots, 16)
    assert {e.success for own in played for e in own} == {0.0, 1.0}
    unknown = small(clock(4))
    assert {e.success for report in run(unknown, 60) for e in report.episodes} == {None}


def test_an_episode_that_never_ends_is_told(monkeypatch):
    monkeypatch.setattr("maxent.loops.evaluate.LONGEST", 50)
    loop = small(clock(99))
    with pytest.raises(EnvironmentFault, match="not ended after 50 steps: set a time limit"):
        Evaluator(loop.programs, loop.env).play(loop.view, loop.roots, 2)


def test_an_evaluation_is_left_between_two_pieces(monkeypatch):
    monkeypatch.setattr("maxent.loops.evaluate.PIECE", 3)
    loop, pieces = small(clock(7)), []
    whole = Evaluator(loop.programs, loop.env).play(loop.view, loop.roots, 2)
    assert Evaluator(loop.programs, loop.env).play(loop.view, loop.roots, 2, between=lambda: pieces.append(0)) == whole
    assert len(pieces) == 3

    def stop():
        pieces.pop()
        if len(pieces) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Evaluator(loop.programs, loop.env).play(loop.view, loop.roots, 2, between=stop)
    assert len(pieces) == 1


# --- faults --------------------------------------------------------------------------------------------------


def test_numbers_that_are_none_stop_the_run_and_name_the_member():
    def step(state, action, key):
        return state + 1, state, jnp.where(state[0] > 40, jnp.nan, 0.0), jnp.zeros((), bool)

    env = DeviceEnv(Spec(Leaf((1,), "float32"), CONTINUOUS), lambda key: (jnp.zeros(1), jnp.zeros(1)), step, 0)
    with pytest.raises(TrainingFault, match=r"member 0 \(seed 0\) before step 64: its environments gave"):
        run(small(env, 1, (0, 1), learning_starts=300), 200, 64)


def reset_of(*shape: int, state=0.0, dtype=float):
    return lambda key: (state, jnp.zeros(shape, dtype))


def stepping(state=0.0, shape=(2,), reward=1.0, terminated=False):
    return lambda old, action, key: (state, jnp.zeros(shape), jnp.asarray(reward), jnp.asarray(terminated))


def faulty(state, action, key):
    raise ZeroDivisionError("of its own")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"reset": lambda key: jnp.zeros(2)}, r"x: reset gives float32\[2\]: it must give \(state, observation\)"),
        ({"reset": reset_of(3)}, r"x: the observation of reset is float32\[3\]: it must be float32\[2\]"),
        ({"reset": lambda key: (0.0, {"a": jnp.zeros(2)})}, r"reset is {'a': float32\[2\]}: it must be float32\[2\]"),
        (
            {"step": faulty},
            r"x: step cannot be traced by JAX: ZeroDivisionError: of its own \(test_device",
        ),
        (
            {"step": lambda *_: (0.0, 1.0, True)},
            r"step gives .*: it must give \(state, observation, reward, ter",
        ),
        ({"step": stepping(state=jnp.zeros(1))}, r"the state of step is float32\[1\]: it must be float32\[\]"),
        ({"step": stepping(state=0)}, r"the state of step is int32\[\]: it must be float32\[\]"),
        ({"reset": reset_of(2, dtype=int)}, r"the observation of step is float32\[2\]: it must be int32\[2\]"),
        ({"step": stepping(shape=(1,))}, r"the observation of step is float32\[1\]: it must be float32\[2\]"),
        ({"step": stepping(reward=[1.0])}, r"the reward is float32\[1\]: it must be float32\[\]"),
        ({"step": stepping(terminated=[True])}, r"terminated is bool\[1\]: it must be bool\[\]"),
    ],
)
def test_what_breaks_the_contract_is_refused_before_anything_is_computed(change, complaint):
    env = DeviceEnv(Spec(Leaf((2,), "float32"), CONTINUOUS), reset_of(2), stepping(), 0)
    device.refuse_unfit("x", env)
    with pytest.raises(ConfigError, match=complaint):
        device.refuse_unfit("x", env._replace(**change))


def test_a_task_of_ones_own_is_checked_before_it_has_a_run_folder(tmp_path, monkeypatch, capsys):
    right, wrong = OWN, OWN.replace("(state, state, ", "(state, action * jnp.ones(4), ")
    for name, text in (("right_device_task", right), ("wrong_device_task", wrong)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "wrong_device_task:env", "--steps", "100"]) == cli.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "wrong_device_task:env: the observation of step is float32[4]: it must be float32[1]" in line
    assert not (tmp_path / "runs").exists()
    assert cli.main(["check", "wrong_device_task:env"]) == cli.BAD_INPUT
    assert "float32[4]" in capsys.readouterr().out
    assert cli.main(["check", "right_device_task:env"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "no twin on the host" in told and told.endswith("0 faults, 0 warnings")


@pytest.mark.parametrize("name", ["env_workers", "env_restarts"])
def test_what_only_the_host_has_is_refused(name):
    with pytest.raises(ConfigError, match=f"train.{name} is 2, and {PENDULUM} runs on the device"):
        driver.Driver(TrainConfig(PENDULUM, **{name: 2}), tiny.SETTINGS, Factory(PENDULUM))


@pytest.mark.parametrize("name", ["jaxx/Pendulum-v1", "jax/Pendulum-v2", "brax/none"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ConfigError):
        driver.Driver(TrainConfig(name), tiny.SETTINGS, Factory(name, {}))


OWN = """
import jax.numpy as jnp
from maxent.envs.device.env import DeviceEnv
from maxent.types import Leaf, Spec

spec = Spec(Leaf((1,), "float32"), Leaf((1,), "float32"))
never = lambda state, action, key: (state, state, jnp.float32(1), jnp.zeros((), bool))
env = DeviceEnv(spec, lambda key: (jnp.zeros(1), jnp.zeros(1)), never, 7)
"""


def test_an_environment_of_ones_own_is_named_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "own_device_task.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    named, shorter = Factory("own_device_task:env"), Factory("own_device_task:env", {}, 5)
    assert named.remakeable and (named.on_device().time_limit, shorter.on_device().time_limit) == (7, 5)
    assert Factory(clock(length=4)).on_device() is not None and not Factory(clock()).remakeable
    with pytest.raises(ConfigError, match="takes no arguments: drop mass"):
        Factory("own_device_task:env", {"mass": 1})
    made = driver.Driver(TrainConfig("own_device_task:env"), tiny.SETTINGS, shorter)
    assert [e.length for e in made.evaluate(2)[0]] == [5, 5]


@pytest.mark.parametrize(("limit", "given", "expected"), [(0, 30, 30), (40, 0, 40), (0, 0, None)])
def test_a_twin_is_cut_where_its_environment_is(monkeypatch, limit, given, expected):
    env = clock()._replace(time_limit=limit, twin="Pendulum-v1")
    twin = Factory(env, {}, given)()
    assert (twin.spec.max_episode_steps or None) == expected or (expected is None and "TimeLimit" not in str(twin))


def test_a_task_without_a_twin_cannot_be_shown(monkeypatch):
    monkeypatch.setattr(device, "make", lambda *args: clock())
    with pytest.raises(ConfigError, match="runs on the device alone"):
        Factory("jax/Clock", {})(render_mode="rgb_array")


# --- whole runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(
        PENDULUM, steps=640, seeds=2, envs=2, eval_every=320, eval_episodes=2, log_every=64, checkpoint_every=128,
        max_episode_steps=20,
    )  # fmt: skip


@pytest.mark.parametrize("save_replay", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(tmp_path, config, save_replay):
    config = replace(config, save_replay=save_replay)
    whole = driver.start(config, tiny.SETTINGS, {}, out=str(tmp_path / "whole"))
    whole.learn(640)
    begun = driver.start(config, tiny.SETTINGS, {}, out=str(tmp_path / "begun"))
    begun.learn(640, [lambda progress: progress.step < 320])
    again = driver.reopen(tmp_path / "begun")
    assert again.loop.step == 320
    again.learn(640)
    same = [a.tobytes() == b.tobytes() for a, b in zip(state_of(whole.loop), state_of(again.loop), strict=True)]
    assert all(same) == save_replay, "without its replay a run fills a new one"
    if save_replay:
        for name in ("progress.csv", "evaluations.csv"):
            rows = [read_csv(tmp_path / run / name) for run in ("whole", "begun")]
            drop = ("wall_time", "steps_per_second")
            plain = [[{k: v for k, v in row.items() if k not in drop} for row in own] for own in rows]
            assert plain[0] == plain[1] and plain[0]


def test_the_command_trains_evaluates_resumes_and_records(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = "--steps 256 --envs 2 --eval-every 128 --log-every 64 --checkpoint-every 128 --eval-episodes 2"
    sizes = "--sac.hidden-sizes [8] --sac.learning-starts 64 --sac.batch-size 8 --max-episode-steps 10"
    assert cli.main(["train", PENDULUM, "--out", out, *words.split(), *sizes.split()]) == 0
    capsys.readouterr()
    assert cli.main(["eval", out, "--episodes", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["returns"]) == 3 and told["lengths"] == [10, 10, 10]
    assert cli.main(["resume", out, "--steps", "320"]) == 0
    assert read_csv(tmp_path / "run" / "progress.csv")[-1]["step"] == "320"
    assert cli.main(["record", out, "--episodes", "1"]) == 0, "on the twin"
    assert list((tmp_path / "run" / "videos").iterdir())


def test_rings_are_extended_row_by_row():
    loop = small(clock(), 1, buffer_size=10)
    block = _block(loop)
    block = block._replace(reward=jnp.arange(32.0)[:, None, None], next_obs=jnp.zeros((32, 1, 1, 2)))
    rows = ring.extend(loop.ring, block, jnp.int32(14))
    assert int(rows.written) == 15
    assert_array_equal(np.sort(rows.reward[:, 0, 0]), np.arange(3.0, 14.0))
