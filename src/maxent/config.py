"""Every number that a user may set, and the one way in which files, the command line and Python set it.

No import here needs JAX: the command's help and its errors are instant.
"""

import dataclasses
import difflib
import math
import numbers as numeric
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from maxent.errors import ConfigError

Auto = Literal["auto"]
Activation = Literal["relu", "tanh", "elu", "gelu", "silu"]


def setting(
    default: Any, *, low: float = -math.inf, above: float = -math.inf, high: float = math.inf, swept: bool = False
) -> Any:
    """A field of a config with its range: low ≤ value ≤ high, value > above.

    A `swept` number lives in the algorithm's state as a traced scalar, so that members can differ in it.
    """
    return field(default=default, metadata={"low": low, "above": above, "high": high, "swept": swept})


@dataclass(frozen=True)
class ReplayConfig:
    """What every algorithm that learns from a replay shares."""

    gamma: float = setting(0.99, low=0, high=1, swept=True)
    """Discount of a reward one step later."""
    buffer_size: int = setting(1_000_000, low=1)
    """Transitions the replay holds, per member, over all its environments."""
    learning_starts: int = setting(1000, low=0)
    """Environment steps with uniformly random actions before the first update."""
    batch_size: int = setting(256, low=1)
    """Transitions in one update."""
    utd: float = setting(1.0, above=0)
    """Gradient updates per environment step, above or below one, whatever the number of environments."""
    n_step: int = setting(1, low=1)
    """Rewards summed before bootstrapping; above one the targets are slightly off-policy."""


@dataclass(frozen=True)
class SACConfig(ReplayConfig):
    """Soft Actor-Critic with twin critics and automatic temperature (arXiv 1812.05905)."""

    learning_rate: float = setting(3e-4, low=0, swept=True)
    """Adam's step size for every network that has none of its own below."""
    actor_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the policy; "auto" follows learning_rate."""
    critic_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the critics; "auto" follows learning_rate."""
    temperature_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the logarithm of the temperature; "auto" follows learning_rate."""
    learning_rate_decay_updates: int = setting(0, low=0)
    """Updates over which all step sizes fall linearly to zero; 0 keeps them constant."""
    tau: float = setting(0.005, low=0, high=1, swept=True)
    """Share of the critics that moves into the target critics at each update."""
    temperature: float | Auto = setting("auto", low=0, swept=True)
    """Weight of the entropy against the reward: "auto" learns it so that the entropy meets target_entropy."""
    initial_temperature: float = setting(1.0, above=0, swept=True)
    """Where a learned temperature starts."""
    target_entropy: float | Auto = setting("auto", swept=True)
    """Entropy, in nats over the action box [-1, 1]^d, that a learned temperature aims at; "auto" is -d."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of each hidden layer, of the policy and of the critics."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    critics: int = setting(2, low=1)
    """Independent critics; the smallest of their values is believed."""
    layer_norm: bool = False
    """Layer normalisation before each activation of the critics and the policy."""
    normalize_observations: bool = False
    """Shift and scale observations by their running mean and variance."""
    state_dependent_std: bool = True
    """Whether the policy's standard deviation depends on the observation; without, one learned vector serves all."""
    log_std_min: float = -20.0
    """Lower bound of the logarithm of the policy's standard deviation, before squashing."""
    log_std_max: float = 2.0
    """Upper bound of the same."""
    max_grad_norm: float = setting(0.0, low=0)
    """Norm above which a gradient (the policy's, all critics' together, the temperature's) is cut; 0 never is."""


@dataclass(frozen=True)
class TrainConfig:
    """What a run is, apart from the algorithm's own numbers."""

    env: str
    """Gymnasium id, or module:Name of your own class, factory or registered id."""
    algo: str = "sac"
    """Algorithm; see `maxent list algorithms`."""
    steps: int = setting(100_000, low=1)
    """Environment steps of each member, over all its environments."""
    seed: int = setting(0, low=0, high=2**31 - 1)
    """Seed of the first member; everything random follows from it."""
    seeds: int = setting(1, low=1)
    """Members, trained side by side in one process with the seeds seed, seed + 1, …"""
    envs: int = setting(1, low=1)
    """Environments of each member."""
    max_episode_steps: int = setting(0, low=0)
    """Time limit of an episode; 0 keeps the environment's own."""
    eval_every: int = setting(10_000, low=0)
    """Steps between evaluations with the mean action; 0 evaluates only at the end."""
    eval_episodes: int = setting(10, low=1)
    """Episodes of one evaluation."""
    log_every: int = setting(1000, low=1)
    """Steps between two rows of progress.csv."""
    checkpoint_every: int = setting(50_000, low=0)
    """Steps between checkpoints; 0 saves only at the end."""
    keep_checkpoints: int = setting(2, low=1)
    """Newest checkpoints that are kept, beside the best one."""
    save_replay: bool = True
    """Whether checkpoints hold the replay; without, a resumed run fills a new one before it learns on."""
    video: bool = False
    """Record a video of the final policy."""


def numbers(config: Any) -> dict[str, float]:
    """The swept numbers of a config, by name; those left at "auto" are not among them."""
    swept = [f.name for f in fields(config) if f.metadata.get("swept")]
    return {name: getattr(config, name) for name in swept if not isinstance(getattr(config, name), str)}


def without_numbers(config: Any) -> Any:
    """The config with NaN for every swept number: what all functions of an algorithm but `init` are given."""
    return dataclasses.replace(config, **dict.fromkeys(numbers(config), math.nan))


def build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """An object of a config class from plain values, checked.

    Raises:
        ConfigError: on an unknown key (naming the nearest), a wrong type or a value out of range; `where` names the
            place in which the values stood.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{where} has no setting {key!r}{suggestion(key, hints)}")
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
        if not math.isfinite(value):
            raise ConfigError(f"{where}.{f.name} is {value}: it must be a finite number")
        if value < m["low"]:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be at least {m['low']:g}")
        if value <= m["above"]:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be above {m['above']:g}")
        if value > m["high"]:
            raise ConfigError(f"{where}.{f.name} is {value}: it must be at most {m['high']:g}")
    if isinstance(config, TrainConfig):
        for name in ("eval_every", "checkpoint_every"):
            if getattr(config, name) % config.log_every:
                raise ConfigError(
                    f"{where}.{name} is {getattr(config, name)} and log_every {config.log_every}: it must be a "
                    "multiple, since both happen at a report"
                )
    if isinstance(config, ReplayConfig) and config.batch_size > config.buffer_size:
        raise ConfigError(
            f"{where}.batch_size is {config.batch_size} and buffer_size {config.buffer_size}: a batch must fit in the "
            "replay"
        )
    if isinstance(config, SACConfig):
        if not config.log_std_min < config.log_std_max:
            raise ConfigError(
                f"{where}.log_std_min is {config.log_std_min}: it must be below log_std_max, {config.log_std_max}"
            )
        if any(size < 1 for size in config.hidden_sizes):
            raise ConfigError(f"{where}.hidden_sizes is {config.hidden_sizes}: every layer needs at least one unit")


def suggestion(word: str, known: Any) -> str:
    """' (did you mean …?)' with the nearest known words, or the whole list where none is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f": did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(known)}"


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; a ConfigError in one line where it is missing or broken."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} is not TOML: {error}") from None


def parse_value(text: str) -> Any:
    """A word of the command line as TOML would read it, else as a string: true, 3, 0.5, [1, 2], "x", x."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """The value as the type that the field declares; ints serve as floats and lists as tuples."""
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
    elif hint is float and isinstance(value, numeric.Real):
        return float(value)
    elif isinstance(value, numeric.Real) and float(value).is_integer():
        return int(float(value)) if not isinstance(value, numeric.Integral) else int(value)
    raise ConfigError(f"{where} is {value!r}: it must be {_in_words(hint)}")


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_in_words(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "a list of whole numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]
