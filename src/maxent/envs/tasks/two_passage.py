"""A wall with two passages, of which the better one may be closed after learning (arXiv 1702.08165, section 5)."""

from typing import Any, ClassVar

import numpy as np

from maxent.envs.tasks.drawing import GOAL, WALL, Canvas
from maxent.envs.tasks.plane import Plane


class TwoPassage(Plane):
    """A point that has to get to the other side of a wall with two passages.

    The state is a position in [-5, 5]², the first one normal around (-4, 0) with deviation 0.1; half of an action in
    [-1, 1]² is added to it, first along x, then along y, and each stops where a wall begins. The wall fills |x| < 0.5,
    but for the upper passage, 1 < y < 2.5, and the lower one, -3 < y < -1.5. The goal is the disc of radius 0.5 around
    (4, 0): the way through the upper passage is 8.28 long, that through the lower one 8.62, 4 % more.

    The reward of a step is -0.1‖s' - goal‖ + 10·[reached], and the episode ends where the goal is reached. Registered
    with a limit of 50 steps. `info` has `is_success`.

    The paper's own maze was never published; this geometry was fixed before anything was trained on it.

    Args:
        render_mode: As in Gymnasium: "human" or "rgb_array".
        blocked: Close the upper passage.
    """

    half_width: ClassVar[float] = 5.0
    start: ClassVar[tuple[float, float]] = (-4.0, 0.0)
    goal: ClassVar[np.ndarray] = np.array([4.0, 0.0])
    goal_radius: ClassVar[float] = 0.5
    goal_reward: ClassVar[float] = 10.0
    distance_cost: ClassVar[float] = 0.1
    speed: ClassVar[float] = 0.5
    """Of a whole action in one coordinate: no more than the wall is thick, so that no step leads through it."""
    wall: ClassVar[tuple[float, float]] = (-0.5, 0.5)
    upper: ClassVar[tuple[float, float]] = (1.0, 2.5)
    lower: ClassVar[tuple[float, float]] = (-3.0, -1.5)

    def __init__(self, render_mode: str | None = None, blocked: bool = False) -> None:
        super().__init__(render_mode)
        self.blocked = blocked
        self.passages = self.open_passages(blocked)

    @classmethod
    def open_passages(cls, blocked: bool) -> tuple[tuple[float, float], ...]:
        """(low, high) of each passage that is open."""
        if blocked not in (True, False):
            raise ValueError(f"blocked is {blocked!r}; it must be true or false")
        return (cls.lower,) if blocked else (cls.lower, cls.upper)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by half the action, as far as the wall lets it."""
        move = self.speed * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        x, y = self._slide_along_x(move[0]), self.position[1]
        self._move_to(np.array([x, self._slide_along_y(x, y, move[1])]))
        distance = float(np.linalg.norm(self.position - self.goal))
        reached = distance < self.goal_radius
        reward = -self.distance_cost * distance + self.goal_reward * reached
        return self._obs(), reward, reached, False, {"is_success": reached}

    def _slide_along_x(self, move: float) -> float:
        """The new x: before a wall the point stops at its face."""
        (left, right), (x, y) = self.wall, self.position
        if any(low < y < high for low, high in self.passages):
            return x + move
        if x <= left:
            return min(x + move, left)
        return max(x + move, right) if x >= right else x + move

    def _slide_along_y(self, x: float, y: float, move: float) -> float:
        """The new y: within the wall the point stays in its passage."""
        left, right = self.wall
        for low, high in self.passages:
            if left < x < right and low < y < high:
                inside = 1e-6
                return float(np.clip(y + move, low + inside, high - inside))
        return y + move

    def _draw(self, canvas: Canvas) -> None:
        (left, right), edge = self.wall, self.half_width
        canvas.box((left, -edge), (right, edge), WALL)
        for low, high in self.passages:
            canvas.box((left, low), (right, high), "white")
        canvas.circle(self.goal, self.goal_radius, GOAL)
