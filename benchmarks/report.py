"""Draw the tables and plots of the docs from benchmarks/results/.

    python benchmarks/report.py

Replaces what stands between `<!-- results:NAME -->` and `<!-- end -->` in the README and the docs.
"""

import re
from collections.abc import Callable

from tables import ROOT, learning, speed, survival, toys

from maxent import registry

PAGES = {"README.md": "sac", "docs/architecture.md": "sac", "docs/tasks.md": "sql", "docs/survives.md": "sac"}
PAGES |= dict.fromkeys(("docs/members.md", "docs/device-environments.md", "docs/update-speed.md"), "sac")
PAGES |= {f"docs/{name}.md": name for name in registry.ALGORITHMS if (ROOT / "docs" / f"{name}.md").exists()}
"""Each page, and the algorithm whose results it shows."""
BLOCKS: dict[str, Callable[[str, str], str]] = {
    "learning": learning.learning,
    "ablation": lambda folder, algo: learning.learning(folder, "sac_deterministic"),
    "tried": lambda folder, algo: learning.tried(algo),
    "settings": lambda folder, algo: learning.settings(algo),
    "family": lambda folder, algo: learning.family(folder),
    "speed": lambda folder, algo: speed.speed(),
    "updates": lambda folder, algo: speed.updates(),
    "account": lambda folder, algo: speed.account(),
    "threads": lambda folder, algo: speed.threads(),
    "cost": lambda folder, algo: speed.cost(),
    "growth": lambda folder, algo: speed.growth(folder),
    "multigoal": lambda folder, algo: toys.multigoal(folder),
    "two-passage": lambda folder, algo: toys.two_passage(),
    "chaos": lambda folder, algo: survival.chaos(),
    "soak": lambda folder, algo: survival.soak(),
    "overhead": lambda folder, algo: survival.overhead(),
}
"""What stands in a block of that name, from the folder that holds the figures' and the page's algorithm."""


def main() -> None:
    """Fill every block of every page."""
    for name, algo in PAGES.items():
        page = ROOT / name
        folder = "docs/" if page.parent == ROOT else ""

        def filled(block: re.Match[str], folder: str = folder, algo: str = algo) -> str:
            return f"<!-- results:{block[1]} -->\n{BLOCKS[block[1]](folder, algo)}\n<!-- end -->"

        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<!-- results:(\S+) -->\n.*?<!-- end -->", filled, text, flags=re.S)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
