"""What a run survives: killed at random instants and resumed, it must end with the bits of the run that never was.

    python benchmarks/chaos.py [CASE …] --kills 100

Each case trains once without disturbance. Then the same command runs again and again into new folders; every process is
killed with SIGKILL after a random time, checkpoint writing included, and resumed, until the run ends. The last one
(learned state, replay, actor's memory, running episodes, counters) and the CSV files, but for their wall-clock columns,
are compared with the undisturbed run's. A kill before the first checkpoint is no test of one and does not count.
Results go to benchmarks/results/chaos.json, which keeps the cases that were not asked for.
"""

import argparse
import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from maxent.run import folder

RESULTS = Path(__file__).parent / "results"
SMALL = ["hidden-sizes [32,32]", "batch-size 32", "learning-starts 200"]
CASES = {
    "sac": ("HalfCheetah-v5", ["--seeds 2", *SMALL]),
    "td3": ("LunarLanderContinuous-v3", SMALL),
    "sac_discrete": ("CartPole-v1", ["--envs 2", *SMALL]),
    "ppo": ("MountainCarContinuous-v0", ["rollout-length 256", "epochs 2"]),
    "ddpg": ("jax/Pendulum-v1", ["--envs 4", *SMALL]),
}
STEPS = 3000
SCHEDULE = f"--steps {STEPS} --log-every 100 --eval-every 500 --eval-episodes 2 --checkpoint-every 200"
CLOCKS = ("wall_time", "steps_per_second")


def command(*words: str) -> list[str]:
    """A maxent command of this Python."""
    return [sys.executable, "-m", "maxent", *words]


def training(algo: str, out: Path) -> list[str]:
    """The undisturbed run's command, into a folder."""
    env, options = CASES[algo]
    words = [word if word.startswith("--") else f"--{algo}.{word}" for word in options]
    return command("train", env, "--algo", algo, "--out", str(out), *" ".join([SCHEDULE, *words]).split())


def content(run: Path) -> dict[str, Any]:
    """All that must be equal: every file of the last checkpoint by its checksum, the counters, and the CSV rows."""
    last = sorted((run / folder.CHECKPOINTS).glob("step-*"))[-1]
    manifest = json.loads((last / "checkpoint.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {name: manifest[name]["sha256"] for name in ("state", "moment")}
    found["replay"] = [(f["start"], f["stop"], f["sha256"]) for f in manifest["replay"]["files"]]
    found["counters"] = {k: v for k, v in manifest["counters"].items() if k not in CLOCKS}
    for name in (folder.PROGRESS, folder.EVALUATIONS):
        with open(run / name, newline="", encoding="utf-8") as file:
            found[name] = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    return found


def finished(run: Path) -> bool:
    """Whether the last checkpoint is that of the last step."""
    last = sorted((run / folder.CHECKPOINTS).glob("step-*"))[-1]
    return json.loads((last / "checkpoint.json").read_text(encoding="utf-8"))["step"] == STEPS


def killed_after(words: list[str], seconds: float) -> int | None:
    """Run a command and kill it after so long; its exit code where it was over before."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if process.returncode:
        print(shlex.join(words), errors, file=sys.stderr)
    return process.returncode


def disturbed(algo: str, out: Path, usual: float, kills: int, rng: random.Random) -> tuple[int, int, str]:
    """A run killed so often at most after its first checkpoint; the kills, those before it, and what came of it."""
    done, early = 0, 0
    while True:
        begun = any((out / folder.CHECKPOINTS).glob("step-*"))
        if not begun and out.exists():
            shutil.rmtree(out)
        words = command("resume", str(out)) if begun else training(algo, out)
        code = killed_after(words, rng.uniform(0.2, 0.8) * usual if done - early < kills else 10 * usual)
        if code is not None:
            whole = code == 0 or finished(out)  # killed after the last checkpoint, it is refused: nothing is left to do
            return done, early, "ended" if whole else f"exit code {code}"
        done, early = done + 1, early + (not begun)


def measure(algo: str, kills: int, runs: Path, rng: random.Random) -> dict[str, Any]:
    """One case."""
    shutil.rmtree(runs / algo, ignore_errors=True)
    subprocess.run(training(algo, runs / algo / "warm"), check=True, stdout=subprocess.DEVNULL)  # compiles
    started = time.monotonic()
    subprocess.run(training(algo, runs / algo / "undisturbed"), check=True, stdout=subprocess.DEVNULL)
    usual, expected = time.monotonic() - started, content(runs / algo / "undisturbed")
    counts = {"kills": 0, "before_a_checkpoint": 0, "runs": 0, "identical": 0}
    failures = []
    while counts["kills"] - counts["before_a_checkpoint"] < kills:
        out = runs / algo / f"disturbed-{counts['runs']}"
        missing = kills - counts["kills"] + counts["before_a_checkpoint"]
        done, early, end = disturbed(algo, out, usual, missing, rng)
        different = [k for k, v in content(out).items() if v != expected[k]] if end == "ended" else [end]
        failures += [f"{out.name}: {', '.join(different)}"] if different else []
        counts["kills"] += done
        counts["before_a_checkpoint"] += early
        counts["runs"] += 1
        counts["identical"] += not different
        print(algo, counts, failures, flush=True)
    return {
        "env": CASES[algo][0],
        **counts,
        "failures": failures,
        "undisturbed_seconds": round(usual, 1),
        "command": shlex.join(["python", *sys.argv]),
        "versions": folder.versions(),
        "machine": folder.machine(),
        "schedule": SCHEDULE,
    }


def main() -> None:
    """Measure the cases that the command line names, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all by default")
    parser.add_argument("--kills", type=int, default=100, help="over all five cases")
    parser.add_argument("--runs", type=Path, default=Path("runs/chaos"), help="where the run folders go")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {min(unknown)!r}: choose from {', '.join(CASES)}")
    rng = random.Random(arguments.seed)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    path = RESULTS / "chaos.json"
    known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else {}
    git = {"git": folder.git_revision()}  # before the results of the first case change the checkout
    for algo in arguments.cases or CASES:
        known[algo] = measure(algo, -(-arguments.kills // len(CASES)), arguments.runs, rng) | git
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps({"cases": known}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
