"""The run folder: what a run leaves behind, and all that is needed to continue or repeat it.

runs/<env>/<algorithm>/<name>/
  config.toml        every setting, resolved: tables [train], [env] and one named after the algorithm
  run.json           versions, machine, git revision, the exact commands
  progress.csv       a row a period and member
  evaluations.csv    a row an evaluation episode
  tensorboard/       the same under the names that Stable-Baselines3's users know
  checkpoints/       see maxent.run.checkpoint
  videos/
  curve.png
  fault.json         what went wrong, where training stopped itself or went back
"""

import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from maxent import registry
from maxent.config import TrainConfig
from maxent.errors import CheckpointError, ConfigError
from maxent.run import files
from maxent.settings import build, read_toml

CONFIG, RUN, PROGRESS, EVALUATIONS, CURVE = "config.toml", "run.json", "progress.csv", "evaluations.csv", "curve.png"
CHECKPOINTS, VIDEOS, TENSORBOARD = "checkpoints", "videos", "tensorboard"
LOCK, FAULT = "lock", "fault.json"
PACKAGES = (
    "maxent-rl", "jax", "jaxlib", "numpy", "gymnasium", "safetensors", "mujoco", "box2d", "pygame", "ale-py",
)  # fmt: skip


def choose(config: TrainConfig, out: str = "", root: str = "runs", otherwise: str = "") -> Path:
    """The folder of a new run: `out`, which must be empty or absent, else the next free name under `root`.

    `otherwise` is what else can be done about a folder that is not empty.

    Raises:
        ConfigError: where `out` holds anything.
    """
    if out:
        path = Path(out)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            otherwise = otherwise or f"continue its run with `maxent resume {out}`"
            raise ConfigError(f"the folder {out} is not empty: choose another, or {otherwise}")
        _refuse_unwritable(path)
        return path
    env = config.env.replace("/", "-").replace(":", "-")
    name = f"seed-{config.seed}" if config.seeds == 1 else f"seeds-{config.seed}-{config.seed + config.seeds - 1}"
    if config.sweep:
        name = "-".join(["sweep", *(text.partition("=")[0].strip() for text in config.sweep), name])
    parent = Path(root) / env / config.algo
    _refuse_unwritable(parent)
    taken = {p.name for p in parent.glob(f"{name}*")}
    return parent / next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _refuse_unwritable(path: Path) -> None:
    """A ConfigError where a folder cannot be made, before anything is done for what goes into it."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written to" if there.is_dir() else "is no folder"
        raise ConfigError(f"the run folder {path} cannot be made, since {there} {why}: choose another with --out")


def create(path: Path, config: TrainConfig, settings: Any, env_kwargs: Mapping[str, Any]) -> None:
    """Make the folder with its config and its record of origin.

    Raises:
        ConfigError: where another run has taken the folder meanwhile.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        (path / CONFIG).touch(exist_ok=False)
    except FileExistsError:
        raise ConfigError(f"another run has just taken the folder {path}: start again, or name another") from None
    try:
        write_config(path, config, settings, env_kwargs)
        record_command(path)
    except OSError:
        (path / CONFIG).unlink(missing_ok=True)
        raise


def write_config(path: Path, config: TrainConfig, settings: Any, env_kwargs: Mapping[str, Any]) -> None:
    """Write config.toml, or replace it at once by another."""
    tables = {"train": asdict(config), "env": dict(env_kwargs), config.algo: asdict(settings)}
    files.replace(path / CONFIG, tomli_w.dumps(tables).encode())


def record_command(path: Path) -> None:
    """Add this process to run.json: the first started the run, the later ones continued it.

    Raises:
        CheckpointError: where run.json is damaged.
    """
    record: dict[str, Any] = {"processes": []}
    if (path / RUN).exists():
        record = files.read_json(path / RUN)
        if not files.fits(record, {"processes": [dict]}):
            raise CheckpointError(f"{path / RUN} is damaged: it has no list of processes; repair it, or move it away")
    record["processes"].append(
        {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "machine": machine(),
            "git": git_revision(),
        }
    )
    files.replace(path / RUN, json.dumps(record, indent=1).encode())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a run to this process while it trains; a process that dies lets go of it.

    Raises:
        ConfigError: where another one has it, or nothing can be written there.
    """
    try:
        file = open(path / LOCK, "a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write in {path} ({error.strerror}): it cannot be trained in") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is training in {path}: wait for it, or stop it first") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be locked ({error.strerror}): train on another file system") from None
        yield


def refuse_trained(path: Path) -> None:
    """A ConfigError where another process trains in the folder: it deletes checkpoints as it goes."""
    if (path / LOCK).exists():
        with locked(path):
            pass


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A folder to write a run into, which at the end takes the place of all that is there; where nothing is, `path`.

    Raises:
        ConfigError: where anything else is there, or a process trains in it.
    """
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    if old.exists() and not path.exists():
        old.rename(path)  # a process was killed between the two renames below
    if not path.is_dir() or not any(path.iterdir()):
        yield path
        return
    read(path)
    with locked(path):
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield new
            path.rename(old)
            try:
                new.rename(path)
            except BaseException:
                old.rename(path)
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read(path: str | Path) -> tuple[TrainConfig, Any, dict[str, Any]]:
    """The run's own settings, the algorithm's and the environment's arguments.

    Raises:
        ConfigError: where the folder is no run.
    """
    file = Path(path) / CONFIG
    if not file.is_file():
        raise ConfigError(f"{path} is no run: it has no {CONFIG}; `maxent list runs` shows those there are")
    return from_tables(read_toml(file), str(file))


def refuse_own_code(path: str | Path, env: str) -> None:
    """A ConfigError where the environment that a run names would be imported from the run's own folder."""
    module, colon, _ = env.partition(":")
    for place in (*sys.path, os.getcwd()) if colon else ():
        code = Path(place, *module.split(".")).resolve()
        if code.is_relative_to(Path(path).resolve()) and (code.is_dir() or any(code.parent.glob(f"{code.name}.*"))):
            raise ConfigError(f"{path} brings the code of its environment {env} with it: no file of a run is run")


def from_tables(tables: Mapping[str, Any], where: str) -> tuple[TrainConfig, Any, dict[str, Any]]:
    """The settings in the tables of a config file, checked; see `read`."""
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where} has {name} outside a table: expected are [train], [env] and the algorithm's")
    train = build(TrainConfig, tables.get("train", {}), f"{where} [train]")
    entry = registry.entry(train.algo)
    unknown = [name for name in tables if name not in ("train", "env", train.algo)]
    if unknown:
        raise ConfigError(f"{where} has the table [{unknown[0]}]: expected are [train], [env] and [{train.algo}]")
    settings = build(entry.config, tables.get(train.algo, {}), f"{where} [{train.algo}]")
    return train, settings, dict(tables.get("env", {}))


def versions() -> dict[str, str]:
    """The installed versions of everything that shapes a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, system, JAX's devices, and what computes perceptrons with ReLU: it decides their last bits."""
    import jax

    from maxent import native

    ours = jax.default_backend() == "cpu" and native.available()
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        processor = about.get("model name", processor)
        if {"cpu family", "model"} <= about.keys():  # a virtual machine's processor may have the name of several
            processor += f", family {about['cpu family']} model {about['model']}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor,
        "cores": cores,
        "system": platform.platform(),
        "devices": [d.device_kind for d in jax.devices()],
        "perceptrons": native.SOURCE.name if ours else "XLA",
    }


def git_revision() -> str:
    """The revision of the working directory's repository, marked where files differ from it; empty without one."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
