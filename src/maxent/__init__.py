"""Maximum-entropy reinforcement learning in JAX.

import maxent

agent = maxent.SAC("Pendulum-v1", seed=0).learn(20_000)
action, _ = agent.predict(obs, deterministic=True)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maxent.agent import DDPG as DDPG
    from maxent.agent import PPO as PPO
    from maxent.agent import SAC as SAC
    from maxent.agent import SACV1 as SACV1
    from maxent.agent import SQL as SQL
    from maxent.agent import TD3 as TD3
    from maxent.agent import Agent as Agent
    from maxent.agent import SACDeterministic as SACDeterministic
    from maxent.agent import SACDiscrete as SACDiscrete
    from maxent.agent import load as load
    from maxent.config import DDPGConfig as DDPGConfig
    from maxent.config import PPOConfig as PPOConfig
    from maxent.config import SACConfig as SACConfig
    from maxent.config import SACDeterministicConfig as SACDeterministicConfig
    from maxent.config import SACDiscreteConfig as SACDiscreteConfig
    from maxent.config import SACV1Config as SACV1Config
    from maxent.config import SQLConfig as SQLConfig
    from maxent.config import TD3Config as TD3Config
    from maxent.envs.check import Finding as Finding
    from maxent.envs.check import check as check
    from maxent.errors import CheckpointError as CheckpointError
    from maxent.errors import ConfigError as ConfigError
    from maxent.errors import EnvironmentFault as EnvironmentFault
    from maxent.errors import MaxentError as MaxentError
    from maxent.errors import TrainingFault as TrainingFault
    from maxent.loops.evaluate import Evaluation as Evaluation
    from maxent.run.driver import Progress as Progress

_HOMES = {
    "Agent": "agent",
    "PPO": "agent",
    "DDPG": "agent",
    "SAC": "agent",
    "SACV1": "agent",
    "SACDeterministic": "agent",
    "TD3": "agent",
    "SACDiscrete": "agent",
    "SQL": "agent",
    "load": "agent",
    "PPOConfig": "config",
    "DDPGConfig": "config",
    "SACConfig": "config",
    "SACV1Config": "config",
    "SACDeterministicConfig": "config",
    "TD3Config": "config",
    "SACDiscreteConfig": "config",
    "SQLConfig": "config",
    "Finding": "envs.check",
    "check": "envs.check",
    "MaxentError": "errors",
    "ConfigError": "errors",
    "EnvironmentFault": "errors",
    "CheckpointError": "errors",
    "TrainingFault": "errors",
    "Evaluation": "loops.evaluate",
    "Progress": "run.driver",
}

__all__ = [
    "TrainingFault",
    "PPO",
    "DDPG",
    "SAC",
    "SACV1",
    "TD3",
    "SQL",
    "Agent",
    "CheckpointError",
    "ConfigError",
    "DDPGConfig",
    "EnvironmentFault",
    "Evaluation",
    "Finding",
    "MaxentError",
    "Progress",
    "PPOConfig",
    "SACConfig",
    "SACDeterministic",
    "SACDeterministicConfig",
    "SACV1Config",
    "TD3Config",
    "SACDiscrete",
    "SACDiscreteConfig",
    "SQLConfig",
    "check",
    "load",
]


def __getattr__(name: str) -> Any:
    """The public names are imported when first used: importing `maxent` alone does not import JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'maxent' has no attribute {name!r}")
    return getattr(importlib.import_module(f"maxent.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
