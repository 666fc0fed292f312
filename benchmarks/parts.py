"""What the scripts that measure in parts share: each part in a process of its own, all results in one file."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Part = Callable[[argparse.Namespace], dict[str, Any]]


def record_of(kind: str, processor: str) -> Path:
    """Where a processor's record of that kind is kept: figures of two machines do not mix."""
    words = re.findall(r"\w+", processor.lower())
    return RESULTS / f"{'-'.join([kind, *words])}.json"


def arguments_of(
    description: str | None, parts: dict[str, Part], out: Path, options: dict[str, tuple[int, str]]
) -> argparse.Namespace:
    """The command line's parts, all by default, and its options: name → (default, help)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}; all by default")
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--here", action="store_true", help="measure one part in this process and print it as JSON")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or list(parts)
    arguments.options = [f"--{name}={getattr(arguments, name)}" for name in options]
    unknown = [name for name in arguments.parts if name not in parts]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(parts)}")
    return arguments


def measure(arguments: argparse.Namespace, parts: dict[str, Part]) -> dict[str, Any]:
    """The record with every part of the command line measured anew; in a process of a part, that part's, printed."""
    if arguments.here:
        print(json.dumps(parts[arguments.parts[0]](arguments)))
        raise SystemExit(0)

    from maxent.run import folder

    record = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    for name in arguments.parts:
        print(name, flush=True)
        command = [sys.executable, sys.argv[0], name, "--here", *arguments.options]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        origin = {
            "command": shlex.join(["python", *sys.argv]), "versions": folder.versions(), "machine": folder.machine(),
            "git": folder.git_revision(), "load_after": [round(load, 2) for load in os.getloadavg()],
        }  # fmt: skip
        record[name] = measured | origin
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record
