"""Learning curves as pictures, from the CSV files of run folders."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maxent.config import TrainConfig
from maxent.errors import ConfigError
from maxent.run import folder
from maxent.run.loggers import read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Okabe and Ito's, which colour-blind readers tell apart."""
EVALUATION = "evaluation, mean action"
INK, RULE = "#333333", "#dddddd"
STYLE = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlesize": 12, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 12, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "axes.labelpad": 8, "grid.color": RULE, "grid.linewidth": 0.8,
    "font.size": 10, "legend.edgecolor": "white", "lines.solid_capstyle": "round", "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": "white", "savefig.dpi": 160,
}  # fmt: skip

Curve = tuple[np.ndarray, np.ndarray]
"""Steps [point] and returns [point]."""
Curves = dict[str, list[Curve]]
"""Those of all members, by setting."""


def draw(runs: Sequence[str | Path], out: str | Path) -> None:
    """Draw the evaluation returns of runs over their environment steps into one picture.

    A thick line is the interquartile mean over a run's members, thin lines are the members, and the band spans the
    members' lowest and highest; with one member, the mean, lowest and highest of its episodes. Members with different
    settings have a colour for each setting. The training return, over the last 100 episodes, is
    dashed and faint.

    Raises:
        ConfigError: where a folder is no run, no run has anything to draw yet, or the format of `out` is unknown.
    """
    out, configs = Path(out), [folder.read(run)[0] for run in runs]
    labels = _labels([Path(run) for run in runs]) if len(runs) > 1 else [""]
    curves = [
        (_members(Path(run) / folder.PROGRESS, "return_mean"), _members(Path(run) / folder.EVALUATIONS, "return"))
        for run in runs
    ]
    if not any(training or evaluations for training, evaluations in curves):
        raise ConfigError(f"{' '.join(map(str, runs))}: nothing to draw yet, no episode has ended")
    _picture(configs, labels, curves, out)


def _picture(
    configs: Sequence[TrainConfig], labels: Sequence[str], curves: Sequence[tuple[Curves, Curves]], out: Path
) -> None:
    """Draw each run's training and evaluation; Matplotlib takes seconds to import, for which no refusal waits."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    known = FigureCanvasAgg.get_supported_filetypes()
    if out.suffix[1:].lower() not in known:
        raise ConfigError(f"{out} cannot be written: a picture is {', '.join('.' + name for name in sorted(known))}")
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        colours = cycle(COLOURS)
        for (training, evaluations), label in zip(curves, labels, strict=True):
            for setting in dict.fromkeys([*evaluations, *training]):
                name = " ".join(filter(None, (label, setting)))
                _draw(axes, training.get(setting, []), evaluations.get(setting, []), name, next(colours))
        tasks = list(dict.fromkeys((c.env, c.algo) for c in configs))
        axes.set_title(", ".join(f"{env} · {algo}" for env, algo in tasks))
        axes.set_xlabel("environment steps")
        axes.set_ylabel("return of an episode")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        swept = any(c.sweep for c in configs)
        axes.legend(loc="best", title=EVALUATION if len(curves) > 1 or swept else None)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)


def _draw(axes: "Axes", training: Sequence[Curve], evaluations: Sequence[Curve], label: str, colour: str) -> None:
    """The lines of members with one setting."""
    if training:
        steps, returns = _mean(training)
        name = "training, last 100 episodes" if not label else None
        axes.plot(steps, returns, color=colour, alpha=0.4, linewidth=1, linestyle=(0, (4, 2)), label=name)
    if evaluations:
        steps, middle, low, high = _summary(evaluations)
        several = len(evaluations) > 1
        what = f"lowest to highest of {len(evaluations)} seeds" if several else "lowest to highest episode"
        if several:
            for member in evaluations:
                axes.plot(*_mean([member]), color=colour, alpha=0.45, linewidth=0.8)
        axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0, label=None if label else what)
        mark = "o" if len(steps) == 1 else None
        axes.plot(steps, middle, color=colour, linewidth=2.2, marker=mark, label=label or EVALUATION)


def _members(path: Path, column: str) -> Curves:
    """Every member's points in a CSV file, in order and by setting; several points may share a step."""
    points: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in read_csv(path, column):
        if row[column]:
            points[row.get("setting", ""), int(row["member"])].append((float(row["step"]), float(row[column])))
    members: Curves = defaultdict(list)
    for (setting, _), own in sorted(points.items(), key=lambda item: item[0][1]):
        members[setting].append((np.array(own)[:, 0], np.array(own)[:, 1]))
    return dict(members)


def _mean(members: Sequence[Curve]) -> Curve:
    """The mean of all points at each step."""
    steps, at = np.unique(np.concatenate([steps for steps, _ in members]), return_inverse=True)
    returns = np.concatenate([returns for _, returns in members])
    return steps, np.bincount(at, returns) / np.bincount(at)


def interquartile_mean(values: np.ndarray) -> float:
    """The mean of the middle half of the values, [n]; of less than four, of all (arXiv 2108.13264)."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _summary(members: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and at each the interquartile mean, lowest and highest of the members' means; of one member, the mean,
    lowest and highest of its episodes.
    """
    steps, mean = _mean(members)
    spread = members if len(members) == 1 else [_mean([member]) for member in members]
    at = np.concatenate([own for own, _ in spread])
    returns = np.concatenate([returns for _, returns in spread])
    found = [returns[at == step] for step in steps]
    middle = mean if len(members) == 1 else np.array([interquartile_mean(own) for own in found])
    return steps, middle, np.array([own.min() for own in found]), np.array([own.max() for own in found])


def _labels(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [run.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(own[-depth:]) for own in parts]
        if len(set(labels)) == len(set(parts)):
            break
    return labels
