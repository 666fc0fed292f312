"""What the algorithms learned, with their settings."""

import dataclasses
import inspect
import json
import re
import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from maxent import registry
from maxent.config import TrainConfig
from tables import FIGURES, load, machine

TARGETS = {
    "pendulum": "mean ≥ -160",
    "pendulum-device": "mean ≥ -160",
    "cartpole-device": "500 in every episode",
    "bipedal": "median ≥ 300, mean ≥ 280",
    "lunar": "mean ≥ 250",
    "cheetah": "mean ≥ 7,500",
    "cheetah-deterministic": "the curve, as it is",
    "cheetah-td3": "mean ≥ 6,500",
    "cheetah-ddpg": "mean ≥ 5,500",
    "cheetah-sac-v1": "mean ≥ 5,000",
    "cheetah-ppo": "mean ≥ 2,800",
    "cartpole": "500 in every episode",
    "lunar-discrete": "mean ≥ 230",
    "walker-sql": "the curve, as it is",
    "walker-sac": "the curve, as it is",
}

BESIDE = {"walker-sql": ["walker-sac"], "cheetah-deterministic": ["cheetah-members"]}
"""Whose curves are drawn beside a task's own."""
ALONE, MEMBERS = ("cheetah", "cheetah-alone-1", "cheetah-alone-2"), ("cheetah-members",)
"""Three runs alone, and the one whose members have their seeds."""


def learning(folder: str, algo: str) -> str:
    """The table of what the algorithm learned, and a curve a task."""
    records = [record for record in load("learning-*.json") if algo in record and record["task"] in TARGETS]
    if not records:
        return "Not measured yet."
    lines = [
        "| environment | steps | seeds | mean | median | worst episode | aimed at | wall time | not the defaults |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        lines.append(
            f"| {learned(record)} | {TARGETS[record['task']]} | {record['seconds'] / 60:.0f} min | {changed(record)} |"
        )
        draw_curve(record)
    machines = " or ".join(sorted({machine(record) for record in records}))
    lines += [
        "",
        f"Each run had {machines}, on a machine shared with other work, so the wall times say little. "
        "`benchmarks/learning.py` measures it; `benchmarks/results/` has every return. The same by the command:",
        "",
        "```sh",
        *(command(record) for record in records),
        "```",
        "",
    ]
    lines += [f"![{r['train']['env']}]({folder}figures/learning-{r['task']}.png)" for r in records]
    return "\n".join(lines)


def tried(algo: str) -> str:
    """The table of what the algorithm learned with settings that were tried and left."""
    lines = [
        "What other settings gave, kept as `tried-*.json` among the results:",
        "",
        "| environment | steps | seeds | mean | median | worst episode | not the defaults |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {learned(r)} | {changed(r)} |" for r in load("tried-*.json") if algo in r)])


def learned(record: dict[str, Any]) -> str:
    """The cells of one record: the task, and the statistics of the final episodes of all its seeds."""
    returns = np.array([final["returns"] for final in record["final"]])
    seeds = ", ".join(str(final["seed"]) for final in record["final"])
    env, steps = record["train"]["env"], record["train"]["steps"]
    return f"{env} | {steps:,} | {seeds} | {returns.mean():.1f} | {np.median(returns):.1f} | {returns.min():.1f}"


def differences(values: dict[str, Any], defaults: Any) -> dict[str, Any]:
    """Those of a record's settings that are not today's defaults."""
    usual = json.loads(json.dumps(vars(defaults), default=list))
    return {name: value for name, value in values.items() if value != usual.get(name)}


def changed(record: dict[str, Any]) -> str:
    """The algorithm's settings in which a record differs from the defaults."""
    algo = record["train"]["algo"]
    return ", ".join(f"`{k}` {v}" for k, v in differences(record[algo], registry.entry(algo).config()).items())


def command(record: dict[str, Any]) -> str:
    """What learns the same as a record's run."""
    train, algo = record["train"], record["train"]["algo"]
    usual = TrainConfig(train["env"], steps=0)
    own = differences(record[algo], registry.entry(algo).config())
    options = [option(name, value) for name, value in differences(train, usual).items()]
    options += [option(f"{algo}.{name}", value) for name, value in own.items()]
    text = f"maxent train {train['env']} {' '.join(options)}"
    lines = textwrap.wrap(text, 112, subsequent_indent="    ", break_on_hyphens=False)
    return " \\\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def option(name: str, value: Any) -> str:
    """As --sac.hidden-sizes 64,64, which no line's end is to part."""
    words = [json.dumps(x).strip('"') for x in (value if isinstance(value, list) else [value])]
    return f"--{name.replace('_', '-')}\N{NO-BREAK SPACE}{','.join(words)}"


def draw_curve(record: dict[str, Any]) -> None:
    """Evaluation return over steps: each seed thin, the mean thick, min to max as a band; beside it those of BESIDE."""
    shown = [record, *(other for name in BESIDE.get(record["task"], ()) for other in load(f"learning-{name}.json"))]
    figure, axes = plt.subplots(figsize=(6, 3.6), dpi=120, layout="constrained")
    for color, own in zip(("C0", "C1"), shown):
        points = np.array(own["curve"])
        steps, seeds = np.unique(points[:, 0]), np.unique(points[:, 1])
        curves = np.array(
            [[points[(points[:, 0] == s) & (points[:, 1] == seed), 2].mean() for s in steps] for seed in seeds]
        )
        if len(seeds) > 1:
            axes.fill_between(steps, curves.min(0), curves.max(0), alpha=0.2, linewidth=0, color=color)
            axes.plot(steps, curves.T, linewidth=0.6, alpha=0.5, color=color)
        axes.plot(steps, curves.mean(0), linewidth=2, color=color, label=own["train"]["algo"])
    if len(shown) > 1:
        axes.legend(frameon=False)
    axes.set(xlabel="environment steps", ylabel="evaluation return", title=record["train"]["env"])
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"learning-{record['task']}.png")
    plt.close(figure)


def family(folder: str) -> str:
    """The table and the plot of three members of one run beside three runs alone with their seeds."""
    alone, together = ([r for name in names for r in load(f"learning-{name}.json")] for names in (ALONE, MEMBERS))
    if len(alone) < len(ALONE) or not together:
        return f"Not measured yet: `python benchmarks/learning.py {' '.join((*ALONE, *MEMBERS))}` does."
    shown = {"alone": evaluated(alone), "as a member of one run": evaluated(together)}
    steps = sorted({step for own in shown["as a member of one run"].values() for step in own})
    lines = [f"| return after | {' | '.join(f'{step // 1000}k' for step in steps)} |", "|---" * (len(steps) + 1) + "|"]
    figure, axes = plt.subplots(figsize=(6, 3.6), dpi=120, layout="constrained")
    for color, (name, seeds) in zip(("C0", "C1"), shown.items()):
        for seed, own in sorted(seeds.items()):
            lines.append(f"| seed {seed}, {name} | {' | '.join(f'{own[step]:,.0f}' for step in steps)} |")
            axes.plot(steps, [own[step] for step in steps], color=color, label=None if seed else name)
    axes.set(xlabel="environment steps", ylabel="evaluation return", title=alone[0]["train"]["env"])
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURES / "members.png")
    plt.close(figure)
    return "\n".join([*lines, "", f"![Members and runs alone]({folder}figures/members.png)"])


def evaluated(records: list[dict[str, Any]]) -> dict[int, dict[int, float]]:
    """Seed → step → the mean return of its evaluation."""
    returns: dict[int, dict[int, list[float]]] = {}
    for step, seed, value in (point for record in records for point in record["curve"]):
        returns.setdefault(seed, {}).setdefault(step, []).append(value)
    return {seed: {step: float(np.mean(own)) for step, own in steps.items()} for seed, steps in returns.items()}


def settings(algo: str) -> str:
    """Every field of the algorithm's config, with its default and its sentence."""
    lines = ["| setting | default | |", "|---|---|---|"]
    sentences: dict[str, str] = {}
    config = registry.entry(algo).config
    for cls in reversed(config.__mro__[:-1]):
        sentences |= dict(re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(cls), re.M | re.S))
    for field in dataclasses.fields(config):
        sentence = " ".join(sentences[field.name].split()).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{field.default}` | {sentence} |")
    return "\n".join(lines)
