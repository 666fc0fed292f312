"""Four goals, all equally good, of which a policy may prefer one or visit all (arXiv 1702.08165, section 5.1)."""

from typing import Any, ClassVar

import numpy as np

from maxent.envs.tasks.drawing import GOAL, Canvas
from maxent.envs.tasks.plane import Plane


class MultiGoal(Plane):
    """A point in the plane, and four goals around it at the same distance.

    The state is a position in [-7, 7]², the first one normal around the origin with deviation 0.1; an action in
    [-1, 1]² is added to it. The goals lie at (±5, 0) and (0, ±5). The reward of a step is
    -30‖a‖² - min_g ‖s' - g‖² + 10·[reached]; a goal is reached, and the episode ends, within a distance of 1.
    Registered with a limit of 30 steps. At an end `info` has `goal`, the index of the goal, and `is_success`, true.

    These are the numbers of the paper's authors' code; the paper's own reward is a mixture of Gaussians at the goals.
    """

    half_width: ClassVar[float] = 7.0
    start: ClassVar[tuple[float, float]] = (0.0, 0.0)
    goals: ClassVar[np.ndarray] = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    goal_radius: ClassVar[float] = 1.0
    goal_reward: ClassVar[float] = 10.0
    action_cost: ClassVar[float] = 30.0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by the action."""
        taken = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self._move_to(self.position + taken)
        squared = np.square(self.position - self.goals).sum(-1)
        reached = bool(squared.min() < self.goal_radius**2)
        reward = -self.action_cost * np.square(taken).sum() - squared.min() + self.goal_reward * reached
        info = {"is_success": True, "goal": int(squared.argmin())} if reached else {"is_success": False}
        return self._obs(), float(reward), reached, False, info

    def _draw(self, canvas: Canvas) -> None:
        for goal in self.goals:
            canvas.circle(goal, self.goal_radius, GOAL, filled=False)
            canvas.circle(goal, 0.1, GOAL)
