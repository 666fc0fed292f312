"""What tasks of a point in the plane share: a position, a path to draw, and how it is shown."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from maxent.envs.tasks.drawing import INK, Canvas, Window

START_STD = 0.1
"""Of the first position around its mean, in each coordinate."""


class Plane(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point in the square [-half_width, half_width]² that an action in [-1, 1]² moves.

    Observations are its coordinates, float32 [2]. A task says what a step does.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # type: ignore[misc]
    half_width: ClassVar[float]
    start: ClassVar[tuple[float, float]]

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-self.half_width, self.half_width, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = render_mode
        self.position = np.array(self.start)
        self._path: list[np.ndarray] = [self.position]
        self._window: Window | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start anew, normally distributed around `start`."""
        super().reset(seed=seed)
        self._path = []
        self._move_to(self.start + START_STD * self.np_random.standard_normal(2))
        return self._obs(), {}

    def render(self) -> Any:
        """The picture of this moment; in a window, for `human`."""
        if self.render_mode is None:
            return None
        canvas = Canvas(self.half_width)
        self._draw(canvas)
        canvas.path(self._path, INK)
        canvas.circle(self.position, 0.02 * self.half_width, INK)
        if self.render_mode == "rgb_array":
            return canvas.array()
        if self._window is None:
            self._window = Window(type(self).__name__, self.metadata["render_fps"])
        self._window.show(canvas.array())
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _draw(self, canvas: Canvas) -> None:
        """Everything but the point."""
        raise NotImplementedError

    def _move_to(self, position: np.ndarray) -> None:
        self.position = np.clip(position, -self.half_width, self.half_width)
        self._path.append(self.position)
        if self.render_mode == "human":
            self.render()

    def _obs(self) -> np.ndarray:
        return self.position.astype(np.float32)
