"""The tables and plots of the docs, each from its records in benchmarks/results/."""

import json
from pathlib import Path
from typing import Any

import matplotlib
from parts import RESULTS

matplotlib.use("Agg")

ROOT = Path(__file__).parent.parent.parent
FIGURES = ROOT / "docs" / "figures"


def load(pattern: str) -> list[dict[str, Any]]:
    """The records whose file names match, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]


def machine(record: dict[str, Any]) -> str:
    """Where a record was measured, in words."""
    cores, processor = record["machine"]["cores"], record["machine"]["processor"]
    return f"{cores} core{'s' * (cores > 1)} of {processor}"
