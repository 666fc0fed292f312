"""How a setting is declared, checked and read: the one way for files, the command line and Python.

No import here needs JAX: the command's help and its errors are instant.
"""

import contextlib
import dataclasses
import difflib
import math
import numbers as numeric
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, Literal

from maxent.errors import ConfigError

ELSEWHERE = {
    "alpha": ["temperature"], "autotune": ["temperature"], "ent_coef": ["temperature", "entropy_coefficient"],
    "gradient_steps": ["utd"], "train_freq": ["utd"], "replay_ratio": ["utd"], "update_every": ["utd"],
    "policy_kwargs": ["hidden_sizes"], "net_arch": ["hidden_sizes"], "n_critics": ["critics"],
    "action_noise": ["exploration_noise"], "target_policy_noise": ["target_noise"],
    "n_steps": ["rollout_length"], "n_epochs": ["epochs"], "vf_coef": ["value_coefficient"],
    "tensorboard_log": ["out"], "total_timesteps": ["steps"], "n_envs": ["envs"], "num_envs": ["envs"],
    "env_kwargs": ["KEY"],
}  # fmt: skip
"""Names that other libraries have for settings, and ours."""


def setting(
    default: Any, *, low: float = -math.inf, above: float = -math.inf, high: float = math.inf, swept: bool = False
) -> Any:
    """A field of a config with its range: low ≤ value ≤ high, value > above.

    A `swept` number lives in the algorithm's state as a traced scalar, so that members can differ in it.
    """
    return field(default=default, metadata={"low": low, "above": above, "high": high, "swept": swept})


def numbers(config: Any) -> dict[str, float]:
    """The swept numbers of a config, by name; those left at "auto" are not among them."""
    swept = [f.name for f in fields(config) if f.metadata.get("swept")]
    return {name: getattr(config, name) for name in swept if not isinstance(getattr(config, name), str)}


def without_numbers(config: Any) -> Any:
    """The config with NaN for every swept number: what all functions of an algorithm but `init` are given."""
    return dataclasses.replace(config, **dict.fromkeys(numbers(config), math.nan))


def given(value: float | str, default: float) -> float:
    """The value, or what "auto" stands for."""
    return default if isinstance(value, str) else value


def build(cls: type, values: Mapping[str, Any], where: str, beside: Sequence[str] = ()) -> Any:
    """An object of a config class from plain values, checked; `beside` are names that are known there, but not here.

    Raises:
        ConfigError: on an unknown key (naming the nearest), a wrong type or a value out of range; `where` names the
            place in which the values stood.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{where} has no setting {key!r}{suggestion(key, [*hints, *beside])}")
    for f in fields(cls):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where} lacks {f.name}")
    config = cls(**{key: _coerce(value, hints[key], f"{where}.{key}") for key, value in values.items()})
    check(config, where)
    return config


def check(config: Any, where: str) -> None:
    """Raise a ConfigError where a value is out of its range, or settings contradict each other."""
    for f in fields(config):
        value, m = getattr(config, f.name), f.metadata
        if isinstance(value, str) or not m:
            continue
        if not -math.inf < value < math.inf:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be a finite number")
        if value < m["low"]:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be at least {m['low']:.10g}")
        if value <= m["above"]:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be above {m['above']:.10g}")
        if value > m["high"]:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be at most {m['high']:.10g}")
    for name, complaint in config.conflicts() if hasattr(config, "conflicts") else ():
        raise ConfigError(f"{where}.{name} is {getattr(config, name)}{complaint}")


def suggestion(word: str, known: Any, lead: str = "it has") -> str:
    """': did you mean …?' with the nearest known words, or, after the lead, the whole list where none is near."""
    ours = ELSEWHERE.get(_field(word), ())
    same = [own for own in known if _field(own) in ours]
    close = difflib.get_close_matches(_field(word), [_field(own) for own in known], 3, 0.6)
    near = same or sorted((own for own in known if _field(own) in close), key=lambda own: close.index(_field(own)))
    return f": did you mean {' or '.join(near)}?" if near else f"; {lead} {', '.join(known)}"


def _field(word: str) -> str:
    """The field that an option stands for: --sac.batch-size → batch_size."""
    return word.rpartition(".")[2].lstrip("-").replace("-", "_")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; a ConfigError in one line where it is missing or broken."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # broken, no UTF-8, numbers or tables without end
        raise ConfigError(f"the config file {path} is not TOML: {error}") from None


def parse_value(text: str) -> Any:
    """A word of the command line as TOML would read it, else as a string: true, 3, 0.5, [1, 2], "x", x.

    Python's True and False are no strings either: as such, an environment would take both for true.
    """
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return {"True": True, "False": False}.get(text, text)
    return found["value"] if len(found) == 1 else text


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """The value as the type that the field declares; ints serve as floats and lists as tuples."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ConfigError(f"{where} is a whole number of {len(str(abs(value)))} digits: no setting takes one so large")
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        for option in typing.get_args(hint):
            try:
                return _coerce(value, option, where)
            except ConfigError:
                continue
    elif typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_coerce(x, typing.get_args(hint)[0], where) for x in value)
    elif isinstance(value, bool) or hint not in (int, float):
        if isinstance(value, hint) and hint is not int:
            return value
    elif isinstance(value, numeric.Real) and (hint is float or value == value // 1):
        with contextlib.suppress(OverflowError):  # too large for a float, or no whole number at all
            return hint(value)
    raise ConfigError(f"{where} is {value!r}: it must be {_in_words(hint)}")


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_in_words(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "a list of texts" if str in typing.get_args(hint) else 'a list of whole numbers, such as "[64, 64]"'
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]
