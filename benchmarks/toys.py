"""What maximum entropy is for, on two tasks in the plane: benchmarks/results/multigoal.json and two-passage*.json.

    python benchmarks/toys.py multigoal --algorithms sql sac ddpg
    python benchmarks/toys.py two-passage --algorithms sql sac ddpg
    python benchmarks/toys.py two-passage-oracle --algorithms sql sac ddpg

multigoal: after training, 1,000 sampled episodes from the centre; the share of them that reaches each goal.

two-passage: ten members are trained with both passages open. Then the upper one is closed, and it is counted how many
episodes still arrive, with sampled and with deterministic actions; and after how many steps of further learning, with
an empty replay and without random steps, nine of ten sampled episodes arrive. Once at the paper's temperature and the
usual discount, and once at those of an exact policy (benchmarks/passage.py) that arrives almost always with both open,
and as often as nearly any with one.

Networks, batches, step sizes, discounts and replays are the same for all algorithms; the temperature is the same for
those that have one. Results of several calls are kept beside each other, by algorithm.
"""

import argparse
import dataclasses
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import maxent
from maxent import registry
from maxent.config import TrainConfig
from maxent.envs.make import Factory
from maxent.run import driver, folder
from maxent.settings import build
from maxent.study import landscape

ROOT = Path(__file__).parent.parent
RESULTS, FIGURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"
ALGORITHMS = ("sql", "sac", "ddpg")
MULTIGOAL, TWO_PASSAGE = "maxent/MultiGoal-v0", "maxent/TwoPassage-v0"
COMMON = {"hidden_sizes": [128, 128], "learning_rate": 1e-3, "batch_size": 64, "learning_starts": 1000}
SETTINGS = {
    "multigoal": {"temperature": 10.0, "gamma": 0.99},
    "two-passage": {"temperature": 0.1, "gamma": 0.99},
    "two-passage-oracle": {"temperature": 0.2, "gamma": 0.8},
}
"""The paper's temperatures for its multi-goal task and for its mazes; then a pair from the exact solution."""
STEPS = {MULTIGOAL: 30_000, TWO_PASSAGE: 20_000}
SMALL = {"hidden_sizes": [64, 64]}
"""For ten members at once."""
FOLLOWING = {"tau": 0.005, "target_update_interval": 1}
"""Soft Q-learning's target critics in the maze, as the others': copied every thousand updates they were twenty backups
in all, the goal is twenty steps away, and 63 % of its episodes arrived with both passages open."""
EPISODES, EVALUATION_SEED = 1000, 1_000_000
MEMBERS, ARRIVALS, RELEARN_EVERY, RELEARN_AT_MOST = 10, 20, 500, 10_000


def settings(task: str, env: str, algorithm: str) -> Any:
    """The algorithm's config for a task."""
    values: dict[str, Any] = COMMON | (SMALL if env == TWO_PASSAGE else {}) | SETTINGS[task]
    if algorithm not in ("sql", "sac"):
        del values["temperature"]
    if (algorithm, env) == ("sql", TWO_PASSAGE):
        values |= FOLLOWING
    return build(registry.entry(algorithm).config, values, algorithm)


def train(task: str, env: str, algorithm: str, seeds: int, runs: Path) -> tuple[driver.Driver, float]:
    """A trained run, and how long it took."""
    steps = STEPS[env]
    config = TrainConfig(env, algorithm, steps=steps, seeds=seeds, eval_every=0, checkpoint_every=0, save_replay=False)
    run = driver.start(config, settings(task, env, algorithm), {}, out=str(runs / task / algorithm))
    started = time.time()
    run.learn(steps, [lambda progress: print(algorithm, progress.rows[0], flush=True)])
    return run, time.time() - started


def multigoal(task: str, algorithm: str, runs: Path) -> dict[str, Any]:
    """The share of sampled episodes that reaches each goal."""
    run, seconds = train(task, MULTIGOAL, algorithm, 1, runs)
    agent, make = maxent.load(run.path), partial(gymnasium.make, MULTIGOAL)
    played = landscape.rollouts(agent, make, EPISODES, EVALUATION_SEED)
    goals = [rollout.info.get("goal") for rollout in played]
    if algorithm == "sql":
        states = [(0.0, 0.0), (-2.5, 0.0), (2.5, 2.5)]
        landscape.draw(agent, make, states, FIGURES / "multigoal.png")
    return {
        "seconds": round(seconds, 1),
        "settings": vars(run.settings),
        "steps": STEPS[MULTIGOAL],
        "episodes": EPISODES,
        "shares": [goals.count(goal) / EPISODES for goal in range(4)],
        "none": goals.count(None) / EPISODES,
        "mean_return": round(float(np.mean([rollout.total_reward for rollout in played])), 2),
    }


def two_passage(task: str, algorithm: str, runs: Path) -> dict[str, Any]:
    """Arrivals with both passages open, with one blocked, and how long it takes to learn the other."""
    run, seconds = train(task, TWO_PASSAGE, algorithm, MEMBERS, runs)
    at_once = dataclasses.replace(run.settings, learning_starts=0)
    blocked = driver.Driver(run.config, at_once, Factory(TWO_PASSAGE, {"blocked": True}))
    blocked.loop.learned = jax.tree.map(jnp.array, run.loop.learned)
    shares = {
        f"{name}, {kind}": arrivals(one, EPISODES // MEMBERS, kind == "sampled").tolist()
        for name, one in (("open", run), ("blocked", blocked))
        for kind in ("sampled", "deterministic")
    }
    return {
        "seconds": round(seconds, 1),
        "settings": vars(run.settings),
        "steps": STEPS[TWO_PASSAGE],
        "seeds": run.seeds,
        "arrivals": shares,
        "steps_to_relearn": {"at_most": RELEARN_AT_MOST, "members": relearn(blocked)},
    }


def arrivals(run: driver.Driver, episodes: int, explore: bool) -> np.ndarray:
    """The share of episodes that arrives, [member]."""
    return np.array([np.mean([e.success for e in own]) for own in run.evaluate(episodes, EVALUATION_SEED, explore)])


def relearn(run: driver.Driver) -> list[int | None]:
    """Steps of learning after which nine of ten sampled episodes arrive, of each member; None: not within the limit."""
    needed: list[int | None] = [None] * MEMBERS
    for report in run.loop.run(RELEARN_AT_MOST, RELEARN_EVERY):
        for member, share in enumerate(arrivals(run, ARRIVALS, explore=True)):
            if share >= 0.9 and needed[member] is None:
                needed[member] = report.step
        print("relearn", report.step, needed, flush=True)
        if None not in needed:
            break
    return needed


TASKS = {"multigoal": multigoal, "two-passage": two_passage, "two-passage-oracle": two_passage}


def main() -> None:
    """Measure the task that the command line names, with each algorithm that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--runs", type=Path, default=Path("runs/toys"), help="where the run folders go")
    arguments = parser.parse_args()
    for algorithm in arguments.algorithms:
        if algorithm not in registry.ALGORITHMS:
            print(f"{algorithm} is not there yet")
            continue
        origin = {
            "command": f"python benchmarks/toys.py {arguments.task} --algorithms {algorithm}",
            "versions": folder.versions(),
            "machine": folder.machine(),
            "git": folder.git_revision(),
        }
        result = origin | TASKS[arguments.task](arguments.task, algorithm, arguments.runs)
        path = RESULTS / f"{arguments.task}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"algorithms": {}}
        record["algorithms"][algorithm] = result
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1, default=list), encoding="utf-8")
        print(algorithm, {k: v for k, v in result.items() if k not in (*origin, "settings")})


if __name__ == "__main__":
    main()
