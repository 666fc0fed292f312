"""Where the time of an update goes: its kernels, from a profile, by the equation that they belong to.

    python benchmarks/account.py [--hidden 256] [--updates 100]

Scans of fifty updates of SAC on a full replay of a hundred thousand HalfCheetah (or, with 64 units, Pendulum)
transitions are timed without a profile, and then traced. Each kernel of the compiled program is looked up in its text,
which names the function that it comes from. All is computed on one thread: of a kernel that several share, a profile
shows one thread's part alone. What no kernel uses of the time is spent on starting them. Tracing slows small kernels
down, so the table gives the traced time too. The products of native.c have biases and activations in them.

The list of one update's matrix products alone, from speed.py, is timed in the same process. The tables go to
benchmarks/results/account-<processor>.json too, one for each width; a width that is not measured again stays.
"""

import argparse
import gzip
import json
import os
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["PJRT_NPROC"] = "1"  # read when JAX starts

import jax
import jax.numpy as jnp
import numpy as np
import parts
from speed import UNIT, product_list, products

from maxent import devices, registry, streams
from maxent.config import SACConfig, TrainConfig
from maxent.loops.programs import Programs
from maxent.replay import ring
from maxent.run import folder
from maxent.types import Leaf, Spec

SCANNED, ROWS = 50, 100_000
FRAMES = re.compile(r"stack_frame_id=(\d+)")
PRODUCT, SUM = "matrix products", "sums over the batch (gradients of biases, means)"
GROUPS = {
    "random": "random numbers",
    "streams.py": "random numbers",
    "ring.py": "drawing the batch from the replay",
    "optimisers.py": "Adam",
    "polyak": "target critics",
    "networks.py": "between the products of the networks: biases, activations, their gradients",
    "distributions.py": "the policy's distribution",
    "observations.py": "statistics of the observations",
}
OTHER = "everything else: the targets, the losses, metrics, copies"


class Text:
    """A compiled program's text: what kind of kernel each name stands for, and from which functions it comes."""

    def __init__(self, text: str) -> None:
        tables = {
            name: dict(self._table(text, name))
            for name in ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
        }
        self._files, self._functions = tables["FileNames"], tables["FunctionNames"]
        self._locations, self._frames = tables["FileLocations"], tables["StackFrames"]
        self.lines, self._bodies = dict[str, str](), dict[str, list[str]]()
        body = list[str]()
        for line in text.splitlines():
            if found := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
                body = self._bodies[found[1]] = []
            elif found := re.match(r"\s+(?:ROOT )?%([\w.-]+) = ", line):
                self.lines[found[1]] = line
                body.append(line)

    @staticmethod
    def _table(text: str, name: str) -> Iterator[tuple[int, str]]:
        for line in text.partition(f"\n{name}\n")[2].splitlines():
            number, _, rest = line.partition(" ")
            if not number.isdigit():
                return
            yield int(number), rest

    def group(self, kernel: str) -> str:
        """What a kernel does."""
        line = self.lines.get(kernel, "")
        called = re.search(r"(?:calls|body)=%([\w.-]+)", line)
        lines = [line, *(self._bodies.get(called[1], []) if called else [])]
        if ("maxent_" in line and "maxent_adam" not in line) or any(re.search(r"\bdot\(", own) for own in lines):
            return PRODUCT
        if "__ynn_fusion" in line or re.search(r"\breduce\(", line):
            return SUM
        votes = Counter(group for own in lines if (group := self._origin(own)))
        return votes.most_common(1)[0][0] if votes else OTHER

    def _origin(self, line: str) -> str:
        if "threefry" in line or "jit(_uniform)" in line or "jit(_bits)" in line:
            return GROUPS["random"]
        found = FRAMES.search(line)
        frame = int(found[1]) if found else 0
        while frame:
            entry = self._frames[frame]
            location = self._locations[int(re.search(r"file_location_id=(\d+)", entry)[1])]  # type: ignore[index]
            fields = dict(re.findall(r"(\w+)=(\d+)", location))
            file = self._files[int(fields["file_name_id"])].strip('"').rpartition("/")[2]
            function = self._functions[int(fields["function_name_id"])].strip('"')
            for key in (function, file):
                if key in GROUPS:
                    return GROUPS[key]
            parent = re.search(r"parent_frame_id=(\d+)", entry)
            frame = int(parent[1]) - 1 if parent else 0
        return ""


def busy(folder_: str) -> tuple[Counter[str], float]:
    """Milliseconds that each kernel has used of its thread, nested ones taken out, and those from first to last."""
    (file,) = Path(folder_).rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    threads = defaultdict[Any, list[dict[str, Any]]](list)
    for e in events:
        if e.get("ph") == "X" and re.match("tf_XLA(Eigen|PjRt)", names.get((e["pid"], e["tid"]), "")):
            threads[e["pid"], e["tid"]].append(e)
    used = Counter[str]()
    for own in threads.values():
        open_ = list[dict[str, Any]]()
        for e in sorted(own, key=lambda e: (e["ts"], -e["dur"])):
            while open_ and open_[-1]["ts"] + open_[-1]["dur"] <= e["ts"]:
                open_.pop()
            used[e["name"]] += e["dur"] / 1000
            if open_:
                used[open_[-1]["name"]] -= e["dur"] / 1000
            open_.append(e)
    every = [e for own in threads.values() for e in own]
    return used, (max(e["ts"] + e["dur"] for e in every) - min(e["ts"] for e in every)) / 1000


def updates(hidden: int) -> tuple[Callable[[int], None], Callable[[int], None], Text]:
    """What runs so many updates, what multiplies their lists of products alone, and the updates' compiled text."""
    features, actions = (17, 6) if hidden > 64 else (3, 1)
    spec = Spec(Leaf((features,), "float32"), Leaf((actions,), "float32"))
    config = SACConfig(hidden_sizes=(hidden, hidden))
    devices.begin(TrainConfig("HalfCheetah-v5" if hidden > 64 else "Pendulum-v1"), config, 1)
    programs = Programs(registry.algorithm("sac"), config, spec)
    roots = streams.roots([0])
    obs = np.random.default_rng(0).normal(size=(ROWS, 1, 1, features)).astype(np.float32)
    rows = ring.empty(spec, ROWS, 1, 1)._replace(obs=jnp.asarray(obs), written=jnp.uint32(ROWS))
    learned, done = programs.init(roots, {}), 0

    def learn(count: int) -> None:
        nonlocal learned, done
        for _ in range(count // SCANNED):
            learned = programs.learn(learned, rows, roots, np.uint32(done), count=SCANNED)
            done += SCANNED
        jax.block_until_ready(learned)

    multiply = products(product_list(features, actions, hidden))
    learn(SCANNED)
    compiled = programs.learn.lower(learned, rows, roots, np.uint32(0), count=SCANNED).compile().as_text()
    return learn, lambda count: multiply(count // UNIT), Text(compiled)


def measure(hidden: int, count: int) -> dict[str, Any]:
    """One width's table."""
    learn, multiply, text = updates(hidden)
    seconds: dict[str, list[float]] = {"update": [], "products alone": []}
    for _ in range(5):
        for name, run in ((name, run) for name, run in zip(seconds, (learn, multiply), strict=True)):
            started = time.perf_counter()
            run(count)
            seconds[name].append((time.perf_counter() - started) / count)
    with tempfile.TemporaryDirectory() as traced:
        with jax.profiler.trace(traced):
            learn(count)
        used, wall = busy(traced)
    groups, kernels = Counter[str](), Counter[str]()
    for name, spent in used.items():
        if name in text.lines:
            groups[text.group(name)] += spent / count
            kernels[text.group(name)] += 1
    table = {name: {"kernels": kernels[name], "ms": round(spent, 4)} for name, spent in groups.most_common()}
    table["starting kernels"] = {"kernels": 0, "ms": round(wall / count - sum(groups.values()), 4)}
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": folder.versions(),
        "machine": folder.machine(),
        "git": folder.git_revision(),
        "ms": {name: round(1000 * statistics.median(own), 4) for name, own in seconds.items()},
        "ms_traced": round(wall / count, 4),
        "thread_ms": table,
    }


def main() -> None:
    """Measure what the command line asks for, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256, help="units of both layers")
    parser.add_argument("--updates", type=int, default=100, help="in a block")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])  # native.c has as many threads as there are cores
    record = measure(arguments.hidden, arguments.updates)
    print(record["ms"], "ms; traced", record["ms_traced"])
    for name, entry in record["thread_ms"].items():
        print(f"{entry['ms']:8.3f}  {entry['kernels']:3d}  {name}")
    path = parts.record_of("account", record["machine"]["processor"])
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | {str(arguments.hidden): record}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
