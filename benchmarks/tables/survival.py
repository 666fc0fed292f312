"""What failures and kills leave, and what it costs to be ready for them."""

from tables import load


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
