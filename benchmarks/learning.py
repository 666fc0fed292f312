"""What the library learns: train on a task, then play 100 episodes with the mean action.

    python benchmarks/learning.py pendulum bipedal lunar cheetah

Each task writes benchmarks/results/learning-<task>.json: command, versions, machine, settings, the evaluation curve of
every member, and the returns of the final episodes. The final policy is judged, not the best one on the way. A run that
was stopped goes on from where it was.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from maxent.config import (
    DDPGConfig,
    PPOConfig,
    SACConfig,
    SACDeterministicConfig,
    SACDiscreteConfig,
    SACV1Config,
    SQLConfig,
    TD3Config,
    TrainConfig,
)
from maxent.run import driver, folder
from maxent.run.loggers import read_csv

RESULTS = Path(__file__).parent / "results"
EPISODES, EVALUATION_SEED = 100, 1_000_000
CARTPOLE = SACDiscreteConfig(
    hidden_sizes=(64, 64), normalize_observations=True, batch_size=64, utd=0.25, learning_rate=3e-3,
    learning_rate_decay_updates=24_750, tau=0.05, initial_temperature=0.1, target_entropy_ratio=0.7,
)  # fmt: skip
CHEETAH = SACConfig(learning_rate=1e-3, learning_starts=10_000)
TASKS = {
    "pendulum": (TrainConfig("Pendulum-v1", steps=20_000, seeds=5, eval_every=1000), SACConfig()),
    "bipedal": (
        TrainConfig("BipedalWalker-v3", steps=300_000),
        SACConfig(learning_rate=1e-3, learning_starts=10_000, gamma=0.98, tau=0.02, n_step=3),
    ),
    "lunar": (
        TrainConfig("LunarLanderContinuous-v3", steps=300_000, seeds=5),
        SACConfig(hidden_sizes=(128, 128), layer_norm=True, learning_rate=1e-3),
    ),
    "cheetah": (TrainConfig("HalfCheetah-v5", steps=300_000), CHEETAH),
    "cheetah-members": (TrainConfig("HalfCheetah-v5", steps=100_000, seeds=3), CHEETAH),
    "cheetah-alone-1": (TrainConfig("HalfCheetah-v5", steps=100_000, seed=1), CHEETAH),
    "cheetah-alone-2": (TrainConfig("HalfCheetah-v5", steps=100_000, seed=2), CHEETAH),
    "cheetah-deterministic": (
        TrainConfig("HalfCheetah-v5", "sac_deterministic", steps=100_000, seeds=3),
        SACDeterministicConfig(learning_rate=1e-3, learning_starts=10_000),
    ),
    "cheetah-td3": (TrainConfig("HalfCheetah-v5", "td3", steps=300_000), TD3Config()),
    "cheetah-ddpg": (TrainConfig("HalfCheetah-v5", "ddpg", steps=300_000), DDPGConfig()),
    "cheetah-sac-v1": (
        TrainConfig("HalfCheetah-v5", "sac_v1", steps=300_000),
        SACV1Config(learning_rate=1e-3, learning_starts=10_000, regularization=0.001),
    ),
    "cheetah-ppo": (
        TrainConfig("HalfCheetah-v5", "ppo", steps=1_000_000, seeds=3, eval_every=50_000),
        PPOConfig(learning_rate_decay_updates=488),
    ),
    "pendulum-device": (
        TrainConfig("jax/Pendulum-v1", steps=20_000, eval_every=2000),
        SACConfig(hidden_sizes=(64, 64), learning_rate=1e-3),
    ),
    "cartpole-device": (TrainConfig("jax/CartPole-v1", "sac_discrete", steps=100_000), CARTPOLE),
    "cartpole": (TrainConfig("CartPole-v1", "sac_discrete", steps=100_000, seeds=5), CARTPOLE),
    "walker-sql": (
        TrainConfig("Walker2d-v5", "sql", steps=150_000, max_episode_steps=800),
        SQLConfig(kernel_particles=16),
    ),
    "walker-sac": (TrainConfig("Walker2d-v5", "sac", steps=150_000, max_episode_steps=800), SACConfig()),
    "lunar-discrete": (
        TrainConfig("LunarLander-v3", "sac_discrete", steps=300_000, seeds=3),
        SACDiscreteConfig(
            hidden_sizes=(128, 128), layer_norm=True, batch_size=128, utd=0.5, learning_rate=1e-3, n_step=4,
            learning_rate_decay_updates=149_500, tau=0.01, gamma=0.995, temperature=1.0, entropy_in_target=False,
        ),
    ),
}  # fmt: skip


def measure(task: str, runs: Path) -> dict:
    """Train and evaluate one task; its record."""
    config, settings = TASKS[task]
    path = runs / task
    run = driver.reopen(path) if path.exists() else driver.start(config, settings, {}, out=str(path))
    run.learn(config.steps, [lambda progress: print(task, progress.rows[0], flush=True)])
    played = run.evaluate(EPISODES, seed=EVALUATION_SEED)
    curve = read_csv(run.path / folder.EVALUATIONS)
    return {
        "task": task,
        "command": shlex.join(["python", *sys.argv]),
        "versions": folder.versions(),
        "machine": folder.machine(),
        "git": folder.git_revision(),
        "train": vars(run.config),
        config.algo: vars(run.settings),
        "seconds": round(run.history.wall_time, 1),
        "curve": [[int(r["step"]), int(r["seed"]), round(float(r["return"]), 3)] for r in curve],
        "final": [summary(run.seeds[m], [e.total_reward for e in own]) for m, own in enumerate(played)],
    }


def summary(seed: int, returns: list[float]) -> dict:
    """The statistics of one member's final episodes, and all their returns."""
    return {
        "seed": seed,
        "episodes": len(returns),
        "mean": round(float(np.mean(returns)), 2),
        "median": round(float(np.median(returns)), 2),
        "min": round(min(returns), 2),
        "max": round(max(returns), 2),
        "returns": [round(r, 2) for r in returns],
    }


def main() -> None:
    """Measure the tasks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"), help="where the run folders go")
    arguments = parser.parse_args()
    for task in arguments.tasks:
        record = measure(task, arguments.runs)
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"learning-{task}.json"
        path.write_text(json.dumps(record, indent=1, default=list), encoding="utf-8")
        print(task, [{k: v for k, v in final.items() if k != "returns"} for final in record["final"]])


if __name__ == "__main__":
    main()
