"""What the toy tasks show."""

import numpy as np

from tables import load


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
