"""`maxent check`: every planted fault is named with what to do, and sound environments are left in peace."""

import json
import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TransformAction

import faulty
from maxent.cli import main
from maxent.command import listing
from maxent.envs.check import CHECKS, Finding, check
from maxent.envs.host import HostEnvs
from maxent.errors import ConfigError

FAULTS = {
    faulty.NoActionSpace: ("spaces", ["action_space is None"], "Set self.action_space"),
    faulty.UnboundedAction: ("spaces", ["[-1, inf]", "entry 1"], "true bounds"),
    faulty.UndefinedAction: ("spaces", ["[nan, 3]", "entry 0"], "true bounds"),
    faulty.EmptyAction: ("spaces", ["action space is empty"], "at least one"),
    faulty.EmptyObservation: ("spaces", ["observation space is empty"], "at least one"),
    faulty.TupleObservation: ("spaces", ["['hand']", "Tuple(Discrete(3))"], "wrap the environment"),
    faulty.TextAction: ("spaces", ["action space is Text"], "It must be Box, Discrete"),
    faulty.OtherReset: ("spaces", ["action_space was Box(-2.0, 3", "after some episodes"], "Set it once"),
    faulty.BrokenConstructor: ("spaces", ["constructor raises KeyError: 'mass' (faulty.py, line"], "Mend it"),
    faulty.BareReset: ("reset", ["reset(seed=0)", "of type ndarray"], "return obs, {}"),
    faulty.UnseededReset: ("reset", ["reset(seed=0)", "TypeError", "'seed'"], "seed=None, options=None"),
    faulty.BrokenReset: ("reset", ["reset(seed=2)", "RuntimeError: no such level (faulty.py, line"], "reset(self"),
    faulty.OldStep: ("step", ["step 1 of episode 0", "a tuple of 4", "old Gym"], "truncated where only a time limit"),
    faulty.BareStep: ("step", ["step 1 of episode 0", "the result is None"], "Return all five"),
    faulty.NoInfo: ("step", ["step 1 of episode 0", "the info is None"], "Return a dictionary"),
    faulty.BrokenStep: ("step", ["step 4 of episode 0", "ZeroDivisionError", "faulty.py, line"], "Mend it"),
    faulty.Hole: ("observations", ["step 3 of episode 0", "observation[1] is nan"], "division"),
    faulty.HoleAtReset: ("observations", ["reset(seed=0)", "observation[0] is inf"], "division"),
    faulty.OtherShape: ("observations", ["reset(seed=0)", "(2, 1)", "(2,)"], "what observation_space declares"),
    faulty.OtherKeys: ("observations", ["'palce'", "'place'"], "what observation_space declares"),
    faulty.HugeObservation: ("scale", ["1 of 2 numbers", "observation[1] from 0 to 1e+20"], "float32"),
    faulty.NoNumber: ("rewards", ["step 2 of episode 0", "nan"], "division"),
    faulty.VectorReward: ("rewards", ["step 1 of episode 0", "array([1.])"], "float(reward)"),
    faulty.NoReward: ("rewards", ["step 1 of episode 0", "None"], "float(reward)"),
    faulty.TooLarge: ("rewards", ["1e+39", "float32"], "overflow"),
    faulty.HugeRewards: ("rewards", ["huge", "e+30"], "Divide them by about 1e+30"),
    faulty.NoFlag: ("flags", ["step 1 of episode 0", "terminated is None"], "True or False"),
    faulty.Deaf: ("effect", ["other actions give the same episode"], "Use the action"),
}
WARNINGS = {
    faulty.ShamBounds: ("spaces", ["[-1e+09, 1e+09]", "entry 0"], "true bounds"),
    faulty.LargeImage: ("spaces", ["10,800 inputs", "10.8 GB"], "buffer_size"),
    faulty.OtherType: ("types", ["float64", "float32"], "astype"),
    faulty.OtherBounds: ("bounds", ["observation[1] is 0.6", "[0, 0.5]"], "true bounds"),
    faulty.Mutated: ("copies", ["observation", "changed by the next step"], "self.state.copy()"),
    faulty.LargeObservation: ("scale", ["1 of 2 numbers", "observation[1] from 0 to 5000"], "normalize_observations"),
    faulty.SmallObservation: ("scale", ["1 of 2 numbers", "observation[0] from -1.", "e-05"], "normalize_observations"),
    faulty.DarkImage: ("scale", ["1 of 1 numbers", "observation from 0 to 0.003922"], "normalize_observations"),
    faulty.Blind: ("scale", ["always the same"], "what the reward depends on"),
    faulty.LargeRewards: ("rewards", ["huge", "from -3e+04"], "Divide them by about 10000"),
    faulty.TinyRewards: ("rewards", ["tiny", "e-06"], "Multiply them by about 1e+06"),
    faulty.ZeroRewards: ("rewards", ["was 0 in all 2,5"], "coming nearer"),
    faulty.ConstantRewards: ("rewards", ["was 2.5 in all 500 steps"], "coming nearer"),
    faulty.Wanders: ("endings", ["only", "episodes ended within 300 steps"], "max_episode_steps"),
    faulty.Endless: ("endings", ["no episode ended within 300 steps"], "max_episode_steps"),
    faulty.AlwaysOver: ("endings", ["after its first step", "terminated"], "until the task is over"),
    faulty.LimitAsEnd: ("endings", ["terminated after exactly 10 steps"], "return truncated"),
    faulty.NumberFlags: ("flags", ["terminated is 0", "of type int"], "bool(terminated)"),
    faulty.GlobalChanceAtReset: ("repeats", ["at the reset, observation[0] is"], "self.np_random"),
    faulty.GlobalChanceInStep: ("repeats", ["after step 3, observation[0] is"], "self.np_random"),
    faulty.Remembers: ("repeats", ["same environment, after other episodes", "the reward is"], "all state in reset"),
    faulty.EachItsOwn: ("repeats", ["a second environment", "after step 1"], "self.np_random"),
    faulty.WritesToActions: ("actions", ["given the action [", "made it ["], "action.copy()"),
}
SILENT = {
    faulty.EmptyAction, faulty.EmptyObservation, faulty.OtherReset, faulty.BrokenReset, faulty.HugeObservation,
    faulty.TooLarge, faulty.HugeRewards, faulty.NoFlag, faulty.Deaf,
}  # fmt: skip
"""Faults that nothing in the way of a step notices, or not at once, and that spoil learning all the same."""
PLANTED = [(cls, "fault", *rest) for cls, rest in FAULTS.items()]
PLANTED += [(cls, "warning", *rest) for cls, rest in WARNINGS.items()]


def bad(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.severity != "fine"]


@pytest.mark.parametrize(
    ("cls", "severity", "name", "parts", "advice"), PLANTED, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_planted_fault_is_all_that_is_found(cls, severity, name, parts, advice):
    (found,) = bad(check(cls, steps=300))
    assert (found.check, found.severity) == (name, severity)
    assert all(part in found.found for part in parts), found.found
    assert advice in found.advice and found.advice.endswith(".")


def test_every_environment_of_the_pool_is_planted():
    pool = {x for x in vars(faulty).values() if isinstance(x, type) and issubclass(x, faulty.Sound)}
    assert pool - {faulty.Sound, faulty.OtherInstance, faulty.Chatty} == {cls for cls, *_ in PLANTED}


def test_the_advice_on_unbounded_actions_mends_them():
    env = faulty.UnboundedAction()
    (found,) = bad(check(env))
    assert "gymnasium.wrappers.TransformAction" in found.advice
    bounded = spaces.Box(-1, 1, (2,))
    assert not bad(check(lambda: TransformAction(faulty.UnboundedAction(), lambda action: 3 * action, bounded)))


def test_spaces_that_differ_between_instances():
    (found,) = bad(check(faulty.OtherInstance))
    assert found.severity == "fault" and "Discrete(3), and Discrete(4) in a second" in found.found


def test_nothing_is_wrong_with_a_sound_environment():
    findings = check(faulty.Sound)
    assert not bad(findings)
    assert {f.check for f in findings} == {"spaces", *CHECKS}


@pytest.mark.parametrize("cls", [faulty.Sound, *FAULTS, *WARNINGS], ids=lambda cls: cls.__name__)
def test_faults_stop_a_training_and_warnings_do_not(cls):
    def run() -> None:
        envs = HostEnvs(cls, [0], 1)
        stepped, rng = envs.reset(), np.random.default_rng(0)
        for _ in range(30):
            stepped = envs.step(stepped.obs, rng.uniform(-1, 1, (1, 1, 1)).astype(np.float32))

    if cls in FAULTS.keys() - SILENT:
        with pytest.raises(Exception):  # noqa: B017 (of any kind: some come from the environment itself)
            run()
    elif cls not in SILENT:
        run()


class Structured(faulty.Sound):
    """Spaces of other kinds, and numbers that are not Python's own."""

    def __init__(self):
        inner = spaces.Dict(place=spaces.Box(-3, 3, (), np.float64), bits=spaces.MultiBinary(2))
        self.observation_space = spaces.Dict(inner=inner, late=spaces.Discrete(2, start=5))
        self.action_space = spaces.MultiDiscrete([[2, 3]], start=[[1, -1]])

    def move(self, action):
        assert self.action_space.contains(action)
        super().move(action[0, 1])

    def show(self):
        inner = {"place": np.float64(self.place), "bits": [self.now % 2, 1]}
        return {"inner": inner, "late": 5 + (self.now > 5)}

    def pay(self):
        return np.float32(super().pay())

    def over(self):
        return np.bool_(abs(self.place) > 1.2), np.array(self.now >= 10)


class Scalar(faulty.Sound):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-1.0, 1.0, (), np.float32)

    def move(self, action):
        assert self.action_space.contains(action)
        super().move(action)


@pytest.mark.parametrize("cls", [Structured, Scalar])
def test_unusual_spaces_are_no_faults(cls):
    assert not bad(check(cls))


def test_numbers_are_told_by_entry():
    numbers = {f.check: f.entries for f in check(Structured) if f.entries}
    assert numbers.keys() == {"scale", "rewards"}
    assert numbers["scale"].keys() == {
        "observation['inner']['place']",
        *(f"observation['inner']['bits'][{i}]" for i in (0, 1)),
    }
    assert numbers["scale"]["observation['inner']['bits'][1]"] == (1, 1, 1)
    low, high, mean = numbers["rewards"]["reward"]
    assert -2 < low < mean < high <= 0


def test_old_gym_is_told_beneath_a_time_limit():
    (found,) = bad(check(faulty.OldStep, max_episode_steps=5))
    assert found.check == "step" and "old Gym" in found.found


@pytest.mark.parametrize("limit", [50, 5000])
def test_a_time_limit_mends_an_endless_episode(limit):
    (found,) = [f for f in check(faulty.Endless, max_episode_steps=limit, steps=100) if f.check == "endings"]
    assert found.severity == "fine" and f"the time limit is {limit:,}" in found.found


def test_an_instance_stays_open_and_arguments_reach_the_constructor():
    class Closed(faulty.Sound):
        def __init__(self, length=10):
            super().__init__()
            self.length, self.closed = length, 0

        def close(self):
            self.closed += 1

    mine = Closed()
    assert not bad(check(mine)) and not mine.closed
    (found,) = [f for f in check(Closed, env_kwargs={"length": 1}) if f.check == "endings"]
    assert found.severity == "warning" and "first step, truncated" in found.found


def test_short_episodes_are_played_more_often():
    (found,) = [f for f in check(faulty.AlwaysOver, episodes=2) if f.check == "rewards"]
    assert found.severity == "fine"
    (found,) = [f for f in check(faulty.ZeroRewards, episodes=2) if f.check == "rewards"]
    steps = int(found.found.split(" steps")[0].split()[-1].replace(",", ""))
    assert 2500 <= steps < 2510


# --- the environments of Gymnasium --------------------------------------------------------------------------

SUITE = {
    "Pendulum-v1": [], "CartPole-v1": [], "MountainCarContinuous-v0": [], "MountainCar-v0": ["rewards"],
    "FrozenLake-v1": [], "Taxi-v4": [], "CliffWalking-v1": ["endings"], "Blackjack-v1": ["spaces"],
    "LunarLander-v3": [], "BipedalWalker-v3": [], "HalfCheetah-v5": [], "Ant-v5": [], "Humanoid-v5": ["scale"],
}  # fmt: skip
"""What is found, all of it true: no goal is met by chance, no time limit, a tuple, forces in newtons."""


@pytest.mark.parametrize(("env", "found"), SUITE.items(), ids=SUITE)
def test_no_false_alarms(env, found):
    assert [f.check for f in bad(check(env, episodes=1, steps=250))] == found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of packages that may be installed, such as Brax, about themselves
@pytest.mark.parametrize("line", list(listing.environments()))
def test_no_environment_that_can_be_made_has_a_fault(line):
    try:
        findings = check(line.split()[0], episodes=1, steps=200)
    except ConfigError as error:
        pytest.skip(str(error))  # another package is missing
    true = "Tuple", "clip() got an unexpected keyword argument 'a_min'"  # Brax's swimmer asks JAX for what it had once
    assert all(any(cause in f.found for cause in true) for f in findings if f.severity == "fault")


# --- the command --------------------------------------------------------------------------------------------


def test_the_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", "Pendulum-v1", "--env.g", "0.0"]) == 0
    out = capsys.readouterr().out
    assert "✓ rewards" in out and out.endswith("0 faults, 0 warnings\n")
    assert main(["check", "faulty:LargeRewards"]) == 0
    out = capsys.readouterr().out
    assert "! rewards" in out and "→ Divide them by" in out and out.endswith("0 faults, 1 warning\n")
    assert main(["check", "faulty:Hole"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("✗ observations step 3 of episode 0") and not err
    assert out.endswith("1 fault, 0 warnings; what needs a whole episode is checked when that is mended\n")


def test_it_is_a_function_too_and_does_without_jax():
    code = """
import sys, maxent
severities = {f.severity for f in maxent.check("Pendulum-v1", episodes=1, steps=10)}
print(severities, "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'fine'} False\n"


def test_the_command_as_json(capsys):
    assert main(["check", "faulty:Hole", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["env"] == "faulty:Hole" and told["fault"] is True
    assert told["findings"][0].keys() == {"check", "severity", "found", "advice", "entries"}
    assert main(["check", "faulty:Chatty", "--json", "--episodes", "1", "--steps", "50"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fault"] is False and "hello" in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("check", ["check needs ENV"]),
        ("check Pendulun-v1", ["did you mean Pendulum-v1"]),
        ("check faulty:Hol", ["did you mean Hole"]),
        ("check Pendulum-v1 --env.gravity 3", ["gravity"]),
        ("check Pendulum-v1 --episodes 0", ["check.episodes is 0", "at least 1"]),
        ("check Pendulum-v1 --stops 3", ["did you mean --steps"]),
    ],
)
def test_bad_input_is_one_line(words, parts, capsys):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and all(part in err for part in parts)
