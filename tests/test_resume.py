"""What a run survives: stopped anywhere, it goes on with the same bits; what goes wrong is said."""

import csv
import json
import os
import re
import signal
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import maxent
import tiny
from maxent import native, registry
from maxent.config import TrainConfig
from maxent.envs.contract import Episode
from maxent.envs.host import HostEnvs
from maxent.errors import CheckpointError, ConfigError, EnvironmentFault, Terminated, TrainingFault
from maxent.loops.evaluate import evaluate
from maxent.loops.host import HostLoop
from maxent.loops.programs import Programs
from maxent.replay import ring
from maxent.run import checkpoint, driver, folder, guards
from maxent.settings import build

pytestmark = pytest.mark.usefixtures("shared_programs")

SMALL = {"hidden_sizes": [8], "batch_size": 8}
REPLAY = SMALL | {"learning_starts": 30, "buffer_size": 400}
EVERY = {"log_every": 50, "eval_every": 100, "eval_episodes": 1, "checkpoint_every": 50, "max_episode_steps": 60}
CLOCKS = ("wall_time", "steps_per_second")
LOST = pytest.mark.filterwarnings("ignore:.* could not be brought back")


def begin(path: Path, algo: str, env: str, settings: dict, **train) -> driver.Driver:
    config = build(TrainConfig, {"env": env, "algo": algo, "steps": 200} | EVERY | train, "train")
    return driver.start(config, build(registry.entry(algo).config, settings, algo), {}, str(path))


def stop_after(run: driver.Driver, steps: int, how=None) -> None:
    """Let `how` happen, or the loop stop, while it takes its step of that number."""
    take, left = run.loop.envs.step, [steps // run.loop.envs.shape[1]]

    def step(obs, action):
        left[0] -= 1
        if not left[0]:
            if how is None:
                run.loop.stopping = True
            else:
                how()
        return take(obs, action)

    run.loop.envs.step = step


def all_of(run: driver.Driver) -> dict[str, np.ndarray]:
    """Everything that a run is, by name."""
    loop = run.loop
    tree = (loop.learned, loop.ring, loop.moment, [loop.step, loop.updates, loop.learns_from])
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in CLOCKS} for row in csv.DictReader(file)]


CASES = {
    "one member, one environment": ("sac", "Pendulum-v1", REPLAY, {}, 123),
    "members and environments": ("sac", "Pendulum-v1", REPLAY | {"n_step": 3}, {"seeds": 2, "envs": 2}, 124),
    "noise with a memory": ("td3", "Pendulum-v1", REPLAY | {"noise_reversion": 0.2}, {}, 77),
    "choices": ("sac_discrete", "CartPole-v1", REPLAY, {"envs": 2}, 150),
    "rollouts": ("ppo", "CartPole-v1", SMALL | {"rollout_length": 32, "epochs": 2}, {"envs": 2}, 90),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_ends_with_the_same_bits(case, tmp_path):
    """Stopped in the middle of a period and of episodes, by a signal or by a loss of everything since a checkpoint."""
    algo, env, settings, train, stop = CASES[case]
    whole = begin(tmp_path / "whole", algo, env, settings, **train)
    whole.learn(200)
    stopped = begin(tmp_path / "stopped", algo, env, settings, **train)
    stop_after(stopped, stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.learn(200)
    assert stopped.loop.step == stop and not stopped.loop.stepped.row.boundary.all()
    again = driver.reopen(tmp_path / "stopped")
    before, after = all_of(stopped), all_of(again)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.tobytes() == after[name].tobytes(), name
    again.learn(200)
    assert_same_run(again, whole)


def assert_same_run(again: driver.Driver, whole: driver.Driver) -> None:
    """The same bits everywhere but in the clocks."""
    expected = all_of(whole)
    for name, array in all_of(again).items():
        assert array.tobytes() == expected[name].tobytes(), name
    for file in (folder.PROGRESS, folder.EVALUATIONS):
        assert table(again.path / file) == table(whole.path / file)
    timeless = {"wall_time": 0.0}
    assert again.history.counters() | timeless == whole.history.counters() | timeless


def test_after_a_kill_the_last_checkpoint_leads_to_the_same_bits(tmp_path):
    algo, env, settings, train, _ = CASES["one member, one environment"]
    whole = begin(tmp_path / "whole", algo, env, settings, **train)
    whole.learn(200)
    killed = begin(tmp_path / "killed", algo, env, settings, **train)
    killed.learn(150)
    newest = checkpoint.find(tmp_path / "killed" / folder.CHECKPOINTS)[-1]
    (newest / checkpoint.MANIFEST).unlink()  # as if the process had died while it wrote this one
    again = driver.reopen(tmp_path / "killed")
    assert again.loop.step == 100
    again.learn(200)
    expected = all_of(whole)
    for name, array in all_of(again).items():
        assert array.tobytes() == expected[name].tobytes(), name
    assert table(tmp_path / "killed" / folder.PROGRESS) == table(tmp_path / "whole" / folder.PROGRESS)


def test_a_damaged_checkpoint_is_skipped_and_kept_aside(tmp_path):
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    run.learn(150)
    newest = checkpoint.find(run.path / folder.CHECKPOINTS)[-1]
    state = newest / checkpoint.STATE
    state.write_bytes(state.read_bytes()[:-1] + b"\xff")
    with pytest.warns(
        UserWarning, match=f"{checkpoint.STATE} does not have the checksum.*going back to step-000000100"
    ):
        again = driver.reopen(run.path)
    assert again.loop.step == 100 and newest.exists()  # reading alone changes nothing
    again.learn(150)
    assert (newest.parent / f"damaged-{newest.name}").is_dir()
    assert driver.reopen(run.path).loop.step == 150


@LOST
def test_an_environment_that_does_not_repeat_itself_is_told_of_once(tmp_path):
    env = gymnasium.make("Pendulum-v1")
    config = TrainConfig("Pendulum-v1", steps=50, log_every=50, eval_every=0, checkpoint_every=0)
    run = driver.start(config, build(registry.entry("sac").config, REPLAY, "sac"), {}, str(tmp_path / "run"))
    run.learn(50)
    env.close()
    again = driver.reopen(run.path)
    moment = run.loop.moment
    other = moment.journal._replace(actions=moment.journal.actions + np.float32(0.01))
    assert not again.loop.envs.restore(other, moment.stepped).any()
    assert again.loop.envs.restore(moment.journal, moment.stepped).all()


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    with folder.locked(run.path), pytest.raises(ConfigError, match="another process is training in .*: wait for it"):
        run.learn(50)
    assert run.loop.step == 0 and run.learn(50)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_signals_save_and_say_which(number, error, tmp_path):
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    stop_after(run, 71, lambda: os.kill(os.getpid(), number))
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    usual = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(error) as raised:
            run.learn(200)
    finally:
        signal.signal(signal.SIGINT, found)
    assert raised.type is error and signal.getsignal(signal.SIGTERM) is usual
    assert driver.reopen(run.path).loop.step == 71


@pytest.mark.parametrize("last", ["step", "callback"])
def test_an_interrupt_that_comes_too_late_is_raised_all_the_same(last, tmp_path):
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    kill = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    if last == "step":
        stop_after(run, 100, kill)
    with pytest.raises(Terminated):
        run.learn(100, [kill] if last == "callback" else [])
    assert driver.reopen(run.path).loop.step >= 50 and run.learn(200)


def test_an_agent_without_a_folder_makes_up_for_no_evaluation(tmp_path, monkeypatch):
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    run.history.evaluation_due = True
    run.save(run.path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    agent = maxent.load(run.path).learn(5)
    assert not agent._driver.history.evaluation_due and not list(Path().iterdir())


@pytest.mark.parametrize("step", [100, 200])
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_evaluation_is_broken_off_and_made_up_for(number, error, step, tmp_path, monkeypatch):
    """The one on the way and the last one; killed once more after it was played, and before it was saved."""
    whole = begin(tmp_path / "whole", "sac", "Pendulum-v1", REPLAY, seeds=2)
    whole.learn(200)
    stopped = begin(tmp_path / "stopped", "sac", "Pendulum-v1", REPLAY, seeds=2)
    actions = []

    def signalled(programs, view, envs, *others):
        take = envs.step

        def step_envs(obs, action):
            if stopped.loop.step == step:
                actions.append(action)
                os.kill(os.getpid(), number)
            return take(obs, action)

        envs.step = step_envs
        return evaluate(programs, view, envs, *others)

    monkeypatch.setattr(driver, "evaluate", signalled)
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(error) as raised:
            stopped.learn(200)
    finally:
        signal.signal(signal.SIGINT, found)
        monkeypatch.undo()
    assert raised.type is error and len(actions) == 1  # the step under way is the last
    assert (stopped.path / folder.EVALUATIONS).exists() == (step == 200)  # the earlier one's
    again = driver.reopen(stopped.path)
    assert again.loop.step == step and again.history.evaluation_due
    monkeypatch.setattr(again.keeper, "write", lambda: None)
    monkeypatch.setattr(again.keeper, "write_meanwhile", lambda kind: None)
    again.learn(step, [lambda progress: False])
    again = driver.reopen(stopped.path)
    assert again.history.evaluation_due and again.learn(200)
    assert_same_run(again, whole)
    assert not driver.reopen(stopped.path).history.evaluation_due


# --- guards -------------------------------------------------------------------------------------------------

FINE = {"step": 5, "member": 0, "seed": 7, "temperature": 0.2, "entropy": -1.0, "q_mean": 50.0, "critic_loss": 1.0}


@pytest.mark.parametrize(
    ("change", "finite", "expected"),
    [
        ({}, True, ""),
        ({"critic_loss": float("nan")}, True, "critic_loss is nan; .*learning_rate"),
        ({"q_mean": float("inf")}, True, "q_mean is inf"),
        ({}, False, "a parameter is not finite"),
        ({"temperature": 1e-9}, True, "the temperature has died: 1e-09; .*raise it"),
        ({"temperature": 1e5}, True, r"the temperature explodes: 1e\+05; .*target_entropy"),
        ({"q_mean": 1199.0}, True, ""),
        ({"q_mean": -1201.0}, True, "Q diverges: its mean is -1.2e.03, and what steps have paid allows 120; .*utd"),
    ],
)
def test_guards(change, finite, expected):
    """The bound on Q: ten times (1 + 0.2) / (1 - 0.99)."""
    members = [guards.Member(True, 1.2, True, 0.99), guards.Member(finite, 1.2, True, 0.99)]
    faults = guards.find([FINE, FINE | change | {"member": 1}], members)
    assert len(faults) == bool(expected)
    if expected:
        with pytest.raises(TrainingFault, match=r"member 1 \(seed 7\) at step 5: " + expected):
            raise TrainingFault(str(faults[0]))


def test_guards_know_what_they_cannot_judge():
    """A temperature that is fixed, or sinks while nothing is paid; values where the bonus for entropy is not known."""
    silent = FINE | {"temperature": 1e-30, "q_mean": 5.0}
    assert guards.find([silent], [guards.Member(True, 0.0, True, 0.99)]) == []
    assert guards.find([FINE | {"temperature": 0.0}], [guards.Member(True, 1.0, False, 0.99)]) == []
    assert guards.find([FINE | {"q_mean": 1e9}], [guards.Member(True, float("inf"), False, 0.99)]) == []
    assert guards.entropy_bonus(FINE) == pytest.approx(0.2)
    assert guards.entropy_bonus({"entropy": -3.0}) == 3.0 and guards.entropy_bonus({"entropy": "", "x": 1}) == 0.0


@pytest.mark.parametrize("envs", [3, 16])
def test_reports_come_where_environments_do_not_divide_the_period(envs):
    host = HostEnvs(lambda: tiny.Clock(5), [0], envs)
    loop = HostLoop(tiny.programs(tiny.SAC, tiny.SETTINGS, host.spec), host, [0], {})
    steps = [report.step for report in loop.run(100, 10)]
    assert steps[-1] >= 100 and max(np.diff([0, *steps])) < 10 + envs


def test_a_temperature_of_zero_is_no_fault(tmp_path):
    assert begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY | {"temperature": 0.0}).learn(100)


def test_a_step_that_breaks_off_leaves_a_whole_checkpoint(tmp_path):
    """The step is taken again, the updates made for it are not, and the episodes go on."""
    algo, env, settings, train, _ = CASES["members and environments"]
    broken = begin(tmp_path / "broken", algo, env, settings, **train)
    inner = broken.loop.envs._envs[1][0].unwrapped
    take, left = inner.step, [47]

    def step(action):
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("the cable came off")
        return take(action)

    inner.step = step
    with pytest.raises(EnvironmentFault, match="environment 0 of member 1, episode 0 .*step 47: RuntimeError"):
        broken.learn(200)
    again = driver.reopen(tmp_path / "broken")
    assert again.loop.step == 92 and again.loop.ahead == 2
    before, after = all_of(broken), all_of(again)
    for name, array in before.items():
        assert array.tobytes() == after[name].tobytes(), name
    again.learn(200)
    assert again.loop.updates == 200 - 30 and again.loop.ahead == 0


POLICY = r"member 0 \(seed 0\) at step 1\d\d: its policy gives actions that are not finite"
CRITICS = r"member 0 \(seed 0\) at step 150: critic_loss is nan; often a step size that is too large"
PARAMETER = r"member 0 \(seed 0\) at step 150: a parameter is not finite; often a step size that is too large"


@pytest.mark.parametrize(
    ("compiler", "part", "expected"),
    [
        ("", "log_temperature", POLICY),
        ("", "target_critics", POLICY),
        ("", "critics_opt", POLICY),
        ("", "moments", PARAMETER),
        ("cc", "log_temperature", POLICY),
        # XLA multiplies the gradient 0 of a row by weights that are NaN; native.c leaves the row out.
        ("cc", "target_critics", CRITICS),
        ("cc", "critics_opt", CRITICS),
        ("cc", "moments", PARAMETER),
    ],
)
def test_a_fault_stops_the_run_with_the_last_checkpoint_from_before(compiler, part, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    if compiler and not native.available():
        pytest.skip("no C compiler here")
    monkeypatch.setattr(driver, "Programs", Programs)  # compiled anew, with that compiler or without
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    run.learn(100)
    learned = run.loop.learned
    bad = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan if x.dtype == jnp.float32 else 0), learned.state)
    run.loop.learned = learned._replace(state=learned.state._replace(**{part: getattr(bad, part)}))
    with pytest.raises(TrainingFault, match=expected):
        run.learn(200)
    report = json.loads((run.path / folder.FAULT).read_text())
    assert re.match(expected, report["fault"]) and report["last"]
    assert driver.reopen(run.path).loop.step == 100


def test_rollback_goes_on_with_other_random_numbers(tmp_path, monkeypatch):
    """Twice it meets the same fault, once it does not."""
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY, on_fault="rollback")
    run.learn(100)
    find, calls, roots = guards.find, [], []

    def fails_twice(rows, *rest):
        calls.append(rows[0]["step"])
        roots.append(jax.random.key_data(run.loop.roots).tolist())
        fault = guards.Fault(rows[0]["step"], 0, 0, "it fails", "nothing")
        return [fault] if len(calls) < 3 else find(rows, *rest)

    monkeypatch.setattr(guards, "find", fails_twice)
    warned: list[str] = []
    run.warn = warned.append
    run.learn(200)
    assert calls == [150, 150, 150, 200] and run.keeper.attempt == 2
    assert [("it fails" in w and "going back to step 100" in w) for w in warned] == [True, True]
    assert roots[0] != roots[1] != roots[2] == roots[3] and roots[0] != roots[2]
    assert [row["step"] for row in table(run.path / folder.PROGRESS)] == ["50", "100", "150", "200"]
    again = driver.reopen(run.path)
    assert again.keeper.attempt == 2 and jax.random.key_data(again.loop.roots).tolist() == roots[3]


def test_after_a_rollback_the_next_evaluation_is_the_best(tmp_path, monkeypatch):
    """Where the best one was of the attempt that is given up."""
    run = begin(
        tmp_path / "run", "sac", "Pendulum-v1", REPLAY, on_fault="rollback", checkpoint_every=100, eval_every=50
    )
    find, calls = guards.find, []

    def fails_once(rows, *rest):
        calls.append(rows[0]["step"])
        return [guards.Fault(200, 0, 0, "it fails", "nothing")] if calls == [50, 100, 150, 200] else find(rows, *rest)

    def better_and_better(episodes, *rest, **others):
        return [[Episode(0, 0, i, 0, float(run.loop.step), 1, None) for i in range(episodes)]]

    def worse(*rest, **others):
        return [[Episode(0, 0, 0, 0, -1e6, 1, None)]]

    monkeypatch.setattr(guards, "find", fails_once)
    monkeypatch.setattr(run, "evaluate", better_and_better)
    warned = []
    run.warn = lambda text: (warned.append(text), monkeypatch.setattr(run, "evaluate", worse))
    run.learn(200)
    assert calls == [50, 100, 150, 200, 150, 200] and len(warned) == 1
    names = sorted(path.name for path in (run.path / folder.CHECKPOINTS).glob("*best*"))
    assert names == ["abandoned-best-000000150", "best-000000150"]
    assert run.history.best == [-1e6]


def test_members_are_judged_by_their_own_discount():
    members = [guards.Member(True, 1.0, False, gamma) for gamma in (0.9, 0.999)]
    rows = [FINE | {"q_mean": 5000.0, "member": i} for i in (0, 1)]
    assert [fault.member for fault in guards.find(rows, members)] == [0]


# --- environments that fail -----------------------------------------------------------------------------------


class Failing(tiny.Clock):
    """Raises, or shows a NaN, at the fourth step that any of its kind takes, and every fourth after."""

    steps = 0
    how = "raises"

    def step(self, action):
        type(self).steps += 1
        obs, *rest = super().step(action)
        if self.steps % 4 == 0:
            if self.how == "raises":
                raise RuntimeError("the cable came off")
            obs[1] = np.nan
        return obs, *rest


@pytest.mark.parametrize(("how", "message"), [("raises", "came off (test_resume.py, line "), ("nan", "obs")])
def test_a_failing_environment_is_made_anew_and_its_episode_cut(how, message):
    """All that the ring gives happened: the step that failed is in none of it, and a reset never follows a step."""
    Failing.steps, Failing.how = 0, how
    envs = HostEnvs(lambda: Failing(7), [0], 1, restarts=5)
    rows, stepped = ring.empty(envs.spec, 100, 1, 1), envs.reset()
    rows = ring.add(rows, stepped.row)
    while len(envs.faults) < 5:
        stepped = envs.step(stepped.obs, np.zeros((1, 1, 1), np.float32))
        rows = ring.add(ring.cut(rows, jnp.array(stepped.failed)), stepped.row)
    assert all(message in fault or "nan" in fault for fault in envs.faults)
    assert "environment 0 of member 0, episode 0" in envs.faults[0] and "step 4" in envs.faults[0]
    batch = jax.device_get(ring.sample(rows, jax.random.split(jax.random.key(0), 1), 2048, 1, jnp.ones(1)))
    obs, next_obs = batch.obs[0], batch.next_obs[0]
    assert_array_equal(next_obs - obs, np.tile([0.0, 1.0], (len(obs), 1)))
    assert set(next_obs[:, 1]) == {1, 2, 3} and (batch.discount == 1).all()
    with pytest.raises(EnvironmentFault, match="step 4"):
        for _ in range(5):
            stepped = envs.step(stepped.obs, np.zeros((1, 1, 1), np.float32))


def test_a_journal_that_does_not_fit_is_damage(tmp_path):
    run = begin(tmp_path / "run", "sac", "Pendulum-v1", REPLAY)
    run.learn(50)
    loop, moment = run.loop, run.loop.moment
    assert len(moment.journal.actions) == 50
    short = moment._replace(journal=moment.journal._replace(actions=moment.journal.actions[1:]))
    counters = checkpoint.read_manifest(checkpoint.find(run.path / folder.CHECKPOINTS)[-1])["counters"]
    snapshot = checkpoint.take("step", 50, loop.learned, short, counters, loop.ring)
    checkpoint.write(run.path / folder.CHECKPOINTS, snapshot)
    with pytest.raises(CheckpointError, match="damaged journal"):
        driver.reopen(run.path)
