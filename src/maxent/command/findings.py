"""What `maxent check` prints of the findings about an environment."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent.envs.check import Finding

MARKS = {"fault": ("✗", "bold red"), "warning": ("!", "yellow"), "fine": ("✓", "green")}


def show(findings: Sequence[Finding]) -> None:
    """A line a finding, its advice below it, and the number of each."""
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        mark, style = MARKS[finding.severity]
        text = Text(finding.found, overflow="fold")
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(Text(mark, style=style), finding.check, text)
    console = Console(highlight=False)
    console.print(table)
    console.print(summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """How many faults and warnings there are, and whether anything was left out."""
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] != 1)}" for s in ("fault", "warning"))
    whole = not counts["fault"] or {finding.check for finding in findings} >= {"spaces", "speed"}
    return told if whole else f"{told}; what needs a whole episode is checked when that is mended"
