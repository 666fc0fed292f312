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
    learners = [record for name in ("two-passage", "two-passage-oracle") for record in load(f"{name}.json")]
    exact = load("passage.json")
    if not (learners and exact):
        return "Not measured yet: `python benchmarks/toys.py two-passage` and `python benchmarks/passage.py` do."
    header = ("open, sampled", "open, deterministic", "blocked, sampled", "blocked, deterministic")
    lines = [
        f"| algorithm | discount, temperature | {' | '.join(header)} | steps until nine of ten arrive: median, worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in learners:
        for name, r in record["algorithms"].items():
            shares = " | ".join(f"{np.mean(r['arrivals'][what]):.0%}" for what in header)
            limit = r["steps_to_relearn"]["at_most"]
            steps = [np.inf if n is None else n for n in r["steps_to_relearn"]["members"]]
            median, worst = (f"{x:,.0f}" if np.isfinite(x) else f"> {limit:,}" for x in (np.median(steps), max(steps)))
            temperature = f", {r['settings']['temperature']:g}" if "temperature" in r["settings"] else ""
            setting = f"{r['settings']['gamma']:g}{temperature}"
            lines.append(f"| {name} | {setting} | {shares} | {median}, {worst} |")
    (trained,) = {(r["steps"], len(r["seeds"])) for record in learners for r in record["algorithms"].values()}
    policies = exact[0]["policies"]
    temperatures = sorted({r["temperature"] for r in policies})
    lines += [
        "",
        f"{trained[1]} seeds each, trained for {trained[0]:,} steps. Of the exact soft-optimal policies, "
        "these episodes arrive with both passages open, and with the upper one closed:",
        "",
        f"| discount | {' | '.join(f'temperature {t:g}' for t in temperatures)} |",
        "|---" * (1 + len(temperatures)) + "|",
    ]
    for gamma in sorted({r["gamma"] for r in policies}):
        found = {r["temperature"]: f"{r['open']:.0%}, {r['blocked']:.0%}" for r in policies if r["gamma"] == gamma}
        lines.append(f"| {gamma:g} | {' | '.join(found[t] for t in temperatures)} |")
    return "\n".join([*lines, "", "`benchmarks/toys.py two-passage` and `benchmarks/passage.py` measure it."])
