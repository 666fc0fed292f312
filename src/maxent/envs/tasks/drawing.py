"""Pictures of tasks in the plane: circles, boxes and a path, drawn by Pillow; a window for them by Matplotlib."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Point = Sequence[float] | np.ndarray
PIXELS = 400
"""Width and height of a picture."""
PAPER, INK, WALL, GOAL = "white", "#0072b2", "#555555", "#d55e00"


class Canvas:
    """A picture of the square [-half_width, half_width]², y upwards."""

    def __init__(self, half_width: float) -> None:
        from PIL import Image, ImageDraw

        self._half_width = half_width
        self._image = Image.new("RGB", (PIXELS, PIXELS), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def circle(self, centre: Point, radius: float, colour: str, filled: bool = True) -> None:
        """A disc, or its rim."""
        (x, y), r = self._pixel(centre), radius * PIXELS / (2 * self._half_width)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour if filled else None, outline=colour, width=2)

    def box(self, low: Point, high: Point, colour: str) -> None:
        """A filled rectangle between two corners."""
        (left, bottom), (right, top) = self._pixel(low), self._pixel(high)
        self._draw.rectangle((left, top, right, bottom), fill=colour)

    def path(self, points: Sequence[Point], colour: str) -> None:
        """A line through the points."""
        if len(points) > 1:
            self._draw.line([self._pixel(p) for p in points], fill=colour, width=2)

    def array(self) -> np.ndarray:
        """The picture, uint8 [height, width, 3]."""
        return np.asarray(self._image)

    def _pixel(self, point: Point) -> tuple[float, float]:
        scale = PIXELS / (2 * self._half_width)
        return (float(point[0]) + self._half_width) * scale, (self._half_width - float(point[1])) * scale


class Window:
    """A window that shows one picture after the other."""

    def __init__(self, title: str, fps: float) -> None:
        import matplotlib.pyplot as plt

        self._plt, self._pause = plt, 1 / fps
        self._figure = plt.figure(title, figsize=(4, 4))
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._shown: Any = None

    def show(self, frame: np.ndarray) -> None:
        """Replace the picture, and leave it for a moment."""
        if self._shown is None:
            self._shown = self._axes.imshow(frame)
            self._plt.show(block=False)
        self._shown.set_data(frame)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()
        self._figure.canvas.start_event_loop(self._pause)

    def close(self) -> None:
        """Close the window."""
        self._plt.close(self._figure)
