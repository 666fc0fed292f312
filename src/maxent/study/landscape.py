"""What a policy believes and does in the plane: its critic over all actions, the actions it draws, the paths it takes.

import maxent
from maxent.study import landscape

agent = maxent.load("runs/maxent-MultiGoal-v0/sql/seed-0")
landscape.draw(agent, lambda: gymnasium.make("maxent/MultiGoal-v0"), [(0, 0), (-2.5, 0), (2.5, 2.5)], "picture.png")
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np

from maxent.agent import Agent
from maxent.errors import ConfigError
from maxent.study.curves import COLOURS, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 61
"""Actions along each side of a landscape."""
LEVELS = 16


class Rollout(NamedTuple):
    """One episode as it was played."""

    observations: np.ndarray
    """[step + 1, …], the last one included."""
    info: dict[str, Any]
    """The environment's last word."""
    total_reward: float


def rollouts(
    agent: Agent,
    make: Callable[[], gymnasium.Env],
    episodes: int,
    seed: int = 0,
    deterministic: bool = False,
    member: int = 0,
) -> list[Rollout]:
    """So many episodes in environments seeded with `seed`, `seed` + 1, …, all played at once."""
    envs = [make() for _ in range(episodes)]
    paths = [[env.reset(seed=seed + i)[0]] for i, env in enumerate(envs)]
    infos: list[dict[str, Any]] = [{} for _ in envs]
    totals, running = [0.0] * episodes, list(range(episodes))
    while running:
        # All of them, so that one program serves to the end.
        actions, _ = agent.predict(np.stack([path[-1] for path in paths]), deterministic=deterministic, member=member)
        for i in running[:]:
            obs, reward, terminated, truncated, infos[i] = envs[i].step(actions[i])
            paths[i].append(obs)
            totals[i] += float(reward)
            if terminated or truncated:
                running.remove(i)
                envs[i].close()
    return [Rollout(np.stack(path), info, total) for path, info, total in zip(paths, infos, totals)]


def draw(
    agent: Agent,
    make: Callable[[], gymnasium.Env],
    states: Sequence[Sequence[float]],
    out: str | Path,
    episodes: int = 100,
    samples: int = 200,
    member: int = 0,
) -> None:
    """Draw so many paths in the plane of the first two coordinates, and Q with sampled actions in each state.

    Raises:
        ConfigError: where an action is not two numbers, or the algorithm has no critics of actions.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    space = agent.action_space
    if not isinstance(space, gymnasium.spaces.Box) or space.shape != (2,):
        raise ConfigError(f"a landscape needs actions of two numbers, and the action space is {space}")
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(4 * (len(states) + 1), 4), layout="constrained")
        plane, *panels = np.atleast_1d(figure.subplots(1, len(states) + 1))
        for rollout in rollouts(agent, make, episodes, member=member):
            plane.plot(*rollout.observations[:, :2].T, color=COLOURS[0], alpha=0.35, linewidth=0.8)
        for number, state in enumerate(states, 1):
            plane.annotate(str(number), state[:2], color=COLOURS[1], fontweight="bold", ha="center", va="center")
        plane.set(title=f"{episodes} sampled paths", aspect="equal")
        for number, (axes, state) in enumerate(zip(panels, states), 1):
            _draw_state(axes, agent, np.asarray(state, np.float32), samples, member)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.set_title(f"{number}: Q and actions at ({', '.join(f'{x:g}' for x in state)})")
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)


def _draw_state(axes: "Axes", agent: Agent, state: np.ndarray, samples: int, member: int) -> None:
    """The critic over the action box as a map, and actions drawn from the policy as dots."""
    (left, bottom), (right, top) = agent.action_space.low, agent.action_space.high  # type: ignore[attr-defined]
    x, y = np.meshgrid(np.linspace(left, right, GRID), np.linspace(bottom, top, GRID))
    q = agent.q(state, np.stack([x.ravel(), y.ravel()], -1), member=member)
    axes.contourf(x, y, q.reshape(x.shape), LEVELS, cmap="Greys_r")
    actions, _ = agent.predict(np.repeat(state[None], samples, 0), member=member)
    axes.plot(*np.asarray(actions).T, ".", color=COLOURS[1], markersize=3, alpha=0.7)
    axes.set(aspect="equal", xlim=(left, right), ylim=(bottom, top))
    axes.grid(visible=False)
