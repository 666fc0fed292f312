"""Turns of the loop on the host: the same as its iterations one by one, whatever the environments do meanwhile."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal

from maxent import native, registry
from maxent.envs.host import HostEnvs
from maxent.envs.make import Factory
from maxent.errors import TrainingFault
from maxent.loops import turns
from maxent.loops.host import HostLoop
from maxent.loops.pieces import Counters
from maxent.loops.programs import Programs

pytestmark = pytest.mark.skipif(not native.available(), reason="no C compiler here")

PROGRAMS: dict[str, Programs] = {}
"""One set of compiled functions for all loops with the same settings and spaces."""
PENDULUM = Factory("Pendulum-v1", max_episode_steps=20)


def loop_over(make: Callable, name: str = "sac", in_turns: bool = True, envs: int = 1, **settings) -> HostLoop:
    seeds = settings.pop("seeds", [0])
    own = registry.entry(name).config(
        hidden_sizes=(16,), batch_size=16, buffer_size=200, learning_starts=20, **settings
    )
    host = HostEnvs(make, seeds, envs, restarts=3)
    key = repr((name, own, host.spec))
    programs = PROGRAMS[key] = PROGRAMS.get(key) or Programs(registry.algorithm(name), own, host.spec)
    loop = HostLoop(programs, host, seeds, {})
    assert loop._turns is not None
    if not in_turns:
        loop._turns = None
    return loop


def run(loop: HostLoop, total: int = 90, every: int = 30) -> HostLoop:
    for _ in loop.run(total, every):
        pass
    return loop


def state(loop: HostLoop) -> list[np.ndarray]:
    return jax.tree.leaves(jax.device_get((loop.learned, loop.ring, loop.moment)))


def assert_alike(one: HostLoop, other: HostLoop, exactly: bool = False) -> None:
    assert (one.step, one.updates, one.ahead) == (other.step, other.updates, other.ahead) and one.updates > 0
    for a, b in zip(state(one), state(other), strict=True):
        assert a.dtype == b.dtype
        if exactly:
            assert_array_equal(a, b)
        else:
            assert_allclose(a, b, rtol=1e-3, atol=1e-4)


class Seen(gymnasium.Env):
    """Observations of several kinds, and an episode of seven steps; before each step it does as it is told."""

    def __init__(self, meanwhile: Callable[[int], None] = lambda step: None) -> None:
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (4, 3), np.uint8),
                "place": spaces.Discrete(5),
                "numbers": spaces.Box(-9, 9, (3,), np.float64),
                "flags": spaces.MultiBinary(2),
            }
        )
        self.action_space = spaces.Box(-2.0, 1.0, (2,), np.float64)
        self.meanwhile, self.steps, self.now = meanwhile, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return self._obs(np.zeros(2)), {}

    def step(self, action):
        self.steps, self.now = self.steps + 1, self.now + 1
        self.meanwhile(self.steps)
        return self._obs(action), float(action.sum()), self.now == 7 and self.steps % 2 == 0, self.now == 7, {}

    def _obs(self, action):
        return {
            "pixels": self.np_random.integers(0, 256, (4, 3), np.uint8),
            "place": self.np_random.integers(5),
            "numbers": np.array([*action, self.now]),
            "flags": self.np_random.integers(0, 2, 2, np.int8),
        }


@pytest.mark.parametrize(
    ("make", "name", "settings"),
    [
        (PENDULUM, "sac", {}),
        (PENDULUM, "sac", {"utd": 0.3, "envs": 2, "seeds": [3, 4]}),
        (PENDULUM, "sac", {"utd": 3.0, "n_step": 3, "normalize_observations": True}),
        pytest.param(Seen, "sac", {"envs": 2}, marks=pytest.mark.slow),
        (Seen, "sac_v1", {"layer_norm": True}),
        pytest.param(PENDULUM, "sac_deterministic", {}, marks=pytest.mark.slow),
        (PENDULUM, "ddpg", {"seeds": [0, 1]}),
        pytest.param(PENDULUM, "td3", {"utd": 2.0}, marks=pytest.mark.slow),
        pytest.param(PENDULUM, "sql", {}, marks=pytest.mark.slow),
        (Factory("CartPole-v1"), "sac_discrete", {"envs": 3}),
    ],
)
def test_turns_are_iterations(make, name, settings):
    """Also where they end every third step, so that most of what happens is their beginning and their end."""
    one_by_one = run(loop_over(make, name, in_turns=False, **settings))
    in_turns = run(loop_over(make, name, **settings))
    assert "turns" in in_turns.programs.traces and in_turns.programs.traces["turns"] == 1
    assert_alike(in_turns, one_by_one)
    assert_alike(run(loop_over(make, name, **settings), every=6), in_turns, exactly=True)


WIDER = """
import sys, numpy as np
from test_turns import PENDULUM, loop_over, run, state
for a, b in zip(*(state(run(loop_over(PENDULUM, sys.argv[1], in_turns=x))) for x in (True, False)), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
"""


@pytest.mark.parametrize("name", ["ddpg", pytest.param("sac", marks=pytest.mark.slow)])
def test_in_64_bit_mode_actions_and_rows_are_as_wide_as_the_table(name):
    environment = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    subprocess.run([sys.executable, "-c", WIDER, name], check=True, env=environment)


# --- environments that take their time ----------------------------------------------------------------------


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every program that was begun, whether it had patience."""
    found, begin = [], turns.Turns.begin

    def counted(self, *args, **fixed):
        turned = begin(self, *args, **fixed)
        found.append(self._patient)
        return turned

    monkeypatch.setattr(turns.Turns, "begin", counted)
    return found


def test_a_program_that_loses_its_patience_changes_nothing(begun, monkeypatch):
    """Rows that come too late are stored by a program of their own; the next turn is not waited in."""

    def slowly(step: int) -> None:
        time.sleep(0.05 * (step in (30, 31, 40, 60)))

    with monkeypatch.context() as patch:
        patch.setattr(turns, "PATIENCE", 60.0)  # a machine that does something else for a while loses no row
        quick = run(loop_over(Seen))
    assert begun == [True] * 3
    begun.clear()
    assert_alike(run(loop_over(lambda: Seen(slowly))), quick, exactly=True)
    assert len(begun) > 6 and not all(begun)


def test_environments_that_are_always_slow_are_rarely_waited_for(begun, monkeypatch):
    """Those that compute with JAX would wait for the program, and it for them."""
    monkeypatch.setattr(turns, "PATIENCE", 0.001)
    monkeypatch.setattr(turns.Turns, "vain", False)  # nor is a busy machine taken for programs that begin too late
    run(loop_over(lambda: Seen(lambda step: time.sleep(0.03))), total=100, every=200)
    assert len(begun) > 70 and sum(begun) <= 9


def test_environments_may_compute_with_jax():
    doubled = jax.jit(lambda x: 2 * x)

    def with_jax(step: int) -> None:
        assert float(doubled(jnp.float32(step)).block_until_ready()) == 2 * step

    begun = time.monotonic()
    assert_alike(run(loop_over(lambda: Seen(with_jax))), run(loop_over(Seen)), exactly=True)
    assert time.monotonic() - begun < 60


def test_two_loops_take_turns_at_once():
    loops = [loop_over(PENDULUM, seeds=[seed]) for seed in (0, 1)]
    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, loop in enumerate(loops):
        assert_alike(loop, run(loop_over(PENDULUM, seeds=[seed])), exactly=True)


# --- what breaks off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("step", [21, 30, 45])
def test_a_step_that_is_broken_off_is_taken_again(error, step):
    """With the updates that were made for it already, as among iterations one by one."""

    def broken(in_turns: bool) -> HostLoop:
        left = [step]

        def once(now: int) -> None:
            if [now] == left:
                left.clear()
                raise error

        loop = loop_over(lambda: Seen(once), in_turns=in_turns)
        with pytest.raises(error):
            run(loop)
        assert loop.whole and not loop.stepped.failed.any()
        return run(loop)

    assert_alike(broken(True), broken(False))


@pytest.mark.parametrize(
    ("where", "utd"),
    [(where, utd) for where in ("action", "before the row", "after the row") for utd in (0.4, 30.0)] + [("end", 30.0)],
)
def test_an_interrupt_anywhere_in_a_turn_loses_nothing(where, utd, monkeypatch):
    """Rows and updates are counted by the program that made them; with utd 30 it learns still, with 0.4 it waits."""
    loop = loop_over(PENDULUM, utd=utd)
    assert loop._turns is not None
    left = 1 if where == "end" else 25

    def interrupted(function, after=False):
        def called(*args):
            nonlocal left
            left -= 1
            result = function(*args) if after or left else None
            if not left:
                raise KeyboardInterrupt
            return result

        return called

    with monkeypatch.context() as patch:
        if where == "end":
            patch.setattr(turns.jax, "block_until_ready", interrupted(jax.block_until_ready))
        elif where == "action":
            patch.setattr(loop._turns, "action", interrupted(loop._turns.action))
        else:
            patch.setattr(loop._turns, "take", interrupted(loop._turns.take, after=where == "after the row"))
        with pytest.raises(KeyboardInterrupt):
            run(loop)
    assert loop.whole and int(loop.ring.written) == loop.step + 1
    assert int(loop.learned.state.critics_opt.steps[0]) == loop.updates
    one_by_one = run(loop_over(PENDULUM, utd=utd, in_turns=False), total=loop.step)
    if loop.ahead:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(one_by_one.envs, "step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            run(one_by_one)
    assert loop.ahead == one_by_one.ahead
    assert_alike(run(loop), run(one_by_one))


def test_where_programs_run_before_the_host_hears_of_them_there_are_no_turns(monkeypatch):
    """As in a process in which JAX was started for a rollout."""
    loop = loop_over(Seen)
    program = loop._turns._program
    monkeypatch.setattr(loop._turns, "_program", lambda *args, **fixed: jax.block_until_ready(program(*args, **fixed)))
    assert_alike(run(loop), run(loop_over(Seen)))
    assert loop._turns.vain and loop.programs.traces["learn"]


def test_environments_that_fail_are_made_anew_in_turns():
    failing = [18, 30]

    def fail(now: int) -> None:
        if now in failing:
            failing.remove(now)
            raise RuntimeError("motor")

    in_turns = run(loop_over(lambda: Seen(fail), envs=2))
    assert not failing and len(in_turns.faults) == 2
    failing[:] = [18, 30]
    assert_alike(in_turns, run(loop_over(lambda: Seen(fail), envs=2, in_turns=False)))


def test_actions_that_are_no_numbers_end_the_program():
    loop = run(loop_over(PENDULUM), total=40)
    loop.learned = jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, loop.learned)
    with pytest.raises(TrainingFault, match=r"member 0 \(seed 0\) at step 40: its policy gives actions"):
        run(loop)
    assert loop.whole and loop.learned.updates.is_ready()


def test_a_program_that_ends_by_itself_is_not_waited_for(monkeypatch):
    loop = run(loop_over(PENDULUM), total=40)
    ended = turns.Turned(
        loop.learned, loop.ring, loop.carry, ((), ()), Counters(*[np.uint32(x) for x in (40, loop.updates, 0)])
    )
    monkeypatch.setattr(loop._turns, "_program", lambda *args, **fixed: ended)
    with pytest.raises(RuntimeError, match="ended before it gave an action"):
        run(loop)


def test_stopping_ends_between_two_rows():
    loop = loop_over(lambda: Seen(lambda step: setattr(loop, "stopping", step >= 40)))
    run(loop)
    assert 40 < loop.step < 50 and loop.whole and not loop.ahead
    loop.stopping = False
    loop.envs._envs[0][0].meanwhile = lambda step: None
    assert_alike(run(loop), run(loop_over(Seen)), exactly=True)
