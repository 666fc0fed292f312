"""Whether a CPU learns sooner on one of JAX's threads or on all: whole-loop steps, for networks of several widths.

    python benchmarks/threads.py [--rounds 8] [--seconds 1]

Every case runs in two processes at once, one with each number of threads, and they are asked for blocks in turn while
the other waits. What counts is the ratio of two neighbouring blocks: its geometric mean over the rounds, and its
standard error. maxent.devices.SHARED, the number of multiplications up to which one thread is taken, is from here. It
is for networks that XLA multiplies, so maxent.native is given no compiler.
The table goes to benchmarks/results/threads.json too.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

RESULT = Path(__file__).parent / "results" / "threads.json"


class Case(NamedTuple):
    """A run without a folder."""

    env: str
    algo: str
    width: int
    """Units of each of two hidden layers."""
    seeds: int = 1
    device: str = "auto"


CASES = [
    *(Case("Pendulum-v1", "sac", width) for width in (64, 128, 192, 256)),
    *(Case("HalfCheetah-v5", "sac", width) for width in (64, 128, 192, 256)),
    *(Case("Pendulum-v1", "sac", 64, seeds) for seeds in (2, 4, 5, 16)),
    Case("jax/Pendulum-v1", "sac", 64),
    Case("CartPole-v1", "sac_discrete", 64),
    Case("HalfCheetah-v5", "td3", 128),
    Case("HalfCheetah-v5", "ppo", 64),
    Case("Pendulum-v1", "sql", 64),
]


def work(case: Case, seconds: float) -> None:
    """Warm up, and then answer every line with the steps a second of a block."""
    import jax

    from maxent import devices, registry
    from maxent.config import TrainConfig
    from maxent.envs.make import Factory
    from maxent.run.driver import Driver

    config, replays = TrainConfig(case.env, case.algo, seeds=case.seeds, device=case.device), case.algo != "ppo"
    settings = registry.entry(case.algo).config(
        hidden_sizes=(case.width, case.width), **({"learning_starts": 200} if replays else {})
    )
    driver = Driver(config, settings, Factory(case.env))

    def block(steps: int) -> float:
        started = time.perf_counter()
        driver.learn(driver.loop.step + steps)
        jax.block_until_ready(driver.loop.learned)
        return time.perf_counter() - started

    unit = 64 if replays else settings.rollout_length
    block(8 * unit)
    steps = max(1, round(seconds / block(unit))) * unit
    print(devices.multiplications(config, settings, case.seeds), flush=True)
    for _ in sys.stdin:
        print(steps / block(steps), flush=True)


class Running:
    """A case in a process of its own, on so many of JAX's threads, or on as many as the library takes."""

    def __init__(self, case: Case, seconds: float, threads: int | None = None) -> None:
        command = [sys.executable, __file__, "--worker", json.dumps(case), "--seconds", str(seconds)]
        wished = {} if threads is None else {"PJRT_NPROC": str(threads), "CC": ""}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | wished | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip

    def answer(self) -> float:
        """The multiplications of the case's largest product at first, and then the steps a second of each block."""
        return float(self._process.stdout.readline())  # type: ignore[union-attr]

    def block(self) -> float:
        """The steps a second of one more block."""
        self._process.stdin.write("\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def in_turn(running: list[Running], rounds: int) -> list[list[float]]:
    """The steps a second of each, in every round; every other round goes the other way."""
    rows = []
    for number in range(rounds):
        turns = range(len(running)) if number % 2 else reversed(range(len(running)))
        rates = {turn: round(running[turn].block(), 2) for turn in turns}
        rows.append([rates[turn] for turn in range(len(running))])
    for process in running:
        process.close()
    return rows


def measure(case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    """The rates of both processes in every round, and the ratio."""
    running = [Running(case, seconds, threads) for threads in (1, len(os.sched_getaffinity(0)))]
    multiplications, _ = [int(process.answer()) for process in running]
    rows = in_turn(running, rounds)
    logs = [math.log(one / every) for one, every in rows]
    return case._asdict() | {
        "multiplications": multiplications,
        "one_thread_over_all": round(math.exp(statistics.mean(logs)), 3),
        "standard_error": round(statistics.stdev(logs) / math.sqrt(rounds), 3),
        "steps_per_second": rows,
    }


def main() -> None:
    """Measure every case and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a block takes")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(Case(*json.loads(arguments.worker)), arguments.seconds)
        return

    from maxent.run import folder

    record: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]), "versions": folder.versions(), "machine": folder.machine(),
        "git": folder.git_revision(), "load_before": [round(load, 2) for load in os.getloadavg()], "cases": [],
    }  # fmt: skip
    for case in CASES:
        record["cases"].append(entry := measure(case, arguments.rounds, arguments.seconds))
        print({name: value for name, value in entry.items() if name != "steps_per_second"}, flush=True)
    RESULT.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
