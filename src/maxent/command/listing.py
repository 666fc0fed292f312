"""What `maxent list` prints: environments, algorithms, runs."""

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from maxent import registry
from maxent.errors import ConfigError, MaxentError
from maxent.run import folder
from maxent.run.loggers import read_csv

NEEDED = {"box2d": ("Box2D", "box2d"), "mujoco": ("mujoco", "mujoco"), "classic_control": ("pygame", "classic")}
"""A word in an environment's entry point → the package it needs, and the extra of this library that brings it."""


def lines(what: str, root: Path) -> Iterator[str]:
    """A line an entry."""
    return {"envs": environments, "algorithms": algorithms, "runs": lambda: runs(root)}[what]()


def environments() -> Iterator[str]:
    """The newest version of every environment that Gymnasium knows, then those of the device; what one lacks."""
    import gymnasium

    from maxent.envs import device, tasks

    tasks.register()
    newest: dict[tuple[str | None, str], gymnasium.envs.registration.EnvSpec] = {}
    for spec in gymnasium.registry.values():
        key = (spec.namespace, spec.name)
        if key not in newest or (spec.version or 0) > (newest[key].version or 0):
            newest[key] = spec
    for spec in sorted(newest.values(), key=lambda s: s.id):
        missing = [
            extra for word, (package, extra) in NEEDED.items()
            if word in str(spec.entry_point) and importlib.util.find_spec(package) is None
        ]  # fmt: skip
        yield f'{spec.id:32} needs: pip install "maxent-rl[{missing[0]}]"' if missing else spec.id
    for suite, module in device.SUITES.items():
        try:
            yield from (f"{suite}/{name}" for name in importlib.import_module(module).names())
        except ConfigError as error:
            yield f"{suite + '/…':32} needs: {str(error).rpartition('install it with: ')[2]}"


def algorithms() -> Iterator[str]:
    """Every algorithm and what it is."""
    width = max(map(len, registry.ALGORITHMS))
    for name, entry in registry.ALGORITHMS.items():
        yield f"{name:{width}} {(entry.config.__doc__ or '').splitlines()[0]}"


def runs(root: Path) -> Iterator[str]:
    """Every run under a folder: where it is, how far it got, and the mean return of its last evaluation."""
    found = sorted(file.parent for file in root.rglob(folder.CONFIG))
    if not found:
        raise ConfigError(f"there are no runs in {root}: give their folder with --root")
    width = max(len(str(path)) for path in found)
    for path in found:
        try:
            config, _, _ = folder.read(path)
            progress, evaluations = read_csv(path / folder.PROGRESS), read_csv(path / folder.EVALUATIONS, "return")
        except MaxentError as error:
            yield f"{path!s:{width}}  {error}"
            continue
        step = int(progress[-1]["step"]) if progress else 0
        last = [float(row["return"]) for row in evaluations if row["step"] == evaluations[-1]["step"] and row["return"]]
        result = f"return {sum(last) / len(last):10.1f}" if last else ""
        yield f"{path!s:{width}}  {step:>11,}/{max(step, config.steps):,} steps  {result}".rstrip()
