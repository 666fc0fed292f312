"""Brax's environments: `brax/halfcheetah`, with the arguments of Brax's own classes, such as `backend`.

Of Brax's wrappers none is used: `EpisodeWrapper` raises `done` at its time limit too, and `AutoResetWrapper` lets each
environment begin every episode in the one state that it began the first one in.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from maxent.envs.device.engine import cannot, engine_env, import_engine
from maxent.envs.device.env import DeviceEnv, check_arguments

TIME_LIMIT = 1000
"""Steps, as `brax.envs.create` has it for every task."""


def names() -> list[str]:
    """What may stand after `brax/`.

    Raises:
        ConfigError: where Brax is missing.
    """
    return sorted(_envs()._envs)  # Brax lists them nowhere else


def make(name: str, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """The environment of that name.

    Raises:
        ConfigError: where Brax is missing, or an argument is unknown or refused.
    """
    envs, where = _envs(), f"brax/{name}"
    check_arguments(where, kwargs, _arguments(envs._envs[name]))
    try:
        return engine_env(envs.get_environment(name, **kwargs), TIME_LIMIT)
    except (TypeError, ValueError, AttributeError) as error:
        raise cannot(where, error) from error


def _envs() -> Any:
    return import_engine("brax.envs", "brax")


def _arguments(kind: type) -> list[str]:
    """What a class takes, and what it hands on to those that it is derived from."""
    found: dict[str, None] = {}
    for cls in inspect.getmro(kind):
        parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]  # of a class, not of self
        found |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in found if name not in ("self", "sys")]
