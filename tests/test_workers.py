"""Environments in processes of their own: the same rows, and what becomes of those that crash or hang."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import tiny
import worker_tasks
from maxent.cli import main
from maxent.config import TrainConfig
from maxent.envs import workers
from maxent.envs.contract import Stepped
from maxent.envs.host import HostEnvs
from maxent.envs.make import Factory
from maxent.envs.workers import Workers
from maxent.errors import ConfigError, EnvironmentFault
from maxent.loops.host import HostLoop
from maxent.run import checkpoint, folder
from maxent.settings import build
from maxent.streams import episode_seed
from worker_tasks import Unsteady, Walk

STEPS = 40
SEEDS = [3, 4]
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (STEPS, 2, 3, 1)).astype(np.float32)
AT = (1, 1)
"""The environment that fails, in the second episode: with six environments, the second worker's second of three."""
WRONG = episode_seed(SEEDS[1], 1, 1)


def play(envs: HostEnvs, steps: int = STEPS) -> list[Stepped]:
    stepped = [envs.reset()]
    for action in ACTIONS[:steps]:
        stepped.append(envs.step(stepped[-1].obs, action))
    return stepped


def same(first: Stepped, second: Stepped, where=np.s_[:]) -> None:
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert a[where].tobytes() == b[where].tobytes()


def gone(pid: int) -> bool:
    """Whether that process has ended, within ten seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def undisturbed():
    envs = HostEnvs(Walk, SEEDS, 3)
    return play(envs), envs


def test_rows_are_the_same_bits_as_in_this_process(undisturbed):
    expected, reference = undisturbed
    envs = HostEnvs(Workers(Walk, 2), SEEDS, 3)
    for ours, theirs in zip(play(envs), expected, strict=True):
        same(ours, theirs)
    assert envs.finished == reference.finished and len(envs.finished) > 20
    for a, b in zip(envs.journal(), reference.journal()):
        assert_array_equal(a, b)
    pids = [worker._process.pid for worker in envs._make._workers]
    envs.close()
    assert len(set(pids)) == 2 and all(map(gone, pids))


def lines_of(*functions):
    """(function's name, line) of every line that Python may stop before."""
    return [(f.__name__, line) for f in functions for *_, line in f.__code__.co_lines() if line]


@pytest.mark.parametrize("function", ["ask", "wait", "_send", "_receive", "_start"])
def test_an_interrupt_between_any_two_lines_loses_nothing(undisturbed, function):
    """As in a notebook, where it is an exception wherever it comes, and the training goes on."""
    expected, _ = undisturbed
    envs = HostEnvs(Workers(Walk, 2), SEEDS, 3)
    done, lines = [envs.reset()], sorted(set(lines_of(getattr(workers._Worker, function))))[1:]
    interrupts = 0
    for action in ACTIONS:
        name, line = lines.pop() if lines else ("", 0)
        for worker in envs._make._workers if name == "_start" else []:
            worker._stop()

        def trace(frame, event, argument, name=name, line=line):
            if frame.f_code.co_name != name or "workers" not in frame.f_code.co_filename:
                return trace if frame.f_code.co_name in ("step", "_step_all") else None
            if event == "line" and frame.f_lineno == line:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace if name else None)
        try:
            done.append(envs.step(done[-1].obs, action))
        except KeyboardInterrupt:
            done.append(envs.step(done[-1].obs, action))
            interrupts += 1
        finally:
            sys.settrace(None)
    assert not lines and interrupts >= 3
    for ours, theirs in zip(done, expected, strict=True):
        same(ours, theirs)
    envs.close()


def test_workers_work_at_the_same_time_and_without_jax():
    envs = HostEnvs(Workers(worker_tasks.Witness, 4), [0], 4)
    stepped = envs.reset()
    started = time.monotonic()
    stepped = envs.step(stepped.obs, np.zeros((1, 4, 1), np.float32))
    assert time.monotonic() - started < 4 * 0.3
    assert len(set(stepped.obs[0, :, 0])) == 4 and os.getpid() not in stepped.obs[0, :, 0]
    assert not stepped.obs[0, :, 1].any()
    envs.close()


FAULTS = {
    "raises": r"RuntimeError: the cable came off \(worker_tasks.py, line \d",
    "shape": r"observation has shape \(1,\), declared is \(2,\)",
    "unreadable": r"\w+Error: Can't (get|pickle) local object",
    "exits": "its process ended with exit code 3",
    "killed": "its process was ended by SIGKILL",
    "hangs": "it has not answered for 0.5 s, and its process was ended",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_the_episode_in_which_it_happens_and_nothing_else(fault, undisturbed):
    """The others go on bit for bit, those of the same process too; the failing one goes on with its next episode."""
    expected, reference = undisturbed
    envs = HostEnvs(Workers(partial(Walk, fault, WRONG), 2, 0.5), SEEDS, 3, restarts=1)
    found = play(envs)
    others = np.ones((2, 3), bool)
    others[AT] = False
    for ours, theirs in zip(found, expected):
        same(ours, theirs, others)
    (when,) = [i for i, stepped in enumerate(found) if stepped.failed.any()]
    for ours, theirs in zip(found[:when], expected):
        same(ours, theirs)
    at_fault = found[when]
    assert at_fault.failed.sum() == 1 and at_fault.failed[AT] and not at_fault.row.real[AT] and at_fault.starts[AT]
    third = next(s for s in expected[when:] if s.starts[AT])
    assert_array_equal(at_fault.obs[AT], third.obs[AT])
    (told,) = envs.faults
    assert re.fullmatch(rf"environment 1 of member 1, episode 1 \(seed {WRONG}\), step 4: {FAULTS[fault]}.*", told)
    assert [e for e in envs.finished if (e.member, e.env) == AT and e.number == 1] == []
    kept = [e for e in envs.finished if (e.member, e.env) != AT]
    assert kept == [e for e in reference.finished if (e.member, e.env) != AT]
    envs.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_that_broke_off_can_be_taken_again(workers, undisturbed):
    """Without restarts the fault is raised; whoever goes on all the same gets what would have been."""
    expected, reference = undisturbed
    make = partial(Walk, "raises", WRONG)
    envs = HostEnvs(Workers(make, 2) if workers else make, SEEDS, 3)
    stepped, journal = [envs.reset()], envs.journal()
    with pytest.raises(EnvironmentFault, match=rf"environment 1 of member 1, episode 1 \(seed {WRONG}\), step 4"):
        for action in ACTIONS:
            journal = envs.journal()
            stepped.append(envs.step(stepped[-1].obs, action))
    for before, after in zip(journal, envs.journal()):
        assert_array_equal(before, after)
    envs._restarts = 1
    for action in ACTIONS[len(stepped) - 1 :]:
        stepped.append(envs.step(stepped[-1].obs, action))
    others = np.ones((2, 3), bool)
    others[AT] = False
    for ours, theirs in zip(stepped, expected, strict=True):
        same(ours, theirs, others)
    assert sum(s.failed.sum() for s in stepped) == 1
    kept = [e for e in envs.finished if (e.member, e.env) != AT]
    assert kept == [e for e in reference.finished if (e.member, e.env) != AT]
    envs.close()


def test_what_cannot_be_brought_back_is_cut_and_said():
    envs = HostEnvs(Workers(partial(Unsteady, "exits", WRONG), 1), SEEDS, 3, restarts=1)
    found = play(envs)
    when = next(i for i, stepped in enumerate(found) if stepped.failed.any())
    cut = found[when].failed | found[when + 1].failed
    assert cut[AT] and cut.sum() > 3 and not any((s.row.real & s.failed).any() for s in found)
    assert sum("with the same seed and actions it went another way" in told for told in envs.faults) == cut.sum() - 1
    assert sum("exit code 3" in told for told in envs.faults) == 1
    envs.close()


def test_a_worker_killed_from_outside_costs_one_restart(undisturbed):
    expected, _ = undisturbed
    envs = HostEnvs(Workers(Walk, 1), SEEDS, 3, restarts=1)
    stepped = play(envs, 8)
    os.kill(envs._make._workers[0]._process.pid, signal.SIGKILL)
    stepped.append(envs.step(stepped[-1].obs, ACTIONS[8]))
    assert stepped[-1].failed.sum() == 1
    same(stepped[-1], expected[9], ~stepped[-1].failed)
    os.kill(envs._make._workers[0]._process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match="environment 0 of member 0, .* its process was ended by SIGKILL"):
        envs.step(stepped[-1].obs, ACTIONS[9])
    envs.close()


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Walk(), ["<lambda>", "cannot be sent", "env_workers to 0"]),
        (Factory(Walk()), ["Walk", "cannot be sent", "class"]),
        (Factory(lambda: Walk()), ["lambda", "cannot be sent"]),
        (Factory("Pendulm-v1"), ["did you mean Pendulum-v1"]),
        (worker_tasks.Unmakeable, ["cannot be made in a worker process", "exit code 5"]),
    ],
    ids=["lambda", "instance", "factory of a lambda", "unknown", "crash"],
)
def test_what_cannot_be_made_there_is_refused_in_one_line(make, parts):
    with pytest.raises(ConfigError) as error:
        HostEnvs(Workers(make, 2), [0], 1)
    assert "\n" not in str(error.value) and all(part in str(error.value) for part in parts), error.value


def test_a_registered_id_is_known_there():
    gymnasium.register("OwnWalk-v0", entry_point=Walk, max_episode_steps=3)
    try:
        envs = HostEnvs(Workers(Factory("OwnWalk-v0"), 1), [0], 1)
        play_one = [envs.reset()]
        for _ in range(3):
            play_one.append(envs.step(play_one[-1].obs, np.zeros((1, 1, 1), np.float32)))
        assert play_one[-1].row.boundary.all() and envs.finished[0].length == 3
        envs.close()
    finally:
        gymnasium.registry.pop("OwnWalk-v0")


PARENT = """
    import sys, time
    from functools import partial
    from maxent.envs.workers import Workers, ask
    from worker_tasks import Walk
    workers = Workers(partial(Walk, "hangs", 5, 1), 2)
    envs = [workers(), workers()]
    for env in envs:
        ask(env, "reset", 5)()
    print(*(worker._process.pid for worker in workers._workers), flush=True)
    {then}
"""
WAITS = "[answer() for answer in [ask(env, 'step', [0.0]) for env in envs]]"


@pytest.mark.parametrize(
    ("then", "number"),
    [
        ("sys.exit()", None), ("time.sleep(60)", signal.SIGTERM), (WAITS, signal.SIGKILL), (WAITS, signal.SIGINT),
    ],
    ids=["exit", "SIGTERM", "SIGKILL while one hangs", "SIGINT while one hangs"],
)  # fmt: skip
def test_no_worker_outlives_its_parent(then, number):
    code = textwrap.dedent(PARENT).format(then=then)
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    if number is not None:
        time.sleep(0.2)
        os.killpg(parent.pid, number)
    parent.communicate(timeout=30)
    assert len(pids) == 2 and all(map(gone, pids))


# --- training -----------------------------------------------------------------------------------------------

WORDS = [
    "--steps", "120", "--envs", "2", "--log-every", "20", "--eval-every", "20", "--eval-episodes", "2",
    "--checkpoint-every", "0", "--sac.hidden_sizes", "[8]", "--sac.batch_size", "8", "--sac.learning_starts", "100",
]  # fmt: skip


def test_episodes_go_on_in_new_workers_with_the_same_bits(undisturbed):
    expected, _ = undisturbed
    first, again = HostEnvs(Workers(Walk, 2), SEEDS, 3), HostEnvs(Workers(Walk, 3), SEEDS, 3)
    last = play(first, 20)[-1]
    assert first.journal().lengths.any() and again.restore(first.journal(), last).all()
    for action, theirs in zip(ACTIONS[20:], expected[21:], strict=True):
        last = again.step(last.obs, action)
        same(last, theirs)
    first.close()
    again.close()


@pytest.mark.slow
def test_training_and_resuming_in_workers_give_the_same_bits():
    def loop(workers: int) -> HostLoop:
        envs = HostEnvs(Workers(Walk, workers) if workers else Walk, [0], 3)
        return HostLoop(tiny.programs(tiny.SAC, tiny.SETTINGS, envs.spec), envs, [0], {})

    def run(one: HostLoop, total: int) -> HostLoop:
        list(one.run(total, 30))
        return one

    whole, first, again = run(loop(0), 120), run(loop(2), 75), loop(2)
    again.learned, again.step, again.updates = first.learned, first.step, first.updates
    assert again.resume(first.moment, first.ring).all() and first.moment.journal.lengths.sum() > 0
    run(again, 120)
    states = [(one.learned.state, one.ring, one.moment, one.step, one.updates) for one in (whole, again)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    first.envs.close()
    again.envs.close()


def test_the_command_stops_at_a_hanging_environment_with_the_run_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seed = episode_seed(0, 1, 2)
    fault = ["--env.fault", "hangs", "--env.seed", str(seed), "--env.step", "3"]
    words = ["train", "worker_tasks:Walk", *fault, "--env-workers", "2", "--step-timeout", "0.5", *WORDS]
    assert main([*words, "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"environment 1 of member 0, episode 2 (seed {seed}), step 3: it has not" in err
    (saved,) = checkpoint.find(Path("run") / folder.CHECKPOINTS)
    assert checkpoint.read_manifest(saved)["step"] > 20


def test_a_time_for_steps_needs_processes_that_can_be_ended():
    with pytest.raises(ConfigError, match="step_timeout is 3.0 and env_workers 0: only a process of its own"):
        build(TrainConfig, {"env": "x", "step_timeout": 3}, "train")
