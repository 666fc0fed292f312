"""The library's own tasks do what their descriptions say, and so do the pictures of what is learned on them."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose, assert_array_equal

import maxent
from maxent.cli import main
from maxent.envs import spaces, tasks
from maxent.envs.tasks.multigoal import MultiGoal
from maxent.envs.tasks.two_passage import TwoPassage
from maxent.errors import ConfigError
from maxent.study import landscape

tasks.register()
TINY = dict(hidden_sizes=(8,), batch_size=8, buffer_size=200, learning_starts=20)


@pytest.mark.parametrize("name", tasks.TASKS)
@pytest.mark.parametrize("blocked", [False, True])
def test_they_are_gymnasiums_environments(name: str, blocked: bool) -> None:
    """Gymnasium's checker finds nothing, time limits are the registered ones, and no position leaves its space."""
    kwargs = {"blocked": blocked} if name == "maxent/TwoPassage-v0" else {}
    env = gymnasium.make(name, render_mode="rgb_array", **kwargs)
    check_env(env.unwrapped, skip_render_check=True)
    rng, steps, ended = np.random.default_rng(0), 0, False
    obs, _ = env.reset(seed=0)
    while not ended:
        obs, _, terminated, truncated, info = env.step(rng.uniform([0.2, -1], 1, 2).astype(np.float32))
        steps, ended = steps + 1, terminated or truncated
        assert env.observation_space.contains(obs) and info["is_success"] == terminated
    assert truncated == (steps == tasks.TASKS[name][1])
    frame = env.render()
    assert frame.shape == (400, 400, 3) and frame.dtype == np.uint8 and len(np.unique(frame.reshape(-1, 3), axis=0)) > 2


def test_the_command_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "envs"]) == 0
    assert tasks.TASKS.keys() <= set(capsys.readouterr().out.split())


def test_gymnasium_finds_them_by_itself_where_the_library_is_installed() -> None:
    """The entry point is what Gymnasium calls, and calling it twice does no harm; importing maxent stays light."""
    entry = 'maxent = "maxent.envs.tasks:register"'
    assert entry in (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    script = (
        "import sys, maxent; assert 'gymnasium' not in sys.modules and 'jax' not in sys.modules\n"
        "import gymnasium, importlib.metadata as m\n"
        "load = lambda: m.EntryPoint('maxent', 'maxent.envs.tasks:register', 'gymnasium.envs').load()\n"
        "with gymnasium.envs.registration.namespace('maxent'): load()()\n"
        "load()()\n"
        "gymnasium.make('maxent/MultiGoal-v0'); gymnasium.make('maxent/TwoPassage-v0', blocked=True)\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=120)


def at(env: MultiGoal | TwoPassage, x: float, y: float) -> None:
    env.reset(seed=0)
    env.position = np.array([x, y])


def test_starts_are_normal_around_the_start() -> None:
    for env in (MultiGoal(), TwoPassage()):
        env.reset(seed=3)
        starts = np.array([env.reset()[0] for _ in range(2000)])
        assert_allclose(starts.mean(0), env.start, atol=0.01)
        assert_allclose(starts.std(0), 0.1, rtol=0.06)


def test_a_step_among_four_goals() -> None:
    """s' = clip(s + a), and -30‖a‖² - min‖s' - g‖² + 10·[within 1]; written out by hand."""
    env = MultiGoal()
    at(env, 1.0, 0.5)
    obs, reward, terminated, truncated, info = env.step(np.array([0.5, -0.5], np.float32))
    assert_allclose(obs, [1.5, 0.0])
    assert_allclose(reward, -30 * 0.5 - 3.5**2)
    assert not terminated and not truncated and info == {"is_success": False}
    for goal, (x, y) in enumerate([(5, 0), (-5, 0), (0, 5), (0, -5)]):
        at(env, 0.7 * x, 0.7 * y)
        obs, reward, terminated, _, info = env.step(np.array([0.12 * x, 0.12 * y]))
        assert_allclose(reward, -30 * 0.36 - (5 - 4.1) ** 2 + 10)
        assert terminated and info == {"is_success": True, "goal": goal}
    at(env, 6.8, 6.9)
    assert_array_equal(env.step(np.array([3.0, 3.0]))[0], [7, 7])
    at(env, 2.0, 2.0)
    assert_allclose(env.step(np.array([9.0, 0.0]))[1], -30 - (4 + 4))


def walk(env: TwoPassage, x: float, y: float, *moves: tuple[float, float]) -> np.ndarray:
    at(env, x, y)
    for move in moves:
        obs = env.step(np.array(move))[0]
    return obs


@pytest.mark.parametrize("blocked", [False, True])
def test_walls_stop_and_passages_let_through(blocked: bool) -> None:
    """From both sides; along the wall one slides; within a passage one stays in it; the upper one can be closed."""
    env = TwoPassage(blocked=blocked)
    assert_allclose(walk(env, -0.7, 0.0, (1, 0), (1, 0)), [-0.5, 0])
    assert_allclose(walk(env, 0.7, 0.0, (-1, 0), (-1, 0)), [0.5, 0])
    assert_allclose(walk(env, -0.5, 0.0, (1, 0.5)), [-0.5, 0.25])
    assert_allclose(walk(env, -0.5, -2.0, (1, 0), (1, 0), (1, 0)), [1, -2])
    assert_allclose(walk(env, 0.5, -2.0, (-1, 0), (-1, 0), (-1, 0)), [-1, -2])
    assert_allclose(walk(env, 0.0, -1.6, (0, 1), (0, 1)), [0, -1.5], atol=1e-5)
    assert_allclose(walk(env, 0.0, -2.9, (0, -1), (0, -1)), [0, -3], atol=1e-5)
    assert_allclose(walk(env, -0.5, 1.5, (1, 0), (1, 0), (1, 0)), [-0.5, 1.5] if blocked else [1, 1.5])


def test_nobody_gets_through_the_wall() -> None:
    """Ten thousand random steps near it: a position is in the wall only within an open passage."""
    rng = np.random.default_rng(1)
    for blocked in (False, True):
        env = TwoPassage(blocked=blocked)
        for _ in range(200):
            at(env, rng.choice([-0.6, 0.6]), rng.uniform(-4, 4))
            for _ in range(50):
                side = np.sign(env.position[0])
                x, y = env.step(rng.uniform(-1, 1, 2))[0]
                inside = any(low < y < high for low, high in env.passages)
                assert abs(x) >= 0.5 or inside
                assert np.sign(x) == side or inside


def test_the_goal_behind_the_wall() -> None:
    """-0.1 the distance after the step, and 10 more and an end within half of the goal."""
    env = TwoPassage()
    at(env, 3.0, 0.0)
    obs, reward, terminated, _, info = env.step(np.array([0.5, 0.0]))
    assert_allclose([obs[0], reward], [3.25, -0.075])
    assert not terminated and info == {"is_success": False}
    obs, reward, terminated, _, info = env.step(np.array([1.0, 0.0]))
    assert_allclose([obs[0], reward], [3.75, 10 - 0.025])
    assert terminated and info == {"is_success": True}


def test_the_upper_way_is_slightly_shorter() -> None:
    """Around the corners of the wall: 8.28 against 8.62, as the description says."""

    def length(y: float) -> float:
        corners = np.array([TwoPassage.start, (-0.5, y), (0.5, y), TwoPassage.goal])
        return float(np.linalg.norm(np.diff(corners, axis=0), axis=1).sum())

    assert_allclose([length(TwoPassage.upper[0]), length(TwoPassage.lower[1])], [8.28, 8.62], atol=0.005)


def test_canonical_actions_undo_the_environments() -> None:
    box = gymnasium.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 5.0]), dtype=np.float64)
    canonical = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)
    taken = spaces.environment_action(box)
    assert_allclose(spaces.canonical_actions(box, [taken(a) for a in canonical]), canonical, atol=1e-6)
    for space, actions in ((gymnasium.spaces.Discrete(2), [0]), (box, np.zeros(2)), (box, np.zeros((3, 1)))):
        with pytest.raises(ValueError, match="must be"):
            spaces.canonical_actions(space, actions)


@pytest.mark.parametrize(
    "algorithm",
    [maxent.SACV1, pytest.param(maxent.SACDeterministic, marks=pytest.mark.slow), maxent.TD3, maxent.DDPG, maxent.SAC],
)
def test_all_who_have_critics_of_actions_say_what_they_believe(algorithm: type[maxent.Agent]) -> None:
    agent = algorithm("maxent/MultiGoal-v0", **TINY).learn(30)
    q = agent.q(np.zeros(2, np.float32), np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert q.shape == (2,) and q.dtype == np.float32 and q[0] != q[1]


def test_a_passage_is_open_or_not() -> None:
    with pytest.raises(ValueError, match="blocked is 'False'; it must be true or false"):
        TwoPassage(blocked="False")  # type: ignore[arg-type]


def test_a_landscape_shows_what_the_critic_believes(tmp_path: Path) -> None:
    """The deterministic action is, by `q`, better than what is drawn; episodes are a function of the seed."""
    agent = maxent.SQL("maxent/MultiGoal-v0", seed=1, greedy_particles=300, **TINY).learn(30)
    obs = np.array([1.0, -2.0], np.float32)
    drawn, _ = agent.predict(np.repeat(obs[None], 3, 0))
    best, _ = agent.predict(np.repeat(obs[None], 3, 0), deterministic=True)
    assert agent.q(obs, drawn).shape == (3,) and (agent.q(obs, best) >= agent.q(obs, drawn)).all()

    def make() -> gymnasium.Env:
        return gymnasium.make("maxent/MultiGoal-v0")

    played, again = (landscape.rollouts(agent, make, 3, seed=5) for _ in range(2))
    assert all(np.array_equal(a.observations[0], b.observations[0]) for a, b in zip(played, again))
    assert all(2 <= len(r.observations) <= 31 for r in played)
    landscape.draw(agent, make, [(0, 0), (1, -2)], tmp_path / "new" / "picture.png", episodes=3, samples=3)
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="must be"):
        agent.q(obs, np.zeros((4, 3)))
