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

from maxent import config

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS, FIGURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", ROOT / "docs" / "sac.md")
TARGETS = {
    "pendulum": "mean ≥ -160",
    "bipedal": "median ≥ 300, mean ≥ 280",
    "lunar": "mean ≥ 250",
    "cheetah": "mean ≥ 7,500",
}


def load(pattern: str) -> list[dict[str, Any]]:
    """The records whose file names match, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]


def learning(folder: str) -> str:
    """The table of what was learned, and a curve a task."""
    records = load("learning-*.json")
    if not records:
        return "Not measured yet."
    lines = [
        "| environment | steps | seeds | mean | median | worst episode | aimed at | wall time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        returns = np.array([final["returns"] for final in record["final"]])
        seeds = ", ".join(str(final["seed"]) for final in record["final"])
        train = record["train"]
        lines.append(
            f"| {train['env']} | {train['steps']:,} | {seeds} | {returns.mean():.1f} | {np.median(returns):.1f} "
            f"| {returns.min():.1f} | {TARGETS[record['task']]} | {record['seconds'] / 60:.0f} min |"
        )
        draw_curve(record)
    machine = records[0]["machine"]
    lines += [
        "",
        f"On {machine['cores']} core(s) of {machine['processor']}; from `{records[0]['command'].split()[1]}`.",
        "",
    ]
    lines += [f"![{r['train']['env']}]({folder}figures/learning-{r['task']}.png)" for r in records]
    return "\n".join(lines)


def draw_curve(record: dict[str, Any]) -> None:
    """Evaluation return over steps: each seed thin, the mean thick, min to max as a band."""
    points = np.array(record["curve"])
    steps, seeds = np.unique(points[:, 0]), np.unique(points[:, 1])
    curves = np.array(
        [[points[(points[:, 0] == s) & (points[:, 1] == seed), 2].mean() for s in steps] for seed in seeds]
    )
    figure, axes = plt.subplots(figsize=(6, 3.6), dpi=120, layout="constrained")
    if len(seeds) > 1:
        axes.fill_between(steps, curves.min(0), curves.max(0), alpha=0.2, linewidth=0)
        axes.plot(steps, curves.T, linewidth=0.6, alpha=0.5, color="C0")
    axes.plot(steps, curves.mean(0), linewidth=2, color="C0")
    axes.set(xlabel="environment steps", ylabel="evaluation return", title=f"SAC on {record['train']['env']}")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"learning-{record['task']}.png")
    plt.close(figure)


def settings() -> str:
    """Every field of SAC's config, with its default and its sentence."""
    lines = ["| setting | default | |", "|---|---|---|"]
    sentences: dict[str, str] = {}
    for cls in (config.ReplayConfig, config.SACConfig):
        sentences |= dict(re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(cls), re.M | re.S))
    for field in dataclasses.fields(config.SACConfig):
        sentence = " ".join(sentences[field.name].split()).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{field.default}` | {sentence} |")
    return "\n".join(lines)


def speed() -> str:
    """The table of the speed benchmark."""
    return "Speed: not measured yet." if not (RESULTS / "speed.json").exists() else speed_table(load("speed.json")[0])


def speed_table(record: dict[str, Any]) -> str:
    """Steps a second of each library and the ratios."""
    raise SystemExit(f"speed.json has no table yet: {list(record)}")


def main() -> None:
    """Fill every block of every page."""
    for page in PAGES:
        folder = "docs/" if page.parent == ROOT else ""
        blocks = {"learning": learning(folder), "settings": settings(), "speed": speed()}
        text = page.read_text(encoding="utf-8")
        for name, block in blocks.items():
            pattern = rf"(<!-- results:{name} -->\n).*?(<!-- end -->)"
            text = re.sub(pattern, lambda m, b=block: f"{m[1]}{b}\n{m[2]}", text, flags=re.S)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
