"""Members with settings of their own: which there are, that each is a run of its own, and where they are told apart."""

import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tiny
from maxent import cli
from maxent.config import SACConfig, TrainConfig
from maxent.envs.make import Factory
from maxent.errors import ConfigError
from maxent.run import driver, folder, policy
from maxent.run.loggers import read_csv
from maxent.study.curves import interquartile_mean
from maxent.sweep import Member, members, with_numbers

pytestmark = pytest.mark.usefixtures("shared_programs")

PENDULUM = Factory("Pendulum-v1", max_episode_steps=20)


def test_members_are_the_product_of_all_values_and_seeds():
    config = TrainConfig("x", seed=5, seeds=2, sweep=("gamma=0.9,0.99", "target-entropy = -1, -2"))
    found = members(config, SACConfig())
    assert [m.seed for m in found] == [5, 6] * 4
    assert [tuple(m.numbers.values()) for m in found[::2]] == [(0.9, -1), (0.9, -2), (0.99, -1), (0.99, -2)]
    assert found[-1] == Member(6, {"gamma": 0.99, "target_entropy": -2.0})
    assert found[0].setting == "gamma=0.9 target_entropy=-1"
    assert members(TrainConfig("x"), SACConfig()) == [Member(0, {})] and Member(0, {}).setting == ""
    assert with_numbers(SACConfig(), found).target_entropy == -1.0


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        (("gamma",), "must be FIELD=v1,v2"),
        (("gamma=",), "must be FIELD=v1,v2"),
        (("gama=0.9",), "members cannot differ in 'gama': did you mean gamma"),
        (("batch_size=32,64",), "members cannot differ in 'batch_size'; a sweep takes learning_rate, "),
        (("seed=1,2",), "a sweep is of settings: --seeds K gives each of them K seeds"),
        (("gamma=0.9,high",), "the value 'high': it must be a number"),
        (("gamma=0.9,true",), "the value True: it must be a number"),
        (("gamma=0.9,1.5",), "sweep.gamma is 1.5: it must be at most 1"),
        (("tau=nan,0.1",), "sweep.tau is nan: it must be a finite number"),
        (("gamma=0.9,0.9",), "has a value twice"),
        (("gamma=0.99999999,0.999999999",), "has a value twice"),
        (("gamma=0,1" + "0" * 400,), "must be a number"),
        (("gamma=0.9", "gamma=0.99"), "names gamma twice"),
    ],
)
def test_what_cannot_be_swept_is_refused(sweep, complaint):
    with pytest.raises(ConfigError, match=complaint):
        members(TrainConfig("x", sweep=sweep), SACConfig())


def trained(sweep: tuple[str, ...] = (), seed: int = 0, seeds: int = 1, **settings) -> driver.Driver:
    config = TrainConfig("Pendulum-v1", steps=90, seed=seed, seeds=seeds, sweep=sweep, max_episode_steps=20)
    run = driver.Driver(config, SACConfig(**{**vars(tiny.SETTINGS), **settings}), PENDULUM)
    run.learn(90)
    return run


def test_settings_that_differ_have_names_that_differ():
    found = members(TrainConfig("x", sweep=("gamma=.9999998,0.9999996,1",)), SACConfig())
    assert [member.setting for member in found] == ["gamma=0.9999998", "gamma=0.9999996", "gamma=1"]


@pytest.mark.parametrize("field", ["temperature", pytest.param("learning_rate", marks=pytest.mark.slow)])
def test_a_member_is_a_run_alone_with_its_setting(field):
    """ "auto" becomes a number for all members where they differ in it."""
    values = {"learning_rate": (1e-3, 3e-4), "temperature": (0.3, 0.05)}[field]
    both = trained((f"{field}={values[0]},{values[1]}",), 3, 2)
    alone = trained(seed=4, **{field: values[1]})
    assert len(both.members) == 4 and both.seeds[3] == 4
    assert_array_equal(both.loop.ring.action[:50, 3], alone.loop.ring.action[:50, 0])
    ours, theirs = (jax.tree.leaves(run.loop.learned.state) for run in (both, alone))
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a[3], b[0], atol=2e-4)
    other = [np.abs(a[3] - a[1]).max() for a in map(np.asarray, ours) if a.ndim > 2]
    assert max(other) > 1e-3, "the other setting learned something else"


def test_a_sweep_in_a_run_folder(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = "--steps 120 --eval-every 60 --log-every 60 --checkpoint-every 60 --eval-episodes 1 --max-episode-steps 20"
    small = "--sac.hidden-sizes [8] --sac.learning-starts 32 --sac.batch-size 8 --sac.buffer-size 500"
    sweep = ["--sweep", "gamma=0.9,0.99", "--sweep", "tau=0.01,0.1", "--seeds", "2"]
    assert cli.main(["train", "Pendulum-v1", "--out", out, *words.split(), *small.split(), *sweep]) == 0
    config, settings, _ = folder.read(out)
    assert config.sweep == ("gamma=0.9,0.99", "tau=0.01,0.1") and settings.gamma == 0.99
    results = [line for line in capsys.readouterr().out.splitlines() if line.startswith("result")]
    assert len(results) == 4
    assert all("1 episode of each of 2 members after 120 steps" in line for line in results)
    assert results[1].endswith(" with gamma=0.9 tau=0.1")
    rows = read_csv(tmp_path / "run" / "progress.csv")
    assert [row["setting"] for row in rows[:8:2]] == [
        "gamma=0.9 tau=0.01", "gamma=0.9 tau=0.1", "gamma=0.99 tau=0.01", "gamma=0.99 tau=0.1",
    ]  # fmt: skip
    assert {row["setting"] for row in read_csv(tmp_path / "run" / "evaluations.csv")} == {r["setting"] for r in rows}
    assert (tmp_path / "run" / "curve.png").exists()
    capsys.readouterr()
    assert cli.main(["eval", out, "--member", "7", "--episodes", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["returns"]) == 1 and (told["seed"], told["setting"]) == (1, "gamma=0.99 tau=0.1")
    assert cli.main(["eval", out, "--member", "6", "--episodes", "1"]) == 0
    assert "1 episodes after 120 steps with seed 0 gamma=0.99 tau=0.1" in capsys.readouterr().out
    assert policy.load(out, member=7).seed == 1
    with pytest.raises(ConfigError, match="numbered from 0 to 7"):
        policy.load(out, member=8)
    assert cli.main(["resume", out, "--steps", "180"]) == 0
    state = driver.reopen(out).loop.learned.state
    assert_allclose(state.numbers["gamma"], [0.9] * 4 + [0.99] * 4)
    assert_allclose(state.numbers["tau"], [0.01, 0.01, 0.1, 0.1] * 2)


def test_the_command_lines_sweep_goes_over_the_files(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[train]\nsweep = ["tau=0.005,0.02"]\n')
    words = ["train", "Pendulum-v1", "--config", str(file)]
    assert cli.parse(words).sweep == ("tau=0.005,0.02",)
    assert cli.parse([*words, "--sweep", "tau=0.3,0.4", "--sweep=gamma=0.9,0.99"]).sweep == (
        "tau=0.3,0.4", "gamma=0.9,0.99",
    )  # fmt: skip


def test_the_interquartile_mean_leaves_out_both_ends():
    assert interquartile_mean(np.array([100.0, 2.0, 3.0, -100.0])) == 2.5
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0
