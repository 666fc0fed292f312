"""What guards and checkpoints cost a training: pairs of blocks in one process, one with and one without, in turn.

    python benchmarks/overhead.py [guards] [checkpoint]

All on HalfCheetah-v5 with SAC's default settings and a full replay of a million transitions:

  guards       everything that looks for numbers that are not finite, and the comparisons at each report, left out in
               one block of each pair; the mean logarithm of the seconds with them over those without. A machine that
               others use too changes its speed within seconds, so these blocks are SHORTER times as short and as many,
               and each ends in a report: forty times as many, and so as many guards, as by default
  checkpoint   a block with one checkpoint, begun at its first report and waited for at its end, against one without;
               the seconds that it costs over the seconds that the 50,000 steps between two checkpoints take. Before
               each, the replay's position moves on by as many rows as it does in that time, so that as much is written

Each is the mean over the pairs with a bootstrap bound: what it costs is below that with 95 % confidence. The table goes
to benchmarks/results/overhead.json too, which keeps the parts that were not asked for.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import parts
from cost import ENV, LEARNING_STARTS, REPORT, WARM_UP, filled

HERE = Path(__file__).resolve().parent
AIMS = {"guards": 0.01, "checkpoint": 0.02}
RESAMPLES = 10_000
SHORTER = 40
"""Times that the guards' blocks are shorter, and more."""


def begin(folder: str, report: int = REPORT) -> Any:
    """A driver whose replay is full and whose programs are compiled, with a report every so many steps."""
    from maxent.config import SACConfig, TrainConfig
    from maxent.run import driver

    config = TrainConfig(ENV, steps=10**6, log_every=report, eval_every=0, checkpoint_every=0)
    run = driver.start(config, SACConfig(learning_starts=LEARNING_STARTS), {}, f"{folder}/run")
    run.warn = refuse
    run.learn(LEARNING_STARTS + WARM_UP)
    run.loop.ring = filled(run.loop.ring)
    train(run, WARM_UP)
    return run


def refuse(message: str) -> None:
    """What a run warns of, such as a checkpoint that cannot be written, would spoil the measurement."""
    raise RuntimeError(message)


def train(run: Any, steps: int, at_first_report: Callable[[], None] = lambda: None) -> float:
    """The seconds of so many steps more, reports and guards included; the run's files are left alone."""
    pending = [at_first_report]

    def report(_: Any) -> None:
        if pending:
            pending.pop()()

    started = time.perf_counter()
    run._learn(run.loop.step + steps, [report], [])
    run.keeper.wait()
    return time.perf_counter() - started


def measure_guards(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of blocks with and without guards."""
    steps, rounds = arguments.steps // SHORTER, arguments.rounds * SHORTER
    with tempfile.TemporaryDirectory() as folder:
        run = begin(folder, steps)
        run.path = None  # no evaluation and no checkpoint
        finite = np.ones(1, bool)

        def without() -> float:
            with ExitStack() as patches:
                patches.enter_context(mock.patch.object(np, "isfinite", lambda *_, **__: np.True_))
                patches.enter_context(mock.patch.object(run.programs, "finite", lambda state: finite))
                patches.enter_context(mock.patch.object(run, "_refuse_faults", lambda *_: None))
                return train(run, steps)

        pairs = alternate(rounds, lambda: train(run, steps), without)
    cost = [math.log(with_ / without_) for with_, without_ in pairs]  # of equal blocks, a ratio's mean is above 1
    return {"steps": steps, "seconds": pairs, "cost": bounded(cost)}


def measure_checkpoint(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of blocks with and without a checkpoint, and what these are of the time between two."""
    import jax.numpy as jnp

    with tempfile.TemporaryDirectory() as folder:
        run = begin(folder)
        every = type(run.config)(ENV).checkpoint_every
        run.keeper.write_meanwhile("step")
        run.keeper.wait()
        path, run.path = run.path, None
        sizes = []

        def with_checkpoint() -> float:
            run.loop.ring = run.loop.ring._replace(written=jnp.uint32(int(run.loop.ring.written) + every))
            before = {p.name for p in path.rglob("rows-*")}
            seconds = train(run, arguments.steps, lambda: run.keeper.write_meanwhile("step"))
            sizes.append(sum(p.stat().st_size for p in path.rglob("rows-*") if p.name not in before))
            return seconds

        pairs = alternate(arguments.rounds, with_checkpoint, lambda: train(run, arguments.steps))
    between = every / arguments.steps * statistics.mean(without for _, without in pairs)
    extra = [with_ - without for with_, without in pairs]
    return {
        "steps": arguments.steps,
        "seconds": pairs,
        "replay_bytes_written": sizes,
        "seconds_between_checkpoints": round(between, 2),
        "seconds_a_checkpoint": round(statistics.mean(extra), 4),
        "cost": bounded([seconds / between for seconds in extra]),
    }


def alternate(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> list[tuple[float, float]]:
    """Pairs of their seconds, in turn the one and the other first."""
    pairs = []
    for number in range(rounds):
        first, second = (one, other) if number % 2 == 0 else (other, one)
        seconds = first(), second()
        pairs.append(seconds if number % 2 == 0 else seconds[::-1])
        print(f"  pair {number + 1}", [round(x, 3) for x in pairs[-1]], file=sys.stderr, flush=True)
    return pairs


def bounded(costs: list[float]) -> dict[str, float]:
    """The mean, and the bound below which it lies with 95 % confidence, by the bootstrap."""
    draws = np.random.default_rng(0).choice(costs, (RESAMPLES, len(costs))).mean(1)
    return {
        "mean": round(float(np.mean(costs)), 5),
        "median": round(float(np.median(costs)), 5),
        "upper_95": round(float(np.quantile(draws, 0.95)), 5),
    }


PARTS: dict[str, parts.Part] = {
    "guards": measure_guards,
    "checkpoint": measure_checkpoint,
}


def main() -> None:
    """Measure the parts that the command line names, all by default."""
    options = {"rounds": (32, "pairs of blocks"), "steps": (1000, "environment steps in a block")}
    arguments = parts.arguments_of(__doc__, PARTS, HERE / "results" / "overhead.json", options)
    record = parts.measure(arguments, PARTS)
    for name in arguments.parts:
        cost, aim = record[name]["cost"], AIMS[name]
        verdict = "yes" if cost["upper_95"] <= aim else "NO"
        print(f"  {name:12} mean {cost['mean']:8.3%}  at most {cost['upper_95']:.3%}  (aim {aim:.0%}: {verdict})")


if __name__ == "__main__":
    main()
