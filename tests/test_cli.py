"""The command: a run from its beginning to its video, and what is refused of one. `test_bad_input` has the rest."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maxent.cli import main
from maxent.run import folder, video
from maxent.run.checkpoint import VERSION
from refusals import refusal

TINY = [
    "--sac.hidden_sizes", "[8]", "--sac.batch_size=8", "--sac.learning-starts", "40", "--sac.buffer_size", "500",
    "--max-episode-steps", "30", "--log-every", "20", "--eval-every", "60", "--eval-episodes", "3",
]  # fmt: skip
TASKS = """
import os
import signal

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Task(gymnasium.Env):
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-2, 3, (1,), np.float32)

    def __init__(self, fault="", length=10):
        self.fault, self.length, self.steps = fault, length, 0
        if fault == "interrupt at first":
            os.kill(os.getpid(), signal.SIGINT)

    def reset(self, *, seed=None, options=None):
        self.now = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.now, self.steps = self.now + 1, self.steps + 1
        if self.fault == "interrupt" and self.steps == 47:
            os.kill(os.getpid(), signal.SIGINT)
        obs = np.full(2, 0.1, np.float32)
        if self.fault == "hole" and self.now == 7:
            obs[1] = np.nan
        if self.fault == "shape" and self.now == 7:
            obs = np.zeros(3, np.float32)
        return obs, 1.0, self.now >= self.length, False, {}


def task(**kwargs):
    return Task(**kwargs)

"""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder to stand in, with a module of environments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    (tmp_path / "own_tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 120 steps with two members."""
    path = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "Pendulum-v1", "--steps", "120", "--seeds", "2", "--out", str(path), *TINY]) == 0
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, to do anything with."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("fault", "part"), [("hole", "observation[1] is nan"), ("shape", "observation has shape (3,)")]
)
def test_an_observation_that_breaks_its_description_is_named(fault, part, capsys):
    assert main(["train", "own_tasks:Task", "--env.fault", fault, "--steps", "20", *TINY]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for expected in ("environment 0 of member 0", "episode 0", "step 7", part):
        assert expected in line


def test_a_run_leaves_what_is_promised(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.toml", "run.json", "progress.csv", "evaluations.csv", "tensorboard", "checkpoints"} <= names
    config = tomllib.loads((trained / "config.toml").read_text())
    assert config["train"]["steps"] == 120 and config["sac"]["hidden_sizes"] == [8] and config["sac"]["gamma"] == 0.99
    assert {(r["step"], r["member"]) for r in rows(trained / "progress.csv")} >= {("20", "0"), ("120", "1")}
    assert [r["step"] for r in rows(trained / "evaluations.csv")] == ["60"] * 6 + ["120"] * 6
    assert np.asarray(Image.open(trained / "curve.png").convert("L")).std() > 5


def test_eval_plays_what_the_run_evaluated_last(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--episodes", "3", "--member", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = [float(r["return"]) for r in rows(run / "evaluations.csv") if (r["step"], r["member"]) == ("120", "1")]
    assert found["returns"] == pytest.approx(last, rel=1e-4)
    assert found["mean_return"] == pytest.approx(np.mean(last)) and found["std_return"] == pytest.approx(np.std(last))
    assert found["lengths"] == [30, 30, 30] and found["member"] == 1 and found["step"] == 120


def test_eval_options(run, capsys):
    def returns(*words):
        capsys.readouterr()
        assert main(["eval", str(run), "--episodes", "2", "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)["returns"]

    assert returns("--seed", "5") == returns("--seed", "5")
    assert returns("--seed", "5") != returns("--seed", "6")
    assert returns("--seed", "5") != returns("--seed", "5", "--stochastic")
    assert returns("--seed", "5") != returns("--seed", "5", "--env.g", "1.0")
    assert len(returns("--best")) == 2
    assert "numbered from 0 to 1" in refusal(capsys, "eval", str(run), "--member", "2")


def test_resume_continues_the_curves(run, capsys):
    assert "has done 120 steps" in refusal(capsys, "resume", "run")
    assert "has done 120 steps" in refusal(capsys, "resume", "run", "--steps", "100")
    assert main(["resume", "run", "--steps", "160"]) == 0
    assert [r["step"] for r in rows(run / "progress.csv") if r["member"] == "0"] == [str(s) for s in range(20, 161, 20)]
    assert tomllib.loads((run / "config.toml").read_text())["train"]["steps"] == 160
    assert len(json.loads((run / "run.json").read_text())["processes"]) == 2
    assert (run / "checkpoints" / "step-000000160" / "checkpoint.json").is_file()


def test_a_checkpoint_of_another_version_is_refused(run, capsys):
    manifest = run / "checkpoints" / "step-000000120" / "checkpoint.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"version": 99}))
    for command in ("resume run --steps 200", "eval run", "record run"):
        line = refusal(capsys, *command.split())
        assert "maxent-checkpoint 99" in line and f"maxent-checkpoint {VERSION}" in line
    shutil.rmtree(run / "checkpoints")
    assert "no last checkpoint" in refusal(capsys, "eval", "run")


def test_a_run_that_another_process_trains_is_refused_unread(run, capsys):
    """That process deletes checkpoints as it goes."""
    for manifest in (run / "checkpoints").rglob("checkpoint.json"):
        manifest.unlink()
    with folder.locked(run):
        assert "another process is training" in refusal(capsys, "resume", "run", "--steps", "200")


def test_a_refused_total_changes_nothing(run, capsys):
    config = run / "config.toml"
    config.write_text(config.read_text().replace("utd = 1.0\n", "utd = 2.0\n"))
    before = config.read_bytes()
    assert b"utd = 2.0" in before
    assert "4,294,967,295 updates" in refusal(capsys, "resume", "run", "--steps", "4000000000")
    assert config.read_bytes() == before


def test_what_a_resume_skips_is_said(run, capsys):
    newest = sorted(Path("run/checkpoints").glob("step-*"))[-1]
    damaged = Path(shutil.copytree(newest, newest.with_name("step-000000121")))
    (damaged / "state.safetensors").write_bytes(b"123")
    assert main(["eval", "run", "--episodes", "1"]) == 0
    assert f"going back to {newest.name}" in capsys.readouterr().err
    assert main(["resume", "run", "--steps", "125"]) == 0
    assert f"maxent: warning: {damaged / 'state.safetensors'}" in capsys.readouterr().err
    shutil.rmtree("run/checkpoints")
    assert main(["resume", "run", "--steps", "5"]) == 0
    assert "has no checkpoint: it begins again" in capsys.readouterr().err


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_record(ffmpeg, run, capsys, monkeypatch):
    if ffmpeg:
        pytest.importorskip("imageio_ffmpeg")
    else:
        monkeypatch.setattr(video, "_has_ffmpeg", lambda: False)
        assert "maxent-rl[video]" in refusal(capsys, "record", "run", "--out", "film.mp4")
    assert main(["record", "run"]) == 0
    (film,) = (run / "videos").iterdir()
    if ffmpeg:
        assert film.suffix == ".mp4" and film.read_bytes()[4:8] == b"ftyp"
    else:
        with Image.open(film) as image:
            assert image.format == "GIF" and image.n_frames > 10
    assert "a video is .mp4 or .gif" in refusal(capsys, "record", "run", "--out", "film.avi")


def test_play_needs_a_screen(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "there is no screen" in refusal(capsys, "play", "run")


def test_plot(run, capsys):
    for words in (["plot", "run"], ["plot", "run", "run", "--out", "both.svg"]):
        assert main(words) == 0
    assert (run / "curve.png").is_file() and b"<svg" in Path("both.svg").read_bytes()
    assert "cannot be written" in refusal(capsys, "plot", "run", "--out", "curve.xyz")


def test_list(run, capsys):
    capsys.readouterr()
    assert main(["list", "envs"]) == 0
    assert {"Pendulum-v1", "jax/Pendulum-v1"} <= set(capsys.readouterr().out.split())
    assert main(["list", "algorithms"]) == 0
    assert "sac" in capsys.readouterr().out.split()
    assert main(["list", "runs", "--root", "."]) == 0
    assert "run  " in (line := capsys.readouterr().out) and "120/120 steps" in line
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 120\n", "steps = 60\n"))  # as where an agent learned on
    assert main(["list", "runs", "--root", "."]) == 0
    assert "120/120 steps" in capsys.readouterr().out


def test_the_command_line_goes_over_the_config_file(workplace, capsys):
    text = """
        [train]
        env = "own_tasks:task"
        steps = 30
        seed = 7
        [env]
        length = 5
        [sac]
        gamma = 0.5
        tau = 0.1
    """
    (workplace / "file.toml").write_text(text)
    words = ["--config", "file.toml", "--sac.gamma", "0.6", "--env.fault", "no", "--out", "out", *TINY]
    assert main(["train", *words]) == 0
    config = tomllib.loads(Path("out/config.toml").read_text())
    assert (
        config["train"]["env"] == "own_tasks:task" and config["train"]["steps"] == 30 and config["train"]["seed"] == 7
    )
    assert config["env"] == {"length": 5, "fault": "no"}
    assert (config["sac"]["gamma"], config["sac"]["tau"], config["sac"]["batch_size"]) == (0.6, 0.1, 8)
    assert rows(Path("out/evaluations.csv"))[-1]["length"] == "5"


def command(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "maxent", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_help_is_quick_and_does_without_jax():
    code = """
import sys, time
from maxent.cli import main
for words in (["--help"], ["train", "--help"], ["train", "Pendulum-v1", "--sac.nothing", "1"]):
    try:
        main(words)
    except SystemExit as end:
        assert end.code in (0, None)
    if words == ["--help"]:
        print("seconds", time.process_time())
print("heavy", sorted({"jax", "gymnasium", "matplotlib", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "resume" in done.stdout and "--sac.temperature" in done.stdout and "Weight of the entropy" in done.stdout
    assert float(done.stdout.split("seconds ")[1].split()[0]) < 1.0
    assert "heavy []" in done.stdout


def test_the_process_ends_with_the_exit_code():
    process = command("train", "Pendulum-v1", "--sac.tua", "1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1) and "did you mean --sac.tau" in err


def test_ctrl_c_before_the_training_ends_the_process_at_once():
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process inherits that it is ignored
    try:
        process = command("train", "own_tasks:Task", "--env.fault", "interrupt at first", "--out", "a run", cwd=".")
    finally:
        signal.signal(signal.SIGINT, usual)
    assert process.communicate(timeout=60) == ("", "maxent: interrupted\n") and process.returncode == 130
    assert not Path("a run").exists()


def test_ctrl_c_saves_a_whole_iteration_and_says_how_to_continue(capsys):
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in the background
    try:
        words = ["own_tasks:Task", "--env.fault", "interrupt", "--steps", "1_000_000", "--out", "a run"]
        assert main(["train", *words, *TINY]) == 130
    finally:
        signal.signal(signal.SIGINT, usual)
    err = capsys.readouterr().err
    # 47 steps in episodes of 10, and the four resets between them.
    assert err == "maxent: interrupted, saved at step 51; continue with: maxent resume 'a run'\n"
    counters = json.loads(Path("a run/checkpoints/step-000000051/checkpoint.json").read_text())["counters"]
    assert (counters["step"], counters["updates"]) == (51, 11)
    assert main(["eval", "a run", "--episodes", "1"]) == 0
    assert "return 10.0" in capsys.readouterr().out
