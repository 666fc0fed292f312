"""The tables and plots of the docs, each from its records in benchmarks/results/."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

ROOT = Path(__file__).parent.parent.parent
RESULTS, FIGURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"


def load(pattern: str) -> list[dict[str, Any]]:
    """The records whose file names match, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]
