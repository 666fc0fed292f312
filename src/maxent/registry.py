"""Names and where they live: one line an algorithm. Nothing is imported until it is asked for."""

import importlib
from typing import NamedTuple

from maxent import config
from maxent.errors import ConfigError
from maxent.settings import suggestion
from maxent.types import Algorithm


class Entry(NamedTuple):
    """Where an algorithm lives, and the class of its config."""

    module: str
    attribute: str
    config: type


ALGORITHMS = {
    "sac": Entry("maxent.algorithms.sac", "SAC", config.SACConfig),
    "ppo": Entry("maxent.algorithms.ppo", "PPO", config.PPOConfig),
    "sac_v1": Entry("maxent.algorithms.sac_v1", "SAC_V1", config.SACV1Config),
    "sac_deterministic": Entry(
        "maxent.algorithms.sac_deterministic", "SAC_DETERMINISTIC", config.SACDeterministicConfig
    ),
    "td3": Entry("maxent.algorithms.td3", "TD3", config.TD3Config),
    "ddpg": Entry("maxent.algorithms.ddpg", "DDPG", config.DDPGConfig),
    "sac_discrete": Entry("maxent.algorithms.sac_discrete", "SAC_DISCRETE", config.SACDiscreteConfig),
    "sql": Entry("maxent.algorithms.sql", "SQL", config.SQLConfig),
}


def entry(name: str) -> Entry:
    """The entry of that name; a ConfigError names the nearest."""
    if name not in ALGORITHMS:
        raise ConfigError(f"there is no algorithm {name!r}{suggestion(name, ALGORITHMS)}")
    return ALGORITHMS[name]


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name, imported now."""
    found = entry(name)
    return getattr(importlib.import_module(found.module), found.attribute)
