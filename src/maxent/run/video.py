"""Watching a policy: videos, which need no screen, and a window, which does.

A video is MP4 where imageio-ffmpeg is installed, else an animated GIF. It is written aside and renamed when complete.
"""

import importlib.util
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np

from maxent.envs.contract import Episode
from maxent.envs.make import Factory, has_screen
from maxent.errors import ConfigError
from maxent.run import folder
from maxent.run.policy import Policy

USUAL_FPS = 30
"""Where the environment does not say how fast it runs."""
GIF_FPS, GIF_PIXELS = 25, 320
"""GIFs are large: no more pictures a second, and none wider or higher."""
QUALITY = 7
"""Of 10, as imageio-ffmpeg counts: lines stay sharp, and a walk of a minute takes a few megabytes."""


class Writer(Protocol):
    """Takes pictures, uint8 [height, width, 3]."""

    def write(self, frame: np.ndarray) -> None:
        """One more picture."""
        ...

    def close(self) -> None:
        """Complete the file."""
        ...


class MP4Writer:
    """H.264 through ffmpeg, which is fed picture by picture."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._pipe: Generator[None, np.ndarray, None] | None = None

    def write(self, frame: np.ndarray) -> None:
        """One more picture; an odd last row or column is left out, as the format asks."""
        height, width = (size - size % 2 for size in frame.shape[:2])
        if self._pipe is None:
            import imageio_ffmpeg

            self._pipe = imageio_ffmpeg.write_frames(
                str(self._path), (width, height), fps=self._fps, quality=QUALITY, macro_block_size=2
            )
            self._pipe.send(None)  # type: ignore[arg-type]
        self._pipe.send(np.ascontiguousarray(frame[:height, :width]))

    def close(self) -> None:
        """Complete the file."""
        if self._pipe is not None:
            self._pipe.close()


class GIFWriter:
    """An animated GIF by Pillow: fewer and smaller pictures, since they wait in memory."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._every = path, max(1, round(fps / GIF_FPS))
        self._milliseconds = round(1000 * self._every / fps)
        self._count, self._frames = 0, list[Any]()

    def write(self, frame: np.ndarray) -> None:
        """One more picture, if its turn has come."""
        from PIL import Image

        if self._count % self._every == 0:
            image = Image.fromarray(frame)
            image.thumbnail((GIF_PIXELS, GIF_PIXELS))
            self._frames.append(image.quantize())
        self._count += 1

    def close(self) -> None:
        """Write the file."""
        first, *others = self._frames
        first.save(self._path, format="GIF", save_all=True, append_images=others, duration=self._milliseconds, loop=0)


class Recorded(gymnasium.Wrapper):
    """An environment whose every picture goes to a writer."""

    def __init__(self, env: gymnasium.Env, writer: Writer) -> None:
        super().__init__(env)
        self._writer = writer

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's own."""
        result = self.env.reset(**kwargs)
        self._take()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's own."""
        result = self.env.step(action)
        self._take()
        return result

    def _take(self) -> None:
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise ConfigError(
                f"the environment renders a {type(frame).__name__}: a video needs arrays [height, width, 3]"
            )
        self._writer.write(frame[..., :3].astype(np.uint8, copy=False))


def record(policy: Policy, out: Path, episodes: int = 1, seed: int | None = None) -> list[Episode]:
    """Record episodes with the mean action into `out`, whose name says the format; the episodes.

    Raises:
        ConfigError: where the environment gives no pictures, or the format is neither .mp4 nor .gif.
    """
    writers: dict[str, Callable[[Path, float], Writer]] = {".mp4": MP4Writer, ".gif": GIFWriter}
    if out.suffix.lower() not in writers:
        raise ConfigError(f"{out} cannot be written: a video is .mp4 or .gif")
    if out.suffix.lower() == ".mp4" and not _has_ffmpeg():
        raise ConfigError('MP4 needs imageio-ffmpeg: pip install "maxent-rl[video]", or choose a .gif')
    env = rendering(policy.factory, "rgb_array")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial{out.suffix}")
    writer = writers[out.suffix.lower()](aside, env.metadata.get("render_fps") or USUAL_FPS)
    try:
        played = policy.play(episodes, seed, make=lambda: Recorded(env, writer), parallel=1)
        writer.close()
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return played


def default_path(run: str | Path, policy: Policy, best: bool = False) -> Path:
    """Where a run's video goes unless told: MP4, or GIF where ffmpeg is missing."""
    name = f"{'best' if best else 'step'}-{policy.step:09d}-{policy.name}"
    return Path(run) / folder.VIDEOS / f"{name}{'.mp4' if _has_ffmpeg() else '.gif'}"


def show(policy: Policy, episodes: int = 1, seed: int | None = None) -> list[Episode]:
    """Play episodes with the mean action in a window.

    Raises:
        ConfigError: where there is no screen, or the environment opens no window.
    """
    if not has_screen():
        raise ConfigError("there is no screen (DISPLAY is not set): record a video instead with `maxent record`")
    env = rendering(policy.factory, "human")
    return policy.play(episodes, seed, make=lambda: env, parallel=1)


def rendering(factory: Factory, mode: str) -> gymnasium.Env:
    """An environment that renders in this mode.

    Raises:
        ConfigError: where it does not know the mode.
    """
    plain = factory()
    modes = plain.metadata.get("render_modes") or []
    plain.close()
    if mode not in modes:
        raise ConfigError(f"{factory.name} does not render as {mode!r}: its render_modes are {list(modes)}")
    return factory(render_mode=mode)


def _has_ffmpeg() -> bool:
    """Whether imageio-ffmpeg is installed and finds its program."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return False
    import imageio_ffmpeg

    try:
        return bool(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return False
