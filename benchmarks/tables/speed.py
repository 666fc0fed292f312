"""How fast the library is, and what it costs."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from speed import LIBRARIES, SETTINGS

from tables import FIGURES, load, machine


def speed() -> str:
    """The table of the whole loop beside other libraries, a row a setting and machine."""
    lines = [
        "| setting | machine | steps/s | Stable-Baselines3 | SBX | times Stable-Baselines3 | times SBX "
        "| first step after | peak of memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    measured = all_speeds()
    if not measured:
        return "Not measured yet: `make bench` does."
    for aims, m in measured:
        rates = [f"{m['medians'][f'{name} steps']:,.0f}" if name in m["peak_memory_mib"] else "" for name in LIBRARIES]
        ratios = [times(m["ratios"].get(f"maxent / {name}"), aims.get(name)) for name in LIBRARIES[1:]]
        start, memory = m["seconds_to_first_step"]["maxent"], m["peak_memory_mib"]["maxent"]
        cells = (named(m), machine(m), *rates, *ratios, f"{start:.1f} s", f"{memory:,} MiB")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Whole processes in alternation, in {min(m['rounds'] for _, m in measured)} rounds or more of blocks of some "
        "seconds, on shared cores; batch 256, one update a step; the median of the ratios within a round, their "
        "range, and what is aimed at. From `make bench`; the page on [updates](docs/update-speed.md) has them alone. "
        "Not measured on a GPU.",
    ]
    return "\n".join(lines)


def updates() -> str:
    """The table of the updates alone beside their bare matrix products, a row a setting and machine."""
    lines = [
        "| setting | machine | queued | scanned | products | queued / products | scanned / products | steps / queued |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, m in all_speeds():
        if "maxent queued" in m["medians"]:
            rates = [f"{m['medians'][f'maxent {kind}']:,.0f}" for kind in ("queued", "scanned", "products")]
            shares = ("queued updates / products", "scanned updates / products", "steps / queued updates")
            shown = [f"{m['ratios'][share]['median']:.2f}" for share in shares]
            lines.append(f"| {' | '.join((named(m), machine(m), *rates, *shown))} |")
    lines += [
        "",
        "A second, from `make bench`: updates dispatched one by one, and fifty at a time; one update's bare matrix "
        "products; the share of the products' rate that the updates reach, and of the updates' that the loop does.",
    ]
    return "\n".join(lines)


def all_speeds() -> list[tuple[dict[str, float], dict[str, Any]]]:
    """What is aimed at and what was measured, of every setting on every machine, the settings side by side."""
    records = [record["settings"] for record in load("speed*.json")]
    return [(SETTINGS[name].targets, record[name]) for name in SETTINGS for record in records if name in record]


def times(ratio: dict[str, float] | None, aim: float | None) -> str:
    """A ratio, its range, and what is aimed at."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}), ≥ {aim:g}" if ratio else ""


def named(measured: dict[str, Any]) -> str:
    """A speed setting in words."""
    return f"{measured.get('algo', 'sac')}, {measured['env']}, 2 × {measured['hidden']}"


def account() -> str:
    """Where the time of an update goes."""
    columns = {
        f"2 × {width}, {r['machine']['processor']}": r
        for record in load("account-*.json")
        for width, r in sorted(record.items(), key=lambda item: int(item[0]))
    }
    if not columns:
        return "Not measured yet: `python benchmarks/account.py` does."
    rows: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for r in columns.values() for name in r["thread_ms"]):
        rows[name] = [r["thread_ms"].get(name, {"ms": 0.0})["ms"] for r in columns.values()]
    rows["**an update, traced**"] = [r["ms_traced"] for r in columns.values()]
    rows["**an update, not traced**"] = [r["ms"]["update"] for r in columns.values()]
    rows["**its products alone**"] = [r["ms"]["products alone"] for r in columns.values()]
    share = "**the share of the products' rate that an update reaches**"
    rows[share] = [r["ms"]["products alone"] / r["ms"]["update"] for r in columns.values()]
    lines = [f"| ms for one update, on one thread | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |" for name, cells in rows.items()]
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
    return "\n".join([*lines, "", f"`benchmarks/threads.py`, {machine(records[0])}."])


INSTALLED = {
    "without extras, by `pip install`, which compiles every module ahead": "mebibytes",
    "the same with `--no-compile`, after a first run": "mebibytes_compiled_when_imported",
}
"""What an environment holds → the figure's name."""


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
        lines.append(f"| the same, first start, with modules compiled | {first['first_step']:.1f} s | |")
    if install:
        for what, name in INSTALLED.items():
            lines.append(f"| disk, {what} | {install[name] * 2**20 / 1e6:.0f} MB | ≤ 750 MB |")
    return "\n".join(lines)


GROWTH = {
    "members": ("members", "an iteration of all of them", 1.0),
    "environments": ("environments of one member", "an iteration of all of them, one update", 1.0),
    "width": ("units of each of two layers", "an update", None),
    "replay": ("transitions in a full replay", "an update and a new row", 0.0),
}
"""Axis → what grows, what the cost is of, and the steepest slope that is aimed at."""


def growth(folder: str) -> str:
    """The table and the plot of how cost grows, and what five seeds cost, on every machine."""
    records = load("growth-*.json")
    axes = {axis: [record[axis] for record in records if axis in record] for axis in GROWTH}
    if not axes["members"]:
        return "Not measured yet: `python benchmarks/growth.py` does."
    lines = ["| what grows | machine | from | to | cost, from | to | slope | of the last two sizes | aimed at |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for axis, measured in axes.items():
        what, _, aim = GROWTH[axis]
        aimed = "" if aim is None else f"≤ {aim:g}" if aim else "none"
        for r in measured:
            low, high = (f"{1000 * r['medians'][i]:,.2f} ms" for i in (0, -1))
            cells = (what, machine(r), f"{r['sizes'][0]:,}", f"{r['sizes'][-1]:,}", low, high)
            lines.append(f"| {' | '.join(cells)} | {r['slope']:.2f} | {r['last_slope']:.2f} | {aimed} |")
    lines += ["", "| five seeds in one process | machine | measured | aimed at |", "|---|---|---|---|"]
    for name, r, where in seeds_of(records):
        span = f"{min(r['ratios']):.2f} to {max(r['ratios']):.2f}"
        aim = 5.2 if "256" in name else 3.0
        lines.append(f"| {name}: times the cost of one | {where} | {r['median']:.2f} ({span}) | ≤ {aim:g} |")
    for r in (record["memory"] for record in records if "memory" in record):
        times_one = f"{r['ratio']:.2f} | ≤ 1.3"
        lines.append(f"| peak memory, times one process and five replays | {machine(r)} | {times_one} |")
    draw_growth(axes)
    return "\n".join([*lines, "", f"![How cost grows]({folder}figures/growth.png)"])


def seeds_of(records: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], str]]:
    """What five seeds cost: the setting, its record and the machine, the settings side by side."""
    parts = [record["seeds"] for record in records if "seeds" in record]
    found = [(name, r, machine(part)) for part in parts for name, r in part.items() if "ratios" in r]
    return sorted(found, key=lambda row: row[0])


def draw_growth(axes: dict[str, list[dict[str, Any]]]) -> None:
    """One log-log panel an axis, a line a machine; all over the same milliseconds, so that slopes can be compared."""
    size = 3.2 * len(axes), 3.6
    figure, panels = plt.subplots(1, len(axes), figsize=size, dpi=120, layout="constrained", sharey=True)
    for panel, (axis, measured) in zip(panels, axes.items(), strict=True):
        what, cost, _ = GROWTH[axis]
        for r in measured:
            panel.loglog(r["sizes"], np.array(r["medians"]) * 1000, "o-", linewidth=2, label=f"slope {r['slope']:.2f}")
        panel.set_xlabel(what)
        panel.set_title(cost, fontsize="medium")
        panel.legend(fontsize="small", frameon=False)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms")
    lines, machines = panels[0].get_lines(), [machine(r) for r in axes["members"]]
    figure.legend(lines, machines, loc="outside lower center", ncols=len(machines), fontsize="small", frameon=False)
    figure.savefig(FIGURES / "growth.png")
    plt.close(figure)
