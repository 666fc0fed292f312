"""What an accelerator makes of it: one seed, ten seeds, and thousands of environments on the device.

    python benchmarks/accelerator.py [--device gpu] [--small] [--env brax/halfcheetah]

one seed     HalfCheetah-v5 on the host, SAC's usual setting: environment steps a second (aimed at: 3,000)
ten seeds    the same in one process: updates of a seed a second (20,000), and the time of ten over that of one (1.5)
device       environments on the device, 4,096 of them: environment steps a second, at --utd updates a step

Each is warmed up past its random steps and past compilation, and measured in blocks in turn. --small makes everything
so little that a CPU shows in a minute that the script runs; its figures say nothing and are not kept.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax

from maxent.config import SACConfig, TrainConfig
from maxent.envs.make import Factory
from maxent.run import folder
from maxent.run.driver import Driver

RESULT = Path(__file__).parent / "results" / "accelerator.json"
AIMS = {"one seed, steps/s": 3_000, "ten seeds, updates/s": 20_000, "ten seeds over one": 1.5}


def driver_of(env: str, settings: SACConfig, device: str, seeds: int = 1, envs: int = 1) -> Driver:
    """A run without a folder, past its random steps and past compilation."""
    quiet = {"log_every": 10**9, "eval_every": 0, "checkpoint_every": 0}
    driver = Driver(TrainConfig(env, seeds=seeds, envs=envs, device=device, **quiet), settings, Factory(env))
    driver.learn(settings.learning_starts + 4 * max(64, envs))
    return driver


def seconds(driver: Driver, steps: int) -> float:
    """Of so many steps of each member."""
    started = time.perf_counter()
    driver.learn(driver.loop.step + steps)
    jax.block_until_ready(driver.loop.learned)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, and keep what was measured in full size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--env", default="brax/halfcheetah", help="what runs on the device")
    parser.add_argument("--utd", type=float, default=8 / 4096, help="updates for each of its steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    small = arguments.small
    steps, many = (128, 64) if small else (20_000, 4_096)
    sizes = (32, 32) if small else (256, 256)
    host = SACConfig(hidden_sizes=sizes, buffer_size=10_000 if small else 1_000_000, learning_starts=256)
    wide = SACConfig(hidden_sizes=sizes, buffer_size=64 * many, learning_starts=8 * many, utd=arguments.utd)
    runs = {
        "one": (driver_of("HalfCheetah-v5", host, arguments.device), steps),
        "ten": (driver_of("HalfCheetah-v5", host, arguments.device, seeds=10), steps),
        "device": (driver_of(arguments.env, wide, arguments.device, envs=many), 100 * many),
    }
    rounds = [{name: seconds(*run) for name, run in runs.items()} for _ in range(arguments.rounds)]
    found: dict[str, Any] = {
        "one seed, steps/s": statistics.median(steps / r["one"] for r in rounds),
        "ten seeds, updates/s": statistics.median(10 * steps / r["ten"] for r in rounds),
        "ten seeds over one": statistics.median(r["ten"] / r["one"] for r in rounds),
        f"{arguments.env}, steps/s": statistics.median(100 * many / r["device"] for r in rounds),
    }
    for name, value in found.items():
        print(f"{name:32}{value:12,.2f}" + (f"   aimed at: {AIMS[name]:,}" if name in AIMS else ""))
    if small:
        return
    record = {
        "command": "python benchmarks/accelerator.py",
        "device": str(jax.devices()[0].device_kind),
        "versions": folder.versions(),
        "machine": folder.machine(),
        "git": folder.git_revision(),
        "utd": arguments.utd,
        "environments": many,
        "found": found,
        "rounds": rounds,
    }
    RESULT.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
