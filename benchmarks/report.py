"""Draw the tables and plots of the docs from benchmarks/results/.

    python benchmarks/report.py

Replaces what stands between `<!-- results:NAME -->` and `<!-- end -->` in the README and the docs.
"""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from maxent import registry

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS, FIGURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"
PAGES = {"README.md": "sac", "docs/architecture.md": "sac", "docs/tasks.md": "sql", "docs/survives.md": "sac"}
PAGES |= dict.fromkeys(("docs/members.md", "docs/device-environments.md", "docs/update-speed.md"), "sac")
PAGES |= {f"docs/{name}.md": name for name in registry.ALGORITHMS if (ROOT / "docs" / f"{name}.md").exists()}
"""Each page, and the algorithm whose results it shows."""
TARGETS = {
    "pendulum": "mean ≥ -160",
    "pendulum-device": "mean ≥ -160",
    "cartpole-device": "500 in every episode",
    "bipedal": "median ≥ 300, mean ≥ 280",
    "lunar": "mean ≥ 250",
    "cheetah": "mean ≥ 7,500",
    "cheetah-td3": "mean ≥ 6,500",
    "cheetah-ddpg": "mean ≥ 5,500",
    "cheetah-sac-v1": "mean ≥ 5,000",
    "cheetah-ppo": "mean ≥ 2,800",
    "cartpole": "500 in every episode",
    "lunar-discrete": "mean ≥ 230",
    "walker-sql": "the curve, as it is",
    "walker-sac": "the curve, as it is",
}

BESIDE = {"walker-sql": ["walker-sac"]}
"""Whose curves are drawn beside a task's own."""
ALONE, MEMBERS = ("cheetah", "cheetah-alone-1", "cheetah-alone-2"), ("cheetah-members",)
"""Three runs alone, and the one whose members have their seeds."""


def load(pattern: str) -> list[dict[str, Any]]:
    """The records whose file names match, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]


def learning(folder: str, algo: str) -> str:
    """The tables of what the algorithm learned and of what was tried before, and a curve a task."""
    records = [record for record in load("learning-*.json") if algo in record and record["task"] in TARGETS]
    tried = [record for record in load("tried-*.json") if algo in record]
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
    machines = " or ".join(sorted({cores(record["machine"]) for record in records}))
    lines += [
        "",
        f"Each run had {machines}, on a machine shared with other work, so the wall times say little. "
        "`benchmarks/learning.py` measures it; `benchmarks/results/` has every return.",
        "",
    ]
    lines += [f"![{r['train']['env']}]({folder}figures/learning-{r['task']}.png)" for r in records]
    if tried:
        lines += ["", "What other settings gave, kept as `tried-*.json` among the results:", ""]
        lines += ["| environment | steps | seeds | mean | median | worst episode | not the defaults |"]
        lines += ["|---|---|---|---|---|---|---|", *(f"| {learned(r)} | {changed(r)} |" for r in tried)]
    return "\n".join(lines)


def cores(machine: dict[str, Any]) -> str:
    """The machine's cores in words."""
    return f"{machine['cores']} core{'s' * (machine['cores'] > 1)} of {machine['processor']}"


def learned(record: dict[str, Any]) -> str:
    """The cells of one record: the task, and the statistics of the final episodes of all its seeds."""
    returns = np.array([final["returns"] for final in record["final"]])
    seeds = ", ".join(str(final["seed"]) for final in record["final"])
    env, steps = record["train"]["env"], record["train"]["steps"]
    return f"{env} | {steps:,} | {seeds} | {returns.mean():.1f} | {np.median(returns):.1f} | {returns.min():.1f}"


def changed(record: dict[str, Any]) -> str:
    """The algorithm's settings in which a record differs from today's defaults."""
    algo = record["train"]["algo"]
    defaults = json.loads(json.dumps(vars(registry.entry(algo).config()), default=list))
    return ", ".join(f"`{name}` {value}" for name, value in record[algo].items() if value != defaults.get(name))


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


def speed() -> str:
    """The tables of the speed benchmark: rates of each library, and the ratios within rounds."""
    records = load("speed.json")
    if not records:
        return "Speed beside other libraries: not measured yet."
    settings = records[0]["settings"].values()
    lines = ["| setting | measured | per second |", "|---|---|---|"]
    for measured in settings:
        lines += [f"| {_named(measured)} | {what} | {rate:,.0f} |" for what, rate in measured["medians"].items()]
    lines += ["", "| setting | ratio | median | range | aimed at |", "|---|---|---|---|---|"]
    for measured in settings:
        for what, r in measured["ratios"].items():
            target = f"≥ {r['target']:g}" if "target" in r else ""
            low, high = f"{r['min']:.2f}", f"{r['max']:.2f}"
            lines.append(f"| {_named(measured)} | {what} | {r['median']:.2f} | {low} to {high} | {target} |")
    lines += ["", "| setting | library | start to first step | peak of memory |", "|---|---|---|---|"]
    for measured in settings:
        for library, seconds in measured.get("seconds_to_first_step", {}).items():
            memory = measured["peak_memory_mib"][library]
            lines.append(f"| {_named(measured)} | {library} | {seconds:.1f} s | {memory:,} MiB |")
    machine = next(iter(settings))["machine"]
    lines += [
        "",
        f"Whole processes in alternation, in {min(m['rounds'] for m in settings)} rounds or more of blocks of some "
        f"seconds, on {machine['cores']} shared cores of {machine['processor']}; batch 256, one update a step. "
        "From `make bench`. Steps: the whole loop; queued, scanned: the updates alone, dispatched one by one "
        "and fifty at a time; products: one update's bare matrix products. Not measured on a GPU.",
    ]
    return "\n".join(lines)


def _named(measured: dict[str, Any]) -> str:
    """A speed setting in words."""
    return f"{measured.get('algo', 'sac')}, {measured['env']}, 2 × {measured['hidden']}"


def cost() -> str:
    """The table of the cost benchmark."""
    records = load("cost.json")
    if not records:
        return "Not measured yet."
    memory, replay, start, install = (records[0].get(part) for part in ("memory", "replay", "start", "install"))
    lines = ["| cost, on HalfCheetah-v5 | measured | aimed at |", "|---|---|---|"]
    if memory:
        lines.append(f"| replay of a million transitions | {memory['replay_megabytes']:.0f} MB | ≤ 120 MB |")
        lines.append(f"| process with it full, peak | {memory['process_megabytes_peak']:,.0f} MB | ≤ 1,300 MB |")
    if replay:
        ratio = replay["full_over_nearly_empty"]
        lines.append(
            f"| steps/s, full replay over nearly empty, median (middle half) | {ratio['median']:.3f} "
            f"({ratio['q1']:.3f} to {ratio['q3']:.3f}) | ≥ 0.95 |"
        )
        counts = f"{replay['traces_after_warm_up']}, {replay['compilations_after_warm_up']}"
        lines.append(f"| traces, compilations after warm-up | {counts} | 0, 0 |")

    if start:
        first, later = start["first_start"], start["later_start"]
        lines.append(f"| first step after the command, second start | {later['first_step']:.1f} s | ≤ 5 s |")
        lines.append(f"| the same, first start | {first['first_step']:.1f} s | |")
    if install:
        disk = install["mebibytes"]
        lines.append(
            f"| disk with all it needs, without extras | {disk:.0f} MiB ({disk * 2**20 / 1e6:.0f} MB) | ≤ 750 MB |"
        )
    return "\n".join(lines)


def threads() -> str:
    """The table of whole-loop steps on one thread over those on all."""
    records = load("threads.json")
    if not records:
        return "Not measured yet."
    lines = [
        "| | units | members | multiplications | steps/s on one thread, over those on all |",
        "|---|---|---|---|---|",
    ]
    for case in sorted(records[0]["cases"], key=lambda case: case["multiplications"]):
        ratio = f"{case['one_thread_over_all']:.2f} ± {case['standard_error']:.2f}"
        lines.append(
            f"| {case['algo']}, {case['env']} | 2 × {case['width']} | {case['seeds']} "
            f"| 2^{np.log2(case['multiplications']):.1f} | {ratio} |"
        )
    machine = records[0]["machine"]
    return "\n".join([*lines, "", f"`benchmarks/threads.py`, {machine['cores']} cores of {machine['processor']}."])


def multigoal(folder: str) -> str:
    """The table of the share of sampled episodes that reaches each of four goals."""
    records = load("multigoal.json")
    if not records:
        return "Not measured yet."
    lines = [
        "| algorithm | steps | right | left | up | down | none | mean return |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, r in records[0]["algorithms"].items():
        shares = " | ".join(f"{share:.1%}" for share in (*r["shares"], r["none"]))
        lines.append(f"| {name} | {r['steps']:,} | {shares} | {r['mean_return']:.1f} |")
    lines += [
        "",
        "Of 1,000 sampled episodes from the centre, one training run each; aimed at for `sql`: at least 15 % to every "
        "goal. `benchmarks/toys.py multigoal` measures it.",
        "",
        f"![Paths, and Q with sampled actions at three positions]({folder}figures/multigoal.png)",
    ]
    return "\n".join(lines)


def two_passage() -> str:
    """The table of arrivals with the upper passage open and closed, and of the steps until they arrive again."""
    records = load("two-passage.json")
    if not records:
        return "Not measured yet: `python benchmarks/toys.py two-passage` does."
    header = ("open, sampled", "open, deterministic", "blocked, sampled", "blocked, deterministic")
    lines = [
        f"| algorithm | steps | seeds | {' | '.join(header)} | steps until nine of ten arrive: median, worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, r in records[0]["algorithms"].items():
        shares = " | ".join(f"{np.mean(r['arrivals'][what]):.0%}" for what in header)
        limit = r["steps_to_relearn"]["at_most"]
        needed = [np.inf if steps is None else steps for steps in r["steps_to_relearn"]["members"]]
        median, worst = (f"{x:,.0f}" if np.isfinite(x) else f"> {limit:,}" for x in (np.median(needed), max(needed)))
        lines.append(f"| {name} | {r['steps']:,} | {len(r['seeds'])} | {shares} | {median}, {worst} |")
    lines += [
        "",
        "| exact soft-optimal policy, temperature | open | through the lower passage | blocked |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r['temperature']:g} | {r['open']:.1%} | {r['open, lower passage']:.1%} | {r['blocked']:.1%} |"
        for record in load("passage.json")
        for r in record["temperatures"]
    ]
    return "\n".join([*lines, "", "`benchmarks/toys.py two-passage` and `benchmarks/passage.py` measure it."])


GROWTH = {
    "members": ("members", "an iteration of all of them", 1.0),
    "environments": ("environments of one member", "an iteration of all of them, one update", 1.0),
    "width": ("units of each of two layers", "an update", None),
    "replay": ("transitions in a full replay", "an update and a new row", 0.0),
}
"""Axis → what grows, what the cost is of, and the steepest slope that is aimed at."""


def growth(folder: str) -> str:
    """The table and the plot of how cost grows, and what five seeds cost."""
    record = (load("growth.json") or [{}])[0]
    axes = [axis for axis in GROWTH if axis in record]
    if not record:
        return "Not measured yet: `python benchmarks/growth.py` does."
    lines = ["| what grows | from | to | cost, from | to | slope | of the last two sizes | aimed at |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for axis in axes:
        r, (what, _, aim) = record[axis], GROWTH[axis]
        low, high = (f"{1000 * r['medians'][i]:,.2f} ms" for i in (0, -1))
        aimed = "" if aim is None else f"≤ {aim:g}" if aim else "none"
        sizes = f"{r['sizes'][0]:,} | {r['sizes'][-1]:,}"
        lines.append(f"| {what} | {sizes} | {low} | {high} | {r['slope']:.2f} | {r['last_slope']:.2f} | {aimed} |")
    lines += ["", "| five seeds in one process | measured | aimed at |", "|---|---|---|"]
    for name, r in record.get("seeds", {}).items():
        if isinstance(r, dict) and "median" in r:
            aim = 5.2 if "256" in name else 3.0
            span = f"{min(r['ratios']):.2f} to {max(r['ratios']):.2f}"
            lines.append(f"| {name}: times the cost of one | {r['median']:.2f} ({span}) | ≤ {aim:g} |")
    if "memory" in record:
        r = record["memory"]
        lines.append(f"| peak memory, times one process and five replays | {r['ratio']:.2f} | ≤ 1.3 |")
    draw_growth({axis: record[axis] for axis in axes})
    return "\n".join([*lines, "", f"![How cost grows]({folder}figures/growth.png)"])


def draw_growth(axes: dict[str, dict[str, Any]]) -> None:
    """One log-log panel an axis, its slope named."""
    figure, panels = plt.subplots(1, len(axes), figsize=(3.2 * len(axes), 3), dpi=120, layout="constrained")
    for panel, (axis, r) in zip(np.atleast_1d(panels), axes.items()):
        what, cost, _ = GROWTH[axis]
        panel.loglog(r["sizes"], np.array(r["medians"]) * 1000, "o-", color="C0", linewidth=2)
        panel.set(xlabel=what, ylabel=f"ms for {cost}", title=f"slope {r['slope']:.2f}")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURES / "growth.png")
    plt.close(figure)


def chaos() -> str:
    """The table of what killed runs ended with."""
    records = load("chaos.json")
    if not records:
        return "Not measured yet: `python benchmarks/chaos.py` does."
    lines = [
        "| algorithm | environment | kills that a resume followed | runs | identical at the end | earlier kills |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in records[0]["cases"].items():
        early = r["before_a_checkpoint"]
        cells = (name, r["env"], r["kills"] - early, r["runs"], r["identical"], early)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    resumed = sum(r["kills"] - r["before_a_checkpoint"] for r in records[0]["cases"].values())
    lines += [
        "",
        f"SIGKILL at random instants of `benchmarks/chaos.py`: {resumed} after a first checkpoint (aimed at: "
        "100). Where one came before it the run began anew.",
    ]
    return "\n".join(lines)


def overhead() -> str:
    """The table of what guards and checkpoints cost."""
    records = load("overhead.json")
    if not records:
        return "Not measured yet: `python benchmarks/overhead.py` does."
    lines = ["| a training's time that goes to | pairs of blocks | mean | with 95 % confidence at most | aimed at |"]
    lines += ["|---|---|---|---|---|"]
    for part, what, aim in (("guards", "guards", 1), ("checkpoint", "a checkpoint every 50,000 steps", 2)):
        cost, pairs = records[0][part]["cost"], len(records[0][part]["seconds"])
        lines.append(f"| {what} | {pairs} | {cost['mean']:.2%} | {cost['upper_95']:.2%} | < {aim} % |")
    note = (
        "HalfCheetah-v5, a full replay of a million; each part's blocks in one process. The guards' blocks have "
        f"{records[0]['guards']['steps']} steps and end in a report each, many more than usual, so that the machine's "
        "own changes of speed cancel out."
    )
    return "\n".join([*lines, "", note])


def soak() -> str:
    """What became of a million steps of failing environments."""
    records = load("soak.json")
    if not records:
        return "Not measured yet: `python benchmarks/soak.py` does."
    r = records[0]
    return (
        f"Sixteen environments that fail in sixteen ways (`benchmarks/soak.py`): {r['environment_steps']:,} steps, "
        f"{r['faults']:,} faults, {r['faults_told']:,} of them told. The replay compared with what the environments "
        f"recorded of themselves: of {r['true_transitions']:,} true transitions {r['lost']:,} lost, {r['false']:,} "
        f"false, {sum(r['altered'].values()):,} altered."
    )


def account() -> str:
    """Where the time of an update goes."""
    records = load("account.json")
    if not records:
        return "Not measured yet: `python benchmarks/account.py` does."
    widths = records[0]
    names = dict.fromkeys(name for r in widths.values() for name in r["thread_ms"])
    lines = ["| ms for one update, on one thread | " + " | ".join(f"2 × {width}" for width in widths) + " |"]
    lines.append("|---|" + "---|" * len(widths))
    for name in names:
        cells = (r["thread_ms"].get(name, {"ms": 0.0})["ms"] for r in widths.values())
        lines.append(f"| {name} | " + " | ".join(f"{ms:.2f}" for ms in cells) + " |")
    for what, key in (("an update, traced", "ms_traced"), ("an update, not traced", "update")):
        cells = (r.get(key) or r["ms"][key] for r in widths.values())
        lines.append(f"| **{what}** | " + " | ".join(f"{ms:.2f}" for ms in cells) + " |")
    cells = (r["ms"]["products alone"] for r in widths.values())
    return "\n".join([*lines, "| **its products alone** | " + " | ".join(f"{ms:.2f}" for ms in cells) + " |"])


def main() -> None:
    """Fill every block of every page."""
    for name, algo in PAGES.items():
        page = ROOT / name
        folder = "docs/" if page.parent == ROOT else ""
        blocks = {"learning": learning(folder, algo), "settings": settings(algo), "speed": speed(), "cost": cost()}
        blocks |= {
            "multigoal": multigoal(folder),
            "two-passage": two_passage(),
            "chaos": chaos(),
            "overhead": overhead(),
            "soak": soak(),
            "account": account(),
            "threads": threads(),
            "growth": growth(folder),
            "family": family(folder),
        }
        text = page.read_text(encoding="utf-8")
        for name, block in blocks.items():
            pattern = rf"(<!-- results:{name} -->\n).*?(<!-- end -->)"
            text = re.sub(pattern, lambda m, b=block: f"{m[1]}{b}\n{m[2]}", text, flags=re.S)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
