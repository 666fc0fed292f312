"""How cost grows with members, environments, network width and replay; and what five seeds in one process cost.

    python benchmarks/growth.py [members] [environments] [width] [replay] [seeds] [memory] [--rounds 5]

Each axis is measured at several sizes of one thing, everything else equal, in turn: all sizes once a round, and the
median of the rounds counts. benchmarks/results/growth-MACHINE.json has every round; `benchmarks/report.py` draws
the curves.

members        jax/Pendulum-v1, 64 units: seconds an iteration, in which each member steps and learns once
environments   the same with one member: seconds an iteration, in which all environments step and one update is made
width          seconds an update, of two hidden layers
replay         seconds an update and a new row, with a full replay of so many transitions
seeds          one seed beside five, in processes of their own: HalfCheetah-v5 with 256 units, Pendulum-v1 with 64, and
               the same on the device, where each of the five has a part of the CPU
memory         processes of their own, one seed beside five, replays full of a million HalfCheetah transitions
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parts
from threads import Case, Running, in_turn

from maxent.config import SACConfig, TrainConfig
from maxent.envs.make import Factory
from maxent.replay import ring
from maxent.run import folder
from maxent.run.driver import Driver

PENDULUM, CHEETAH = "jax/Pendulum-v1", "HalfCheetah-v5"
SMALL = SACConfig(hidden_sizes=(64, 64))
SECONDS = 1.0
"""About how long a block takes."""
AXES = {
    "members": (1, 2, 4, 8, 16, 32),
    "environments": (1, 16, 256, 1024, 4096),
    "width": (64, 128, 256, 512, 1024),
    "replay": (10_000, 100_000, 1_000_000, 10_000_000),
}
SEEDS = {
    "HalfCheetah-v5, 256 units": (CHEETAH, 256, "auto"),
    "Pendulum-v1, 64 units": ("Pendulum-v1", 64, "auto"),
    "jax/Pendulum-v1, 64 units, --device cpu:5": (PENDULUM, 64, "cpu:5"),
}

Job = Callable[[int], None]
"""Runs so many units of work and waits for them."""


def driver_of(env: str, settings: SACConfig, seeds: int = 1, envs: int = 1) -> Driver:
    """A run without a folder, past its random steps and past compilation."""
    quiet = {"log_every": 10**9, "eval_every": 0, "checkpoint_every": 0}
    driver = Driver(TrainConfig(env, seeds=seeds, envs=envs, **quiet), settings, Factory(env))
    driver.learn(settings.learning_starts + 2 * max(64, envs))
    return driver


def stepping(env: str, settings: SACConfig, seeds: int = 1, envs: int = 1) -> Job:
    """Whole iterations of a loop."""
    driver = driver_of(env, settings, seeds, envs)

    def run(count: int) -> None:
        driver.learn(driver.loop.step + count * envs)
        jax.block_until_ready(driver.loop.learned)

    return run


def learning(settings: SACConfig, full: bool = False) -> Job:
    """Updates one by one, each after a new row; of a full replay where that is asked for."""
    loop = driver_of(PENDULUM, settings).loop
    programs, row = loop.programs, jax.tree.map(lambda x: np.asarray(x), _row(loop))
    if full:  # what the rows hold does not matter here
        loop.ring = loop.ring._replace(written=jnp.uint32(ring.capacity(loop.ring) + 1))

    def run(count: int) -> None:
        for _ in range(count):
            loop.learned = programs.learn(loop.learned, loop.ring, loop.roots, np.uint32(loop.updates), count=1)
            loop.ring = programs.add(loop.ring, row)
            loop.updates += 1
        jax.block_until_ready((loop.learned, loop.ring))

    return run


def _row(loop: Any) -> Any:
    from maxent.envs.device import worlds

    return worlds.first_row(loop.env, loop.world)


def job(axis: str, size: int) -> Job:
    """The work of one size of an axis."""
    if axis == "members":
        return stepping(PENDULUM, SMALL, seeds=size)
    if axis == "environments":
        return stepping(PENDULUM, replace(SMALL, utd=1 / size, buffer_size=max(100_000, 40 * size)), envs=size)
    if axis == "width":
        return learning(replace(SMALL, hidden_sizes=(size, size), buffer_size=10_000))
    return learning(replace(SMALL, buffer_size=size), full=True)


def rounds_of(jobs: dict[str, Job], rounds: int) -> dict[str, list[float]]:
    """Seconds a unit of work, of every job in every round."""
    counts = {}
    for name, run in jobs.items():
        run(4)
        started = time.perf_counter()
        run(8)
        counts[name] = max(8, round(8 * SECONDS / (time.perf_counter() - started)))
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, run in jobs.items():
            started = time.perf_counter()
            run(counts[name])
            seconds[name].append((time.perf_counter() - started) / counts[name])
    return seconds


def grown(axis: str, rounds: int) -> dict[str, Any]:
    """The medians of an axis, and the slope of their logarithms between its last two sizes and over all."""
    sizes = AXES[axis]
    seconds = rounds_of({str(size): job(axis, size) for size in sizes}, rounds)
    medians = [statistics.median(seconds[str(size)]) for size in sizes]
    logs, costs = np.log(sizes), np.log(medians)
    return {
        "sizes": sizes,
        "seconds": [[round(x, 7) for x in seconds[str(size)]] for size in sizes],
        "medians": [round(x, 7) for x in medians],
        "slope": round(float(np.polyfit(logs, costs, 1)[0]), 3),
        "last_slope": round(float((costs[-1] - costs[-2]) / (logs[-1] - logs[-2])), 3),
    }


def five_seeds(rounds: int) -> dict[str, Any]:
    """Seconds an iteration of five seeds over those of one, of every setting, each in a process of its own."""
    found = {}
    for name, (env, hidden, device) in SEEDS.items():
        cases = Case(env, "sac", hidden), Case(env, "sac", hidden, seeds=5, device=device)
        running = [Running(case, SECONDS) for case in cases]
        for process in running:
            process.answer()
        rows = in_turn(running, rounds)
        ratios = [one / five for one, five in rows]
        found[name] = {
            "steps_per_second": rows, "ratios": [round(r, 3) for r in ratios], "median": statistics.median(ratios),
        }  # fmt: skip
    return found


def memory(seeds: int) -> None:
    """Print the peak megabytes of a process whose members' replays are full, and those of the replays."""
    settings = SACConfig(hidden_sizes=(256, 256), buffer_size=1_000_000)
    loop = driver_of(CHEETAH, settings, seeds).loop
    rows = loop.ring
    touched = jax.jit(lambda rows: jax.tree.map(lambda x: x + x, rows), donate_argnums=0)(rows)
    jax.block_until_ready(touched)
    replay = sum(x.nbytes for x in jax.tree.leaves(touched)) / 1e6
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "replays": replay}))


def five_seeds_memory() -> dict[str, Any]:
    """The peak of five seeds over that of one seed's process without its replay and five replays."""
    found = {}
    for seeds in (1, 5):
        words = [sys.executable, __file__, "--memory-of", str(seeds)]
        found[seeds] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    process = found[1]["peak"] - found[1]["replays"]
    ratio = found[5]["peak"] / (process + found[5]["replays"])
    return {"one": found[1], "five": found[5], "ratio": round(ratio, 3)}


def main() -> None:
    """Measure what the command line names, everything by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*AXES, "seeds", "memory"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory(arguments.memory_of)
        return
    chosen = arguments.names or names
    if unknown := set(chosen) - set(names):
        parser.error(f"there is no {unknown.pop()!r}: choose from {', '.join(names)}")
    path = parts.record_of("growth", folder.machine()["processor"])
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in chosen:
        origin = {
            "command": f"python benchmarks/growth.py {name} --rounds {arguments.rounds}",
            "versions": folder.versions(),
            "machine": folder.machine(),
            "git": folder.git_revision(),
        }
        if name in AXES:
            found = grown(name, arguments.rounds)
        else:
            found = five_seeds(arguments.rounds) if name == "seeds" else five_seeds_memory()
        record[name] = origin | found
        print(name, {k: v for k, v in found.items() if k not in ("seconds", "versions")}, flush=True)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
