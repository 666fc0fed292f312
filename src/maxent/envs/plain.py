"""What environments are asked, in this process or in another, and what they answer or raise."""

import sysconfig
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium

PACKAGE, PACKAGES = Path(__file__).resolve().parents[1], {"site-packages", "dist-packages"}


class Shown(NamedTuple):
    """What one step of an environment gives."""

    obs: Any
    reward: float
    discount: float
    """0 where the episode terminated, else 1."""
    boundary: bool
    """Whether the episode is over."""
    success: float | None
    """1 or 0 at the end of an episode whose environment reports `is_success`."""


class RemoteError(Exception):
    """What an environment in a worker has raised, or what has become of its process; its text is whole."""


def perform(env: gymnasium.Env, name: str, argument: Any) -> Any:
    """Do what an environment is asked: "reset" with a seed gives an observation, "step" with an action `Shown`."""
    if name == "reset":
        obs, _ = env.reset(seed=argument)
        return obs
    obs, reward, terminated, truncated, info = env.step(argument)
    over = bool(terminated or truncated)
    success = float(info["is_success"]) if over and "is_success" in info else None
    return Shown(obs, float(reward), float(not terminated), over, success)


def declared(env: gymnasium.Env) -> tuple[gymnasium.Space, gymnasium.Space]:
    """The spaces of the observations and the actions; None for one that it lacks, which is then refused as a space."""
    return getattr(env, "observation_space", None), getattr(env, "action_space", None)  # type: ignore[return-value]


def told(error: Exception) -> str:
    """What an environment raised, and the user's line that it came from; a ValueError of ours is a whole sentence."""
    if isinstance(error, RemoteError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ValueError) and frames and Path(frames[-1].filename).is_relative_to(PACKAGE):
        return str(error)
    own = [frame for frame in frames if not installed(frame.filename)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return " ".join(f"{type(error).__name__}: {error}{place}".split())


def installed(file: str) -> bool:
    """Whether a source file belongs to the standard library, to this library or to an installed package."""
    path = Path(file).resolve()
    library = any(path.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return file.startswith("<frozen") or library or path.is_relative_to(PACKAGE) or not PACKAGES.isdisjoint(path.parts)
