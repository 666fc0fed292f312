"""Members that differ in their settings: every combination of swept values, and of each every seed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from maxent.config import TrainConfig
from maxent.errors import ConfigError
from maxent.settings import build, parse_value, suggestion

LARGEST = float(np.finfo(np.float32).max)


class Member(NamedTuple):
    """What makes a member different from the others of its run."""

    seed: int
    numbers: dict[str, float]
    """The swept settings, by name."""

    @property
    def setting(self) -> str:
        """The swept settings in words, empty without any."""
        return " ".join(f"{name}={_written(value)}" for name, value in self.numbers.items())

    def __str__(self) -> str:
        return f"seed {self.seed} {self.setting}".rstrip()

    def columns(self) -> dict[str, Any]:
        """What tells its rows from the others': the seed, and in a sweep the setting."""
        return {"seed": self.seed} | ({"setting": self.setting} if self.numbers else {})


def members(config: TrainConfig, settings: Any) -> list[Member]:
    """The members of a run: all seeds of the first combination, then all of the next; the last field changes fastest.

    Raises:
        ConfigError: where a sweep is not FIELD=v1,v2,…, its field cannot differ between members, or a value is out of
            range.
    """
    swept = dict[str, list[float]]()
    for text in config.sweep:
        name, values = _read(text, settings)
        if name in swept:
            raise ConfigError(f"the sweep names {name} twice: give all its values at once, {name}=v1,v2")
        swept[name] = values
    combinations = [dict(zip(swept, values, strict=True)) for values in product(*swept.values())]
    for numbers in combinations:
        build(type(settings), vars(settings) | numbers, "sweep")
    return [Member(config.seed + i, numbers) for numbers in combinations for i in range(config.seeds)]


def with_numbers(settings: Any, of: Sequence[Member]) -> Any:
    """The settings that decide a program's form: a swept number is a number there, of whichever member."""
    return replace(settings, **of[0].numbers)


def _read(text: str, settings: Any) -> tuple[str, list[float]]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not values:
        raise ConfigError(f"the sweep {text!r} must be FIELD=v1,v2,…: a setting and the values that it takes")
    known = list(_swept(settings))
    if name not in known:
        if name in ("seed", "seeds"):
            raise ConfigError("a sweep is of settings: --seeds K gives each of them K seeds")
        raise ConfigError(f"members cannot differ in {name!r}{suggestion(name, known, 'a sweep takes')}")
    found = [parse_value(re.sub(r"^(-?)\.", r"\g<1>0.", word.strip())) for word in values.split(",")]  # TOML wants 0.5
    for value in found:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
            raise ConfigError(f"the sweep {text!r} has the value {repr(value)[:40]}: it must be a number")
    if len({np.float32(value) for value in found}) < len(found):
        raise ConfigError(f"the sweep {text!r} has a value twice, as 32-bit numbers: seeds repeat a setting, --seeds K")
    return name, [float(value) for value in found]


def _written(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _swept(settings: Any) -> Iterator[str]:
    return (f.name for f in fields(settings) if f.metadata.get("swept"))
