"""What a run costs beside its updates: memory, a full replay, recompilation, the start of the command, the disk.

    python benchmarks/cost.py [memory] [replay] [start] [install]

On HalfCheetah-v5 with the default settings, each part in a process of its own:

  memory   the replay for a million transitions, and the process with it full and learning
  replay   steps/s with a full replay against a nearly empty one: two loops in one process, in blocks that alternate;
           and what was traced or compiled after the warm-up
  start    from `maxent train` to the first environment step and to the end of the first update, with an empty
           compilation cache and with the one that the first start left
  install  the disk that the library takes with all it needs, without its extras, in an environment without pip: with
           every module compiled ahead, as pip does it, and, with --no-compile, with those that a first run imports

The table goes to benchmarks/results/cost.json too, which keeps the parts that were not asked for.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import parts

HERE = Path(__file__).resolve().parent
ENV = "HalfCheetah-v5"
LEARNING_STARTS = 1000
WARM_UP = 250
"""Environment steps after the random ones, before anything is measured."""
REPORT = 250
"""Steps between two reports, so that what happens at one is warmed up and measured too."""
MEGABYTE = 1e6


class Timed(gymnasium.Wrapper):
    """The environment, which notes when it takes its first step, and the first one after the first update.

    That update is dispatched before step LEARNING_STARTS + 1, and the next action waits for it.
    """

    taken = 0

    def __init__(self, times: str) -> None:
        super().__init__(gymnasium.make(ENV))
        self._times = times

    def step(self, action: Any) -> Any:
        Timed.taken += 1
        if Timed.taken in (1, LEARNING_STARTS + 2):
            with open(self._times, "a", encoding="utf-8") as file:
                file.write(f"{time.time()}\n")
        return self.env.step(action)


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Bytes of the replay, and of the process before and after it was full."""
    import jax

    programs, make_loop = engine()
    loop = make_loop()
    run(loop, LEARNING_STARTS + WARM_UP)
    nearly_empty = resident()
    loop.ring = filled(loop.ring)
    run(loop, arguments.steps)
    rows = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(part)) for name, part in loop.ring._asdict().items()}
    return {
        "transitions": programs.config.buffer_size,
        "replay_megabytes": sum(leaf.nbytes for leaf in jax.tree.leaves(loop.ring)) / MEGABYTE,
        "replay_bytes": rows,
        "process_megabytes_nearly_empty": nearly_empty["VmRSS"],
        "process_megabytes_full": resident()["VmRSS"],
        "process_megabytes_peak": resident()["VmHWM"],
    }


def measure_replay(arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps/s of two loops in turn, and what was traced and compiled meanwhile."""
    import jax

    programs, make_loop = engine()
    loops = {"full": make_loop(), "nearly empty": make_loop()}
    for loop in loops.values():
        run(loop, LEARNING_STARTS + WARM_UP)
    loops["full"].ring = filled(loops["full"].ring)
    for loop in loops.values():
        run(loop, WARM_UP)
    traces, compiled = dict(programs.traces), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    table = []
    for number in range(arguments.rounds):
        order = list(loops) if number % 2 == 0 else list(reversed(loops))
        rates = {name: round(arguments.steps / run(loops[name], arguments.steps), 2) for name in order}
        table.append({name: rates[name] for name in loops})
        print(f"  round {number + 1}", table[-1], file=sys.stderr, flush=True)
    ratios = [row["full"] / row["nearly empty"] for row in table]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "steps_per_second": table,
        "transitions_nearly_empty": int(loops["nearly empty"].ring.written),
        "median_steps_per_second": {name: statistics.median(row[name] for row in table) for name in loops},
        "full_over_nearly_empty": {
            "median": round(quartiles[1], 4), "q1": round(quartiles[0], 4), "q3": round(quartiles[2], 4),
            "min": round(min(ratios), 4), "max": round(max(ratios), 4),
        },
        "traces_after_warm_up": sum(programs.traces.values()) - sum(traces.values()),
        "compilations_after_warm_up": len(compiled),
        "traces": dict(programs.traces),
    }  # fmt: skip


def measure_start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the command to the first step and update, of a first start and of later ones."""
    starts = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 + arguments.starts):
            times = Path(folder) / f"times-{number}"
            options = {
                "steps": LEARNING_STARTS + 10, "eval-episodes": 1, "out": f"{folder}/run-{number}", "env.times": times,
            }  # fmt: skip
            words = ["train", "cost:Timed", *(str(w) for name, value in options.items() for w in (f"--{name}", value))]
            entry = f"import sys; sys.path[:0] = {sys.path!r}; from maxent.__main__ import main; main()"
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
            started = time.time()
            command = [sys.executable, "-c", entry, *words]
            subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            step, update = (round(float(line) - started, 3) for line in times.read_text().splitlines())
            starts.append({"first_step": step, "first_update": update})
            print("  start", number + 1, starts[-1], file=sys.stderr, flush=True)
    later = {name: statistics.median(start[name] for start in starts[1:]) for name in starts[0]}
    return {"first_start": starts[0], "later_starts": starts[1:], "later_start": later}


def measure_install(arguments: argparse.Namespace) -> dict[str, Any]:
    """Disk blocks of two fresh environments, bytecode included, and of the largest packages of the first."""
    with tempfile.TemporaryDirectory() as ahead, tempfile.TemporaryDirectory() as used:
        install(ahead)
        install(used, "--no-compile")
        with tempfile.TemporaryDirectory() as runs:  # of a task that needs no extra
            steps = str(LEARNING_STARTS + 100)
            command = [f"{used}/bin/maxent", "train", "maxent/MultiGoal-v0", "--steps", steps, "--out", f"{runs}/run"]
            # Without what was set for this process: other places to import from, or that nothing is compiled.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            subprocess.run(command, env=environment, cwd=runs, check=True, stdout=subprocess.DEVNULL)
        (packages,) = Path(ahead).glob("lib/python*/site-packages")
        sizes = {path.name: disk_mebibytes(path) for path in packages.iterdir()}
        largest = sorted(sizes, key=lambda name: -sizes[name])[:8]
        return {
            "mebibytes": disk_mebibytes(Path(ahead)),
            "mebibytes_compiled_when_imported": disk_mebibytes(Path(used)),
            "largest": {name: round(sizes[name], 1) for name in largest},
        }


def install(folder: str, *options: str) -> None:
    """The library and what it needs, into a fresh environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", f"{folder}/bin/python", "install", "--quiet", *options]
    subprocess.run([*pip, str(HERE.parent)], check=True, stdout=subprocess.DEVNULL)


def disk_mebibytes(path: Path) -> float:
    """Of a file, or of a folder and all that is in it."""
    return sum(p.lstat().st_blocks * 512 for p in (path, *path.rglob("*"))) / 2**20


PARTS: dict[str, parts.Part] = {
    "memory": measure_memory,
    "replay": measure_replay,
    "start": measure_start,
    "install": measure_install,
}


def engine() -> tuple[Any, Callable[[], Any]]:
    """The compiled programs, and a function that makes loops which share them."""
    from maxent import registry
    from maxent.config import SACConfig
    from maxent.envs.host import HostEnvs
    from maxent.envs.make import Factory
    from maxent.loops.host import HostLoop
    from maxent.loops.programs import Programs

    factory = Factory(ENV)
    settings = SACConfig(learning_starts=LEARNING_STARTS)
    programs = Programs(registry.algorithm("sac"), settings, HostEnvs(factory, [0], 1).spec)
    return programs, lambda: HostLoop(programs, HostEnvs(factory, [0], 1), [0], {})


def run(loop: Any, steps: int) -> float:
    """The seconds of so many steps more."""
    started = time.perf_counter()
    for _ in loop.run(loop.step + steps, REPORT):
        pass
    return time.perf_counter() - started


def filled(rows: Any) -> Any:
    """The ring with every row written: those that are there, again and again, and the write position amid them."""
    import jax
    import jax.numpy as jnp

    from maxent.replay import ring

    capacity = ring.capacity(rows)
    source = jnp.arange(capacity) % rows.written
    repeat = jax.jit(lambda array: array[source], donate_argnums=0)
    rows = jax.tree.map(lambda array: repeat(array) if array.ndim else array, rows)
    return ring.cut(
        rows._replace(written=jnp.uint32(capacity + capacity // 2)), jnp.ones(rows.boundary.shape[1:], bool)
    )


def resident() -> dict[str, float]:
    """Megabytes of this process in memory, now (VmRSS) and at most so far (VmHWM), as Linux counts them."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) * 1024 / MEGABYTE for name in ("VmRSS", "VmHWM")}


def show(record: dict[str, Any]) -> None:
    """Print what was measured beside what is wanted."""
    lines: list[tuple[str, float, str, float]] = []
    if "memory" in record:
        memory = record["memory"]
        lines.append(("replay of a million transitions", memory["replay_megabytes"], "MB", 120))
        lines.append(("process with it full, at most", memory["process_megabytes_peak"], "MB", 1300))
    if "replay" in record:
        replay = record["replay"]
        change = 100 * (1 - replay["full_over_nearly_empty"]["median"])
        lines.append(("slower with a full replay, median", change, "%", 5))
        lines.append(("traces after the warm-up", replay["traces_after_warm_up"], "", 0))
        lines.append(("compilations after the warm-up", replay["compilations_after_warm_up"], "", 0))
    if "start" in record:
        later = record["start"]["later_start"]
        lines.append(("second start to the first step", later["first_step"], "s", 5))
        lines.append(("second start to the first update", later["first_update"], "s", float("inf")))
        first = record["start"]["first_start"]["first_step"]
        lines.append(("first start to the first step", first, "s", float("inf")))
    if "install" in record:
        ahead, used = (
            record["install"][name] * 2**20 / MEGABYTE for name in ("mebibytes", "mebibytes_compiled_when_imported")
        )
        lines.append(("disk, without extras, by pip", ahead, "MB", 750))
        lines.append(("the same, compiled when imported", used, "MB", 750))
    for name, value, unit, limit in lines:
        verdict = "" if limit == float("inf") else f"at most {limit:g}: {'yes' if value <= limit else 'NO'}"
        print(f"  {name:36}{value:9.2f} {unit:3} {verdict}".rstrip())


def main() -> None:
    """Measure the parts that the command line names, all by default."""
    options = {
        "rounds": (16, "pairs of blocks of the part replay"),
        "steps": (500, "environment steps in a block"),
        "starts": (3, "starts after the first"),
    }
    show(parts.measure(parts.arguments_of(__doc__, PARTS, HERE / "results" / "cost.json", options), PARTS))


if __name__ == "__main__":
    main()
