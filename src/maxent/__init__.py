"""Maximum-entropy reinforcement learning in JAX.

import maxent

agent = maxent.SAC("Pendulum-v1", seed=0).learn(20_000)
action, _ = agent.predict(obs, deterministic=True)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maxent.agent import PPO as PPO
    from maxent.agent import SAC as SAC
    from maxent.agent import Agent as Agent
    from maxent.agent import load as load
    from maxent.config import PPOConfig as PPOConfig
    from maxent.config import SACConfig as SACConfig
    from maxent.errors import CheckpointError as CheckpointError
    from maxent.errors import ConfigError as ConfigError
    from maxent.errors import EnvironmentFault as EnvironmentFault
    from maxent.errors import MaxentError as MaxentError
    from maxent.run.driver import Evaluation as Evaluation
    from maxent.run.driver import Progress as Progress

_HOMES = {
    "Agent": "agent",
    "PPO": "agent",
    "SAC": "agent",
    "load": "agent",
    "PPOConfig": "config",
    "SACConfig": "config",
    "MaxentError": "errors",
    "ConfigError": "errors",
    "EnvironmentFault": "errors",
    "CheckpointError": "errors",
    "Evaluation": "run.driver",
    "Progress": "run.driver",
}

__all__ = [
    "PPO",
    "SAC",
    "Agent",
    "CheckpointError",
    "ConfigError",
    "EnvironmentFault",
    "Evaluation",
    "MaxentError",
    "Progress",
    "PPOConfig",
    "SACConfig",
    "load",
]


def __getattr__(name: str) -> Any:
    """The public names are imported when first used: importing `maxent` alone does not import JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'maxent' has no attribute {name!r}")
    return getattr(importlib.import_module(f"maxent.{_HOMES[name]}"), name)
