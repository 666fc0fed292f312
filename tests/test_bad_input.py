"""Bad input of every kind: one line that names it, exit code 2 or a typed exception, soon, and nothing is written.

The time is that of the processor within the call, with the library already imported.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import maxent
from faulty import EmptyAction, EmptyObservation
from maxent import tabular
from maxent.cli import main
from maxent.envs.make import Factory
from maxent.envs.workers import Workers
from maxent.run import driver
from maxent.study import curves
from refusals import files, refusal

assert curves  # imports matplotlib
SECONDS = 2.0
TASKS = """
import os

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import Box


class Task(gymnasium.Env):
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-2, 3, (1,), np.float32)


class Unbounded(Task):
    action_space = Box(-np.inf, np.inf, (1,), np.float32)


class Undefined(Task):
    def __init__(self):
        super().__init__()
        self.action_space = Box(-1, 1, (2,), np.float32)
        self.action_space.high[1] = np.nan


class Crossed(Task):
    action_space = Box(np.float32([0, 1]), np.float32([1, 1]))


class Texts(Task):
    observation_space = spaces.Text(5)


class Sequences(Task):
    action_space = spaces.Sequence(Box(-1, 1))


class Blind(Task):
    observation_space = spaces.Dict()


class NoSpaces(gymnasium.Env):
    pass


class Costly(Task):
    def __init__(self, price):
        pass


class Broken(Task):
    def __init__(self):
        {}["mass"]


def nothing():
    return 3


three = 3
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """One that has learned nothing, and is saved."""
    agent = maxent.SAC("Pendulum-v1", hidden_sizes=(4,), batch_size=4, buffer_size=50, seeds=2)
    agent.path = tmp_path_factory.mktemp("saved") / "run"
    agent.save(agent.path)
    return agent


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, agent):
    """A folder to stand in, with modules of environments, a run, and a file; where nothing may begin to train."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver.Driver, "_learn", lambda *arguments: pytest.fail("it trains"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in {"bad_tasks": TASKS, "bad_syntax": "def", "bad_import": "1 / 0"}.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    shutil.copytree(agent.path, tmp_path / "run")
    (tmp_path / "file").write_text("something")
    return tmp_path


def soon(call: Callable[[], object]) -> object:
    """What the call gives, if it took no longer than it may."""
    started = time.process_time()
    try:
        return call()
    finally:
        assert time.process_time() - started < SECONDS


HUGE = "1" + 400 * "0"
P = "train Pendulum-v1"
COMMAND = [
    # commands and options
    ("trian", ["'trian'", "did you mean train?"]),
    ("Train", ["'Train'", "did you mean train?"]),
    ("--nothing", ["'--nothing'"]),
    (f"{P} --steps 5_000_000_000", ["train.steps", "at most 4294967295"]),
    (f"{P} --sac.hidden_sizes [10_000_000,10_000_000]", ["what is learned needs", "lower hidden_sizes"]),
    (f"{P} --sac.critics 1_000_000_000", ["sac.critics", "at most 1024"]),
    (f"{P} --sac.utd 1e30", ["sac.utd", "at most 1000000"]),
    (f"{P} --steps 100,000", ["train.steps is '100,000'"]),
    (f"{P} --steps 4_000_000_000 --sac.utd 2", ["sac.utd is 2", "4,000,000,000", "4,294,967,295 updates"]),
    (f"{P} --sac.log-std-min -1e400", ["log_std_min", "finite"]),
    (f"{P} --sac.n_steps 5", ["did you mean --sac.n-step?"]),
    ("train os:system", ["os:system belongs to an installed package"]),
    ("train subprocess:Popen", ["belongs to an installed package"]),
    ("train gymnasium:make", ["belongs to an installed package"]),
    ("train maxent.cli:main", ["belongs to an installed package"]),
    (f"{P} --envs 3_000_000_000", ["train.envs", "at most"]),
    (f"{P} --ent-coef 0.1", ["--ent-coef", "did you mean --sac.temperature?"]),
    (f"{P} --algo ppo --ppo.n_steps 64", ["--ppo.n_steps", "did you mean --ppo.rollout-length?"]),
    ("🙂", ["'🙂'", "train"]),
    ("train", ["maxent train ENV", "maxent list envs"]),
    (f"{P} CartPole-v1", ["'CartPole-v1'"]),
    (f"{P} --step 5", ["--step:", "did you mean --steps"]),
    (f"{P} --steps", ["--steps"]),
    (f"{P} --env-kwargs 3", ["--env-kwargs", "did you mean --env.KEY?"]),
    ("eval run --nothing 3", ["--nothing", "--episodes", "--env.KEY"]),
    (f"{P} -s 5", ["-s"]),
    (f"{P} ---steps 5", ["steps"]),
    (f"{P} --sac.learning_rat 1", ["--sac.learning_rat", "did you mean --sac.learning-rate"]),
    (f"{P} --sca.tau 1", ["--sca.KEY"]),
    (f"{P} --sac. 1", ["--sac."]),
    (f"{P} --.tau 1", ["--.KEY"]),
    (f"{P} --train.steps 5", ["--train.KEY"]),
    (f"{P} --algo td3 --sac.tau 1", ["--sac.KEY"]),
    (f"{P} --algo sax", ["'sax'", "did you mean sac?"]),
    # numbers and ranges
    (f"{P} --steps 0", ["train.steps is 0", "at least 1"]),
    (f"{P} --steps -5", ["train.steps is -5", "at least 1"]),
    (f"{P} --steps 1.5", ["train.steps is 1.5", "a whole number"]),
    (f"{P} --steps many", ["train.steps is 'many'", "a whole number"]),
    (f"{P} --steps nan", ["train.steps is nan"]),
    (f"{P} --steps inf", ["train.steps is inf"]),
    (f"{P} --steps 1e400", ["train.steps is inf"]),
    (f"{P} --steps 2026-11-21", ["train.steps is", "a whole number"]),
    (f"{P} --steps [5]", ["train.steps is [5]", "a whole number"]),
    (f"{P} --steps true", ["train.steps is True", "a whole number"]),
    (f"{P} --steps ٣x", ["train.steps is '٣x'"]),
    (f"{P} --seed -1", ["train.seed is -1", "at least 0"]),
    (f"{P} --seed 2147483648", ["train.seed is 2147483648", "at most"]),
    (f"{P} --seed {HUGE}", ["train.seed is a whole number of", "digits: no setting takes one so large"]),
    (f"{P} --seed {9 * HUGE}", ["train.seed is a whole number of", "digits: no setting takes one so large"]),
    (f"{P} --seeds 0", ["train.seeds is 0", "at least 1"]),
    (f"{P} --seed {2**31 - 1} --seeds 2", ["train.seeds is 2", "seed 2147483647"]),
    (f"{P} --envs 0", ["train.envs is 0", "at least 1"]),
    (f"{P} --sac.learning_rate -0.1", ["sac.learning_rate is -0.1", "at least 0"]),
    (f"{P} --sac.learning_rate nan", ["sac.learning_rate is nan", "finite"]),
    (f"{P} --sac.learning_rate 1e400", ["sac.learning_rate is inf", "finite"]),
    (f"{P} --sac.learning_rate {HUGE}", ["sac.learning_rate is a whole number of", "digits"]),
    (f"{P} --sac.learning_rate 0,1", ["'0,1'", "a number"]),
    (f"{P} --sac.gamma 1.01", ["sac.gamma is 1.01", "at most 1"]),
    (f"{P} --sac.temperature automatic", ["'automatic'", "a number or 'auto'"]),
    (f"{P} --sac.layer_norm maybe", ["'maybe'", "true or false"]),
    (f"{P} --sac.layer_norm 1", ["sac.layer_norm is 1", "true or false"]),
    (f"{P} --sac.activation relux", ["'relux'", "'relu'"]),
    (f"{P} --sac.hidden_sizes 8", ["sac.hidden_sizes is 8", "a list"]),
    (f"{P} --sac.hidden_sizes [8,0]", ["hidden_sizes", "at least one unit"]),
    (f"{P} --sac.hidden_sizes 1_000,0", ["hidden_sizes", "at least one unit"]),
    (f"{P} --sac.hidden_sizes [[8]]", ["hidden_sizes is [8]", "a whole number"]),
    (f"{P} --sac.hidden_sizes {2000 * '['}", ["hidden_sizes"]),
    # settings that contradict each other
    (f"{P} --sac.batch_size 2000 --sac.buffer_size 1000", ["sac.batch_size is 2000", "1000"]),
    (f"{P} --eval-every 500", ["train.eval_every is 500", "log_every 1000"]),
    (f"{P} --checkpoint-every 1500", ["train.checkpoint_every is 1500", "log_every 1000"]),
    (f"{P} --step-timeout 3", ["train.step_timeout is 3.0", "env_workers 0"]),
    (f"{P} --sac.log_std_min 3", ["log_std_min", "log_std_max"]),
    (f"{P} --algo td3 --td3.target_noise_clip 0", ["td3.target_noise", "target_noise_clip 0"]),
    (f"{P} --algo sql --sql.kernel_particles 3 --sql.kernel_update_ratio 1", ["kernel_update_ratio", "particles 3"]),
    (f"{P} --on-fault pray", ["'pray'", "'stop'", "'rollback'"]),
    # environments
    ("train Pendulum-v3", ["'Pendulum-v3'", "did you mean Pendulum-v1"]),
    ("train Pendulun-v1", ["'Pendulun-v1'", "did you mean Pendulum-v1"]),
    ("train pendulum‑v1", ["pendulum‑v1 cannot be made", "Malformed"]),
    (f"train {3000 * 'x'}", ["there is no environment"]),
    ("train Pendulum-v1/", ["Pendulum-v1/"]),
    ("train bad_taskz:Task", ["cannot import 'bad_taskz'"]),
    ("train bad_tasks:Tsk", ["no 'Tsk'", "did you mean Task"]),
    ("train bad_tasks:", ["bad_tasks:"]),
    ("train :Task", ["cannot import ''"]),
    ("train .bad_tasks:Task", ["cannot import '.bad_tasks'"]),
    ("train bad_syntax:Task", ["cannot import 'bad_syntax'", "SyntaxError"]),
    ("train bad_import:Task", ["cannot import 'bad_import'", "division by zero (bad_import.py, line 1)"]),
    ("train bad_tasks:nothing", ["gives a int", "gymnasium.Env"]),
    ("train bad_tasks:three", ["bad_tasks:three is 3", "a gymnasium.Env"]),
    ("train bad_tasks:os", ["bad_tasks:os is <module", "a gymnasium.Env"]),
    ("train bad_tasks:Broken", ["cannot be made", "KeyError: 'mass' (bad_tasks.py, line"]),
    ("train bad_tasks:Costly", ["cannot be made", "price"]),
    ("train bad_tasks:Unbounded", ["[-inf, inf]", "entry 0", "finite"]),
    ("train bad_tasks:Undefined", ["nan", "entry 1", "finite"]),
    ("train bad_tasks:Crossed", ["[1, 1]", "entry 1", "the lower one smaller"]),
    ("train bad_tasks:Texts", ["observation space is Text", "Box"]),
    ("train bad_tasks:Sequences", ["action space is Sequence", "Box"]),
    ("train bad_tasks:Blind", ["observation space is empty"]),
    ("train bad_tasks:NoSpaces", ["observation space is None", "Box"]),
    ("train bad_tasks:Task --video", ["does not render as 'rgb_array'"]),
    ("train CartPole-v1", ["sac does not take discrete actions"]),
    (f"{P} --env.g", ["--env.g needs a value"]),
    (f"{P} --env.=3", ["needs a value"]),
    (f"{P} --env.gravity 3", ["Pendulum-v1 cannot be made", "gravity"]),
    # files and folders
    (f"{P} --config nowhere.toml", ["nowhere.toml", "No such file"]),
    (f"{P} --config .", ["Is a directory"]),
    (f"{P} --out .", ["the folder . is not empty", "maxent resume"]),
    (f"{P} --out file", ["file"]),
    (f"{P} --out file/run", ["file", "no folder"]),
    (f"{P} --out {300 * 'x'}", ["too long"]),
    # runs
    ("resume", ["resume needs RUN"]),
    ("resume .", [". is no run", "config.toml"]),
    ("resume file", ["file is no run"]),
    ("resume run --steps -3", ["resume.steps is -3", "at least 0"]),
    ("resume run --algo td3", ["--algo"]),
    ("eval nowhere", ["nowhere is no run"]),
    ("eval run --best", ["no best checkpoint"]),
    ("eval run --member 2", ["no member 2", "from 0 to 1"]),
    ("eval run --member -1", ["eval.member is -1", "at least 0"]),
    ("eval run --env.gravity 3", ["Pendulum-v1 cannot be made", "gravity"]),
    ("eval nowhere --episodes 0", ["eval.episodes is 0", "at least 1"]),
    ("eval nowhere --episodes 1e9x", ["eval.episodes is '1e9x'"]),
    ("eval nowhere --seed -7", ["eval.seed is -7", "at least 0"]),
    ("eval nowhere --sed 3", ["did you mean --seed"]),
    ("record nowhere", ["nowhere is no run"]),
    ("record run --out film.avi", ["a video is .mp4 or .gif"]),
    ("play nowhere", ["nowhere is no run"]),
    ("plot", ["at least one run"]),
    ("plot nowhere", ["nowhere is no run"]),
    ("plot run nowhere", ["nowhere is no run"]),
    ("plot run", ["nothing to draw yet"]),
    ("list", ["list needs"]),
    ("list agents", ["'agents'", "'algorithms'"]),
    ("list runs", ["no runs in runs"]),
    ("list runs --root file", ["no runs in file"]),
    ("check", ["check needs ENV"]),
    ("check Pendulum-v1 --episodes 0", ["check.episodes is 0", "at least 1"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "parts"), COMMAND, ids=[words[:60] for words, _ in COMMAND])
def test_words_of_the_command(words, parts, capsys):
    line = soon(lambda: refusal(capsys, *words.split()))
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([""], ["''"]),
        (["train", ""], ["maxent train ENV"]),
        (["train", " "], ["cannot be made", "Malformed"]),
        (["train", "Pendulum-v1", "--algo", ""], ["''"]),
        (["train", "Pendulum-v1", "--seed", ""], ["train.seed is ''"]),
        (["train", "Pendulum-v1", "--seed", "1\nother = 2"], ["train.seed is '1", "a whole number"]),
        (["train", "Pendulum-v1\nCartPole-v1"], ["Pendulum-v1 CartPole-v1 cannot be made"]),
        (["train", "Pendulum-v1", "--sac.hidden_sizes", "[8, 'x']"], ["hidden_sizes is 'x'"]),
        (["resume", ""], ["is no run"]),
    ],
)
def test_words_that_no_shell_would_split(words, parts, capsys):
    line = soon(lambda: refusal(capsys, *words))
    assert all(part in line for part in parts), line


CONFIGS = [
    ("[sac]\nlearning_rat = 1e-3", ["file.toml [sac]", "'learning_rat'", "did you mean learning_rate"]),
    ("[sac]\ngamma = 2", ["file.toml [sac].gamma is 2"]),
    ("[sac]\ngamma = 1\ngamma = 1", ["is not TOML", "verwrite"]),
    ("[sac]\n[sac]", ["is not TOML"]),
    ("[[sac]]\ngamma = 1", ["sac outside a table"]),
    ("[train]\nstep = 5", ["file.toml [train]", "'step'", "did you mean"]),
    ("[train]\nsteps = 1.5", ["file.toml [train].steps is 1.5"]),
    ("[train]\nsteps = 1e400", ["file.toml [train].steps is inf"]),
    (f"[train]\nsteps = {12 * HUGE}", ["file.toml is not TOML"]),
    ("[train]\nsteps = 2026-11-21", ["file.toml [train].steps is"]),
    ("[train]\nalgo = 3", ["file.toml [train].algo is 3", "a text"]),
    ("[train]\nalgo = 'sax'", ["'sax'", "did you mean sac?"]),
    ("[train.sac]\ngamma = 1", ["'sac'"]),
    ("[ppo]\nx = 1", ["[ppo]", "[sac]"]),
    ("[sac]\nhidden_sizes = '[8]'", ["hidden_sizes is '[8]'", "a list"]),
    ("steps = 5", ["steps outside a table"]),
    ("[train", ["is not TOML"]),
    (f"x = {5000 * '['}", ["is not TOML"]),
    ("train = 'Pendulum-v1'", ["train outside a table"]),
    ("[train]\nsteps = 5".encode("utf-16"), ["is not TOML"]),
    (b"[train]\nenv = '\xff'", ["is not TOML"]),
    (b"\x00\x01\x02", ["is not TOML"]),
]


@pytest.mark.parametrize(("text", "parts"), CONFIGS, ids=[str(text[:40]) for text, _ in CONFIGS])
def test_a_config_file(text, parts, workplace, capsys):
    (workplace / "file.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = soon(lambda: refusal(capsys, "train", "Pendulum-v1", "--config", "file.toml"))
    assert all(part in line for part in parts), line


# --- runs that are damaged --------------------------------------------------------------------------------------


def change_manifest(saved: Path, **changes) -> None:
    path = saved / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no checkpoints": (lambda saved: shutil.rmtree(saved.parent), "no last checkpoint"),
    "no manifest": (lambda saved: (saved / "checkpoint.json").unlink(), "no last checkpoint"),
    "no JSON": (lambda saved: (saved / "checkpoint.json").write_text("{"), "checkpoint.json is damaged"),
    "no text": (lambda saved: (saved / "checkpoint.json").write_bytes(b"\xff\xfe"), "checkpoint.json is damaged"),
    "other version": (lambda saved: change_manifest(saved, version=99), "maxent-checkpoint 99"),
    "truncated": (lambda saved: (saved / "state.safetensors").write_bytes(b"123"), "it is damaged"),
    "broken config": (lambda saved: (saved.parents[1] / "config.toml").write_text("[train"), "is not TOML"),
    "empty config": (lambda saved: (saved.parents[1] / "config.toml").write_text(""), "lacks env"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run(damage, workplace, capsys):
    (saved,) = (workplace / "run" / "checkpoints").glob("step-*")
    change, part = DAMAGES[damage]
    change(saved)
    assert part in soon(lambda: refusal(capsys, "eval", "run"))


FACTORIES = """
import functools
import os
import subprocess
from os import system

import gymnasium
from gymnasium.envs.classic_control import PendulumEnv as installed

class Own(installed):
    pass

class Kit:
    def __call__(self, **kwargs):
        return Own()

    @classmethod
    def made(cls):
        return Own()

def function():
    return Own()

@functools.wraps(gymnasium.make)
def wrapped():
    return Own()

kit, method, anonymous = Kit(), Kit.made, lambda: Own()
partial, cached = functools.partial(gymnasium.make, "Pendulum-v1"), functools.lru_cache(function)
run, module = subprocess.run, os
"""


def test_which_names_make_environments(workplace):
    """Classes of environments, and whatever else the user has written; nothing that was only imported there."""
    (workplace / "factories.py").write_text(FACTORIES)
    for name in ("installed", "Own", "kit", "method", "function", "wrapped", "anonymous", "partial", "cached"):
        assert Factory(f"factories:{name}")().observation_space.shape == (3,)
    for name in ("system", "run", "module"):
        with pytest.raises(maxent.ConfigError, match="installed package|must be a gymnasium.Env"):
            Factory(f"factories:{name}")
    assert not Factory(gymnasium.make, {"id": "Pendulum-v1"}).remakeable


TABLES = {
    "no return": ("evaluations.csv", "step,member,length\n50,0,1\n"),
    "a word for a return": ("evaluations.csv", "step,member,return\n50,0,abc\n"),
    "a word for a step": ("progress.csv", "step,member,return_mean\nabc,0,1\n"),
    "a word for a member": ("progress.csv", "step,member,return_mean\n50,x,1\n"),
    "a step beyond all": ("progress.csv", "step,member,return_mean\n1e400,0,1\n"),
    "a cell more": ("progress.csv", "step,member,return_mean\n50,0,1,2\n"),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_table(table, workplace, capsys):
    """Refused, and told beside the run in the list of all."""
    name, text = TABLES[table]
    (workplace / "run" / name).write_text(text)
    assert f"{name} is damaged in line 2" in soon(lambda: refusal(capsys, "plot", "run"))
    assert main(["list", "runs", "--root", "."]) == 0
    assert f"{name} is damaged in line 2" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["progress.csv", "evaluations.csv"])
def test_a_table_that_is_a_pipe_or_of_something_else(name, workplace, capsys):
    path = workplace / "run" / name
    path.write_text("step,member,return_mean,return\n0,0,1,1\n")
    with pytest.raises(maxent.CheckpointError, match="other columns"):
        driver.reopen("run").learn(9)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(maxent.CheckpointError, match=f"{name} is no file"):
        driver.reopen("run").learn(9)
    assert f"{name} is no file" in soon(lambda: refusal(capsys, "plot", "run"))


def test_a_run_that_brings_code_with_it(workplace, capsys, monkeypatch):
    """Whatever the folder is called, and from wherever it is looked at."""
    config = (workplace / "run" / "config.toml").read_text()
    (workplace / "run" / "task.py").write_text(f"open({str(workplace / 'ran')!r}, 'w')")
    (workplace / "run" / "config.toml").write_text(config.replace("Pendulum-v1", "run.task:Task"))
    for command in ("eval", "resume", "record"):
        assert "brings the code" in refusal(capsys, command, "run")
    with pytest.raises(maxent.ConfigError, match="brings the code"):
        maxent.load(workplace / "run")
    assert maxent.load(workplace / "run", env="Pendulum-v1")
    monkeypatch.chdir(workplace / "run")
    (workplace / "run" / "config.toml").write_text(config.replace("Pendulum-v1", "task:Task"))
    assert "brings the code" in refusal(capsys, "eval", ".")
    assert not (workplace / "ran").exists()


def test_code_that_lies_elsewhere_is_no_concern(workplace, capsys, monkeypatch):
    config = (workplace / "run" / "config.toml").read_text()
    (workplace / "run" / "config.toml").write_text(config.replace("Pendulum-v1", "bad_tasks:Task"))
    monkeypatch.chdir(workplace / "run")
    assert "does not fit the config" in refusal(capsys, "eval", ".")  # its networks are a pendulum's


@pytest.mark.slow
def test_a_replay_beyond_all_memory(capsys):
    """Refused where it shows, when it is made: later than the rest."""
    line = refusal(capsys, "train", "Pendulum-v1", "--sac.buffer_size", "10000000000000", "--sac.hidden_sizes", "[4]")
    assert "the replay needs" in line and "GB are free: lower buffer_size" in line


@pytest.mark.parametrize(
    ("env", "package", "extra"), [("BipedalWalker-v3", "Box2D", "box2d"), ("HalfCheetah-v5", "mujoco", "mujoco")]
)
def test_a_missing_extra(env, package, extra, monkeypatch, capsys):
    for module in [m for m in sys.modules if m.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert f'pip install "maxent-rl[{extra}]"' in soon(lambda: refusal(capsys, "train", env))


# --- Python -----------------------------------------------------------------------------------------------------

MDP = tabular.chain(3)
PYTHON = {
    "no environment": (lambda agent: maxent.SAC(3), "3"),
    "None": (lambda agent: maxent.SAC(None), "None"),
    "no environment's arguments": (lambda agent: maxent.SAC("Pendulum-v1", env_kwargs=3), "env_kwargs"),
    "text for a seed": (lambda agent: maxent.SAC("Pendulum-v1", seed="x"), "SAC.seed is 'x'"),
    "truth for seeds": (lambda agent: maxent.SAC("Pendulum-v1", seeds=True), "SAC.seeds is True"),
    "NumPy's nan": (lambda agent: maxent.SAC("Pendulum-v1", gamma=np.float32("nan")), "SAC.gamma is nan"),
    "array": (lambda agent: maxent.SAC("Pendulum-v1", gamma=np.ones(2)), "SAC.gamma is"),
    "taken": (lambda agent: maxent.SAC("Pendulum-v1", out="run"), "is not empty"),
    "instance in workers": (lambda agent: maxent.SAC(gymnasium.make("Pendulum-v1"), env_workers=1), "cannot be sent"),
    "lambda in workers": (lambda agent: Workers(lambda: 3, 1), "cannot be sent"),
    "steps in text": (lambda agent: agent.learn("many"), "total_timesteps is 'many'"),
    "members beyond the seeds": (lambda agent: maxent.SAC("Pendulum-v1", seed=2**31 - 1, seeds=2), "SAC.seeds is 2"),
    "steps in fractions": (lambda agent: agent.learn(1.5), "total_timesteps is 1.5"),
    "negative steps": (lambda agent: agent.learn(-1), "total_timesteps is -1"),
    "no episodes": (lambda agent: agent.evaluate(0), "n_episodes is 0"),
    "other observation": (lambda agent: agent.predict(np.zeros(5)), "predict: the observation has shape (5,)"),
    "nan observation": (lambda agent: agent.predict(np.full(3, np.nan)), "observation[0] is nan"),
    "no observation": (lambda agent: agent.predict(None), "predict"),
    "a batch of none": (lambda agent: agent.predict(np.zeros((0, 3))), "predict: the batch of observations is empty"),
    "no member": (lambda agent: agent.predict(np.zeros(3), member=2), "member is 2"),
    "negative member": (lambda agent: agent.evaluate(1, member=-1), "member is -1"),
    "one action": (lambda agent: agent.q(np.zeros(3), np.zeros(1)), "it must be [n, 1]"),
    "other actions": (lambda agent: agent.q(np.zeros(3), np.zeros((2, 5))), "q: the actions have shape (2, 5)"),
    "saved into a run": (lambda agent: agent.save("run"), "is not empty"),
    "saved over something else": (lambda agent: agent.save("run/checkpoints", overwrite=True), "is no run"),
    "saved over where one stands": (lambda agent: agent.save(".", overwrite=True), "cannot write over"),
    "saved into a file": (lambda agent: agent.save("file/x"), "no folder"),
    "no run": (lambda agent: maxent.load(""), "is no run"),
    "a file": (lambda agent: maxent.load("file"), "is no run"),
    "no best": (lambda agent: maxent.load("run", best=True), "no best checkpoint"),
    "check of a number": (lambda agent: maxent.check(3), "3"),
    "temperature 0": (lambda agent: tabular.soft_value_iteration(MDP, 0.0), "temperature is 0"),
    "temperature nan": (lambda agent: tabular.soft_value_iteration(MDP, np.nan), "temperature is nan"),
    "temperatures": (lambda agent: tabular.boltzmann_policy(np.zeros((2, 2)), np.ones(2)), "temperature has shape"),
    "no distribution": (lambda agent: tabular.soft_policy_evaluation(MDP, np.ones((3, 2)), 1.0), "sums to 2"),
    "negative": (lambda agent: tabular.soft_policy_evaluation(MDP, [[-1, 2]] * 3, 1.0), "policy[0, 0] is -1"),
    "a text": (lambda agent: tabular.soft_policy_evaluation(MDP, "mine", 1.0), "not an array of real numbers"),
    "ragged": (lambda agent: tabular.soft_backup(MDP, [[1], [1, 2]]), "not an array of real numbers"),
    "complex numbers": (lambda agent: tabular.soft_backup(MDP, [1j, 0]), "value is not an array of real numbers"),
    "no actions": (lambda agent: tabular.log_partition([], 1.0), "q has shape (0,); expected at least one entry"),
    "half a state": (lambda agent: tabular.random_mdp(2.5, 1), "2.5 states and 1 actions asked for; expected whole"),
    "half a link": (lambda agent: tabular.chain(2.5), "length is 2.5"),
    "a layout of numbers": (lambda agent: tabular.gridworld([12, 34]), "layout is [12, 34]; expected rows of text"),
    "true states": (lambda agent: tabular.random_mdp(True, 1), "True states and 1 actions asked for"),
    "half a step": (lambda agent: tabular.entropy_constrained_finite_horizon(MDP, 2.5, 0.1), "steps is 2.5"),
    "nothing to see": (lambda agent: maxent.SAC(EmptyObservation()), "the observation space is empty"),
    "nothing to do": (lambda agent: maxent.SAC(EmptyAction()), "the action space is empty"),
    "tolerance": (lambda agent: tabular.soft_value_iteration(MDP, 1.0, tolerance=0), "must be positive"),
}


@pytest.mark.parametrize("case", PYTHON)
def test_python(case, agent, workplace):
    call, part = PYTHON[case]
    before = files(workplace)
    with pytest.raises(maxent.MaxentError) as error:
        soon(lambda: call(agent))
    assert "\n" not in str(error.value) and part in str(error.value), error.value
    assert files(workplace) == before


@pytest.mark.parametrize("words", [["train", "Pendulum-v3"], ["eval", "nowhere"], ["train", b"Pendulum\xff-v1"]])
def test_the_process(words, workplace):
    before = files(workplace)
    done = subprocess.run([sys.executable, "-m", "maxent", *words], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.startswith(b"maxent: error: ") and files(workplace) == before
