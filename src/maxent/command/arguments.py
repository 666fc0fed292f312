"""Words of the command line → an object of a dataclass whose fields are its options.

tyro knows the options and writes the help, from the sentences under the fields. Values are read as TOML and checked by
`maxent.config`, so that the command line and config files take the same and complain alike, in one line; only a list
may also stand without its brackets.
"""

import contextlib
import io
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from maxent.config import TrainConfig
from maxent.errors import ConfigError
from maxent.settings import ELSEWHERE, build, parse_value, suggestion

POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
"""What marks the fields that are words without a name."""


def read(
    cls: type, words: Sequence[str], command: str, default: Any = None, extra: Mapping[str, Any] | None = None
) -> Any:
    """An object of the class from the words that follow `maxent COMMAND`; what is absent is as in `default`.

    `extra` are values that were read already, by field.

    Raises:
        ConfigError: in one line, on anything that cannot be understood or is out of range.
        SystemExit: after help.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                cls,
                prog=f"maxent {command}",
                args=words,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff,) if default is None else (tyro.conf.UseAppendAction,),
                registry=_VALUES,
                return_unknown_args=True,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise ConfigError(_plain(command, complaint.getvalue())) from None
    if unknown:
        raise ConfigError(_unknown(command, unknown[0], parsed))
    return build(cls, vars(parsed) | dict(extra or {}), command)


def option(words: Sequence[str], name: str) -> str:
    """The last word that follows --name, empty without one."""
    found = ""
    for word, following in zip(words, [*words[1:], ""]):
        if word == f"--{name}":
            found = following
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def take_table(words: Sequence[str], table: str) -> tuple[list[str], dict[str, Any]]:
    """The words without --table.KEY VALUE and --table.KEY=VALUE, and these, whatever the keys are."""
    rest, taken, todo = list[str](), dict[str, Any](), iter(words)
    for word in todo:
        if not word.startswith(f"--{table}."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix(f"--{table}.").partition("=")
        following = value if equals else next(todo, None)
        if not key or following is None:
            raise ConfigError(f"{word} needs a value: --{table}.KEY VALUE")
        taken[key.replace("-", "_")] = parse_value(following)
    return rest, taken


def _unknown(command: str, word: str, parsed: Any) -> str:
    """The complaint about a word that no option took."""
    if not word.startswith("-"):
        return f"{command} does not expect {word!r}; see `maxent {command} --help`"
    table, dot, name = word.lstrip("-").partition("=")[0].replace("-", "_").rpartition(".")
    config = getattr(parsed, table, None) if dot else parsed
    if not is_dataclass(config):
        tables = [f.name for f in fields(parsed) if is_dataclass(getattr(parsed, f.name))]
        other = f": its algorithm is {tables[0]}, --{tables[0]}.KEY" if tables else f"; see `maxent {command} --help`"
        return f"{command} has no options --{table}.KEY{other}"
    start = f"--{table}." if dot else "--"
    for own in [] if dot else fields(parsed):
        settings = getattr(parsed, own.name)
        theirs = {f.name for f in fields(settings)} if is_dataclass(settings) else set[str]()
        for meant in (same for same in (name, *ELSEWHERE.get(name, ())) if same in theirs):
            return f"{command} has no option {word}: did you mean --{own.name}.{meant.replace('_', '-')}?"
    if command == "resume" and name in {f.name for f in fields(TrainConfig)}:
        return f"resume has no option {word}: a run keeps what it was begun with, all but its --steps"
    hints = typing.get_type_hints(type(config), include_extras=True)
    named = [f.name for f in fields(config) if POSITIONAL not in getattr(hints[f.name], "__metadata__", ())]
    known = ["--env.KEY" if own == "env_kwargs" else f"{start}{own}".replace("_", "-") for own in named]
    return f"{command} has no option {word}{suggestion(f'{start}{name}'.replace('_', '-'), known)}"


def _plain(command: str, complaint: str) -> str:
    """What tyro says in a box, in one line."""
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m|[─-╿]", " ", complaint).split())
    if found := re.search(r"Missing value for argument '([^']+)'", words):
        return f"{command} needs a value after {found[1]}"
    if found := re.search(r"Missing from [^:]*: (\S+)", words):
        return f"{command} needs {found[1]}; see `maxent {command} --help`"
    return f"{command}: {words.partition(' For full helptext')[0]}"


def _value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How an option's word becomes a value: as in a config file. Texts and lists of texts are left to tyro."""
    if info.type is str or typing.get_args(info.type)[:1] == (str,) or is_dataclass(info.type):
        return None
    many = typing.get_origin(info.type) is tuple
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=_kind(info.type),
        instance_from_str=lambda words: parse_value(_bracketed(words[0]) if many else words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [value if isinstance(value, str) else json.dumps(value)],
    )


def _bracketed(word: str) -> str:
    """A list, where the word holds several values and no brackets, which shells make hard to type."""
    return f"[{word}]" if "," in word and not word.startswith("[") else word


def _kind(hint: Any) -> str:
    """What stands for an option's value in the help."""
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "[INT, …]"
    names = {int: "INT", float: "FLOAT", bool: "true|false"}
    return names.get(hint) or "|".join(_kind(part) for part in typing.get_args(hint))


_VALUES = ConstructorRegistry()
_VALUES.primitive_rule(_value)
