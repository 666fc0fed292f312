"""What the command prints of a training, and its exit codes."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from maxent.command import startup
from maxent.errors import Terminated, TrainingFault
from maxent.run import checkpoint, folder, policy, video
from maxent.run.driver import Driver
from maxent.run.loggers import read_csv
from maxent.run.progress import ProgressBar
from maxent.study import curves

TERMINATED, FAULT = 143, 3
"""The exit codes after a SIGTERM, as shells count it, and where training has gone wrong."""


def train(run: Driver, total: int) -> int:
    """Train to the step `total` and say what came of it; the exit code of the command."""
    path = run.path
    if path is None:
        raise ValueError("a training on the console needs a run folder")
    run.warn = warn
    print(f"run     {path}", flush=True)
    startup.ends()
    try:
        with ProgressBar(total, run.loop.step) as bar:
            run.learn(total, [bar])
    except TrainingFault as fault:
        print(f"maxent: fault: {fault}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt as interrupt:
        with suppress(KeyboardInterrupt):  # what a second signal found half written; the process does not end before
            run.keeper.wait()
        step = checkpoint.last_step(path / folder.CHECKPOINTS)
        saved = "nothing is saved yet" if step is None else f"saved at step {step:,}"
        left = (step or 0) < total or run.history.evaluation_due
        again = f"continue with: maxent resume {shlex.quote(str(path))}" if left else "it was the last one"
        print(f"maxent: interrupted, {saved}; {again}", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, Terminated) else startup.INTERRUPTED
    for line in summaries(path):
        print(f"result  {line}")
    curves.draw([path], path / folder.CURVE)
    print(f"curve   {path / folder.CURVE}")
    if run.config.video:
        trained = policy.load(path)
        out = video.default_path(path, trained)
        video.record(trained, out)
        print(f"video   {out}")
    return 0


def warn(message: str) -> None:
    """Say something that should be known and stops nothing, on the standard error."""
    print(f"maxent: warning: {message}", file=sys.stderr, flush=True)


def summaries(run: Path) -> list[str]:
    """The last evaluation of a run in a line, and of a sweep in a line for each setting; none where there was none."""
    rows = read_csv(run / folder.EVALUATIONS, "return")
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    settings = dict.fromkeys(row.get("setting", "") for row in last)
    return [_summary([row for row in last if row.get("setting", "") == setting], setting) for setting in settings]


def _summary(rows: Sequence[Mapping[str, str]], setting: str) -> str:
    returns, members = [float(row["return"]) for row in rows], len({row["member"] for row in rows})
    played = len(rows) // members
    episodes = f"{played} episode{'s' * (played != 1)}" + (f" of each of {members} members" if members > 1 else "")
    with_it = f" with {setting}" if setting else ""
    mean = f"return {np.mean(returns):.1f} ± {np.std(returns):.1f} in {episodes}"
    return f"{mean} after {int(rows[0]['step']):,} steps{with_it}"
