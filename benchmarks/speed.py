"""How fast the whole loop is beside Stable-Baselines3 and SBX, and how near the updates come to their own products.

    python benchmarks/speed.py [cheetah] [pendulum] [device] [td3] [ppo] [--rounds 8] [--seconds 3] [--peers DIR]

Every library is a process of its own, with its own default threading on all cores. Each is set up and warmed up first,
past the random steps and past compilation. Then they run blocks of environment steps in turn, A B C A B C …, while the
others wait for their next line of input; a block is env step, act, store and update, one update a step. The library's
process is also asked for two more kinds of blocks, in the same rounds: its updates alone, queued one by one and scanned
fifty at a time. One more process has XLA multiply the bare list of one update's matrix products, on all threads. What
counts is the ratio within a round, and the median of those over the rounds. Of each library the table has its peak of
memory, and the seconds from its start to its first environment step, imports and compilation included.

The peers live in an environment of their own, benchmarks/.peers, which is made when it is missing (0.4 GB of
downloads); --peers takes another one. The tables go to benchmarks/results/speed-MACHINE.json too, with every round;
settings that are not measured again keep what they had.
"""

import argparse
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import parts

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
PEERS = (TORCH, "stable-baselines3==2.9.2", "sbx-rl==0.28.0")
SHARED = ("gymnasium[mujoco]", "mujoco", "jax", "numpy")
"""Taken in the versions that this library runs with, so that the libraries are all that differs."""
VERSIONS = (
    "maxent-rl", "stable-baselines3", "sbx-rl", "torch", "jax", "jaxlib", "flax", "tfp-nightly", "optax", "numpy",
    "gymnasium", "mujoco",
)  # fmt: skip

LIBRARIES = ("maxent", "sb3", "sbx")
BATCH, CRITICS, LEARNING_STARTS = 256, 2, 1000
WARM_UP = 250
"""Environment steps after the random ones, before the first block that counts."""
UNIT = 50
"""Updates in one scan, and what the length of every block is a multiple of."""
SETTLE = 0.3
"""Seconds before a block: OpenMP's threads spin for 0.2 s after a block of another library."""

STARTED, MEMORY = "SPEED_STARTED", "memory"
"""The variable that tells a worker when it was started, and the line that asks for its peak of memory."""

Job = Callable[[int], None]
"""Runs a block of so many steps, updates or lists of products, and waits for it."""


class Setting(NamedTuple):
    """An environment, the units of each of two hidden layers, and the ratios that the library should reach."""

    env: str
    hidden: int
    targets: dict[str, float]
    algo: str = "sac"
    unit: int = UNIT
    """What the length of a block is a multiple of."""

    @property
    def host_env(self) -> str:
        """The same task on the host, which the peers are given."""
        return self.env.removeprefix("jax/")


SETTINGS = {
    "cheetah": Setting("HalfCheetah-v5", 256, {"sb3": 3.6, "sbx": 1.5}),
    "pendulum": Setting("Pendulum-v1", 64, {"sb3": 12.0, "sbx": 3.0}),
    "device": Setting("jax/Pendulum-v1", 64, {"sb3": 20.0}),
    "td3": Setting("HalfCheetah-v5", 256, {"sb3": 3.0}, "td3"),
    "ppo": Setting("HalfCheetah-v5", 64, {"sb3": 3.0}, "ppo", 2048),
}


# ---- What a worker process runs. The peers' environment does not hold this library, so all imports are late.


def maxent_jobs(env: str, hidden: int, algo: str) -> dict[str, Job]:
    """The loop of this library; of SAC, also the updates alone."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from maxent import registry
    from maxent.config import TrainConfig
    from maxent.envs.make import Factory
    from maxent.run.driver import Driver

    usual = {"hidden_sizes": (hidden, hidden)}
    replays = {"batch_size": BATCH, "critics": CRITICS, "learning_starts": LEARNING_STARTS}
    # The peer does not normalise observations unless its environment is wrapped.
    settings = usual | ({"normalize_observations": False} if algo == "ppo" else replays)
    driver = Driver(TrainConfig(env, algo), registry.entry(algo).config(**settings), Factory(env))
    loop, programs = driver.loop, driver.programs
    driver.learn(1)
    stepped()

    def steps(count: int) -> None:
        driver.learn(loop.step + count)
        jax.block_until_ready(loop.learned)

    if algo != "sac":
        if algo != "ppo":
            steps(LEARNING_STARTS + WARM_UP)
        return {"steps": steps}
    steps(LEARNING_STARTS + WARM_UP)
    learned, updates = jax.tree.map(jnp.copy, loop.learned), loop.updates

    def learn(at_once: int, times: int) -> None:
        nonlocal learned, updates
        for _ in range(times):
            learned = programs.learn(learned, loop.ring, loop.roots, np.uint32(updates), count=at_once)
            updates += at_once
        jax.block_until_ready(learned)

    return {
        "steps": steps,
        "queued": lambda count: learn(1, count),
        "scanned": lambda count: learn(UNIT, count // UNIT),
    }


def products_jobs(env: str, hidden: int, algo: str) -> dict[str, Job]:
    """The matrix products of an update of SAC alone."""
    stepped()
    multiply = products(listed_for(env, hidden))
    return {"products": lambda count: multiply(count // UNIT)}


def sb3_jobs(env: str, hidden: int, algo: str) -> dict[str, Job]:
    """Stable-Baselines3's loop, with the published settings where its defaults are others."""
    import gymnasium
    import numpy as np
    import stable_baselines3
    import torch
    from stable_baselines3.common.noise import NormalActionNoise

    made = gymnasium.make(env)
    relu = {"net_arch": [hidden, hidden], "activation_fn": torch.nn.ReLU}
    if algo == "ppo":
        model = stable_baselines3.PPO("MlpPolicy", made, device="cpu", seed=0)  # 2 × 64, 2048 steps, 10 epochs
        return {"steps": lambda count: model.learn(count, stepped, reset_num_timesteps=False)}
    if algo == "td3":
        size = made.action_space.shape[0]
        settings = peer_settings() | {
            "action_noise": NormalActionNoise(np.zeros(size), 0.1 * np.ones(size)),
            "policy_kwargs": relu | {"n_critics": CRITICS},
        }
        del settings["ent_coef"], settings["target_entropy"]
        model = stable_baselines3.TD3("MlpPolicy", made, device="cpu", **settings)
    else:
        settings = peer_settings() | {"target_update_interval": 1, "policy_kwargs": relu | {"n_critics": CRITICS}}
        model = stable_baselines3.SAC("MlpPolicy", made, device="cpu", **settings)
    return {"steps": lambda count: peer_steps(model, count)}


def sbx_jobs(env: str, hidden: int, algo: str) -> dict[str, Job]:
    """SBX's loop; its usual settings are the same."""
    import flax.linen
    import gymnasium
    from sbx import SAC

    network = {"net_arch": [hidden, hidden], "activation_fn": flax.linen.relu, "n_critics": CRITICS}
    settings = peer_settings() | {"policy_delay": 1, "policy_kwargs": network}
    model = SAC("MlpPolicy", gymnasium.make(env), **settings)
    return {"steps": lambda count: peer_steps(model, count)}


def peer_settings() -> dict[str, Any]:
    """What makes the peers' work equal to this library's defaults."""
    return {
        "learning_rate": 3e-4, "buffer_size": 1_000_000, "learning_starts": LEARNING_STARTS, "batch_size": BATCH,
        "tau": 0.005, "gamma": 0.99, "train_freq": 1, "gradient_steps": 1, "ent_coef": "auto", "target_entropy": "auto",
        "seed": 0,
    }  # fmt: skip


def peer_steps(model: Any, count: int) -> None:
    """So many steps more; the first call passes the random ones too."""
    if not model.num_timesteps:
        model.learn(LEARNING_STARTS + WARM_UP, stepped)
    model.learn(count, reset_num_timesteps=False)


first_step: list[float] = []


def stepped(*_: Any) -> bool:
    """To be called after an environment step; the first call counts. The peers' `learn` takes it as a callback."""
    if not first_step:
        first_step.append(time.time() - float(os.environ[STARTED]))
    return True


JOBS = {"maxent": maxent_jobs, "sb3": sb3_jobs, "sbx": sbx_jobs, "products": products_jobs}


def product_list(features: int, actions: int, hidden: int) -> list[tuple[str, int, int]]:
    """Every matrix product of one SAC update, by layer: (kind, the layer's inputs, its outputs)."""
    policy = [(features, hidden), (hidden, hidden), (hidden, 2 * actions)]
    critic = [(features + actions, hidden), (hidden, hidden), (hidden, 1)]

    def of(kind: str, layers: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
        return [(kind, *layer) for layer in layers]

    next_action = of("forward", policy)
    target_critics = CRITICS * of("forward", critic)
    critic_loss = CRITICS * (of("forward", critic) + of("to weights", critic) + of("to inputs", critic[1:]))
    policy_loss = of("forward", policy) + of("to weights", policy) + of("to inputs", policy[1:])
    through_critics = CRITICS * (of("forward", critic) + of("to inputs", critic))
    return next_action + target_critics + critic_loss + policy_loss + through_critics


def listed_for(host_env: str, hidden: int) -> list[tuple[str, int, int]]:
    """`product_list` for the spaces of an environment."""
    import gymnasium

    env = gymnasium.make(host_env)
    return product_list(env.observation_space.shape[0], env.action_space.shape[0], hidden)


def floating_point_operations(listed: list[tuple[str, int, int]]) -> int:
    """Of all those products: a multiplication and an addition for each weight and each row of the batch."""
    return sum(2 * BATCH * inputs * outputs for _, inputs, outputs in listed)


def products(listed: list[tuple[str, int, int]]) -> Callable[[int], None]:
    """Runs a compiled program so many times that computes the whole list UNIT times and nothing else.

    Every product has operands of its own, so none depends on another. The barriers keep the compiler from taking the
    products out of the scan, and from computing only the one entry of each that is looked at.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    def operands(number: int, kind: str, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
        """Activations [batch, in] and weights [in, out]; gradients [batch, out] take the place of one or the other."""
        x, w, gradient = (BATCH, inputs), (inputs, outputs), (BATCH, outputs)
        shapes = {"forward": (x, w), "to inputs": (gradient, w), "to weights": (x, gradient)}[kind]
        left, right = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
        return jax.random.normal(left, shapes[0]), jax.random.normal(right, shapes[1])

    contracted = {"forward": (1, 0), "to inputs": (1, 1), "to weights": (0, 0)}

    def once(total: jax.Array, _: None, pairs: list[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, None]:
        pairs, total = lax.optimization_barrier((pairs, total))
        results = []
        for (kind, _, _), (left, right) in zip(listed, pairs):
            a, b = contracted[kind]
            results.append(lax.dot_general(left, right, (((a,), (b,)), ((), ()))))
        return total + sum(result[0, 0] for result in lax.optimization_barrier(results)), None

    @jax.jit
    def program(pairs: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
        return lax.scan(lambda total, x: once(total, x, pairs), jnp.zeros(()), None, length=UNIT)[0]

    pairs = [operands(i, *product) for i, product in enumerate(listed)]

    def run(times: int) -> None:
        jax.block_until_ready([program(pairs) for _ in range(times)])

    return run


def work(library: str, name: str) -> None:
    """Set up, warm up, say so, and then answer every line "job count" with the seconds that it took."""
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    setting = SETTINGS[name]
    env = setting.env if library == "maxent" else setting.host_env
    jobs = JOBS[library](env, setting.hidden, setting.algo)
    for job in jobs.values():
        job(setting.unit)
    print(json.dumps({"jobs": list(jobs), "versions": versions(), "first_step": first_step[0]}), file=reply)
    for line in sys.stdin:
        name, count = line.split()
        if name == MEMORY:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=reply)
            continue
        started = time.perf_counter()
        jobs[name](int(count))
        print(time.perf_counter() - started, file=reply)


def versions() -> dict[str, str]:
    """Of what this process may import."""
    installed = {d.name.lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in VERSIONS if name in installed}


# ---- The process that asks them in turn.


class Worker:
    """A library in a process of its own."""

    def __init__(self, library: str, python: Path, setting: str) -> None:
        self.library = library
        command = [python, __file__, "--worker", library, setting]
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", STARTED: str(time.time())},
        )  # fmt: skip
        about = json.loads(self._answer())
        self.jobs, self.versions, self.first_step = about["jobs"], about["versions"], about["first_step"]

    def run(self, job: str, count: int) -> float:
        """The seconds that a block took."""
        time.sleep(SETTLE)
        self._process.stdin.write(f"{job} {count}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker of {self.library} died; see its error above")
        return line


def measure(name: str, pythons: dict[str, Path], rounds: int, seconds: float) -> dict[str, Any]:
    """The rounds of one setting: what every job reached in each, per second, and what follows from it."""
    setting = SETTINGS[name]
    libraries = [Worker(library, pythons[library], name) for library in ("maxent", *setting.targets)]
    turns = [(f"{worker.library} {job}", worker, job) for worker in libraries for job in worker.jobs]
    if setting.algo == "sac":
        turns.append(("maxent products", Worker("products", pythons["maxent"], name), "products"))
    turns.sort(key=lambda turn: turn[2] != "steps")
    unit = setting.unit
    rates = {name: unit / worker.run(job, unit) for name, worker, job in turns}
    table: list[dict[str, float]] = []
    for number in range(rounds):
        for name, worker, job in turns:
            count = max(1, round(rates[name] * seconds / unit)) * unit
            rates[name] = count / worker.run(job, count)
        table.append({name: round(rate, 2) for name, rate in rates.items()})
        print(f"  round {number + 1}", "  ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()), flush=True)
    peaks = {worker.library: round(worker.run(MEMORY, 0)) for worker in libraries}
    for worker in {worker for _, worker, _ in turns}:
        worker.close()
    return {
        "env": setting.env,
        "algo": setting.algo,
        "hidden": setting.hidden,
        "versions": {worker.library: worker.versions for worker in libraries},
        "seconds_to_first_step": {worker.library: round(worker.first_step, 2) for worker in libraries},
        "peak_memory_mib": peaks,
        "per_second": table,
    } | summary(setting, table)


def summary(setting: Setting, table: list[dict[str, float]]) -> dict[str, Any]:
    """The medians, and the ratios within rounds."""
    medians = {name: statistics.median(row[name] for row in table) for name in table[0]}
    pairs = {f"maxent / {peer}": ("maxent steps", f"{peer} steps") for peer in setting.targets}
    if "maxent products" in medians:
        pairs |= {f"{how} updates / products": (f"maxent {how}", "maxent products") for how in ("queued", "scanned")}
        pairs["steps / queued updates"] = ("maxent steps", "maxent queued")
    ratios = {name: spread([row[ours] / row[theirs] for row in table]) for name, (ours, theirs) in pairs.items()}
    for peer, target in setting.targets.items():
        ratios[f"maxent / {peer}"]["target"] = target
    found: dict[str, Any] = {"medians": medians, "ratios": ratios, "gflop_per_second": {}}
    if "maxent products" in medians:
        listed = listed_for(setting.host_env, setting.hidden)
        operations = floating_point_operations(listed)
        alone = ("maxent queued", "maxent scanned", "maxent products")
        found["gflop_per_second"] = {name: round(medians[name] * operations / 1e9, 1) for name in alone}
        found["products"] = {"count": len(listed), "floating_point_operations": operations}
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles and range."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    found = {"median": statistics.median(values), "q1": low, "q3": high, "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def show(record: dict[str, Any]) -> None:
    """Print a setting's tables."""
    print(f"\n{record['algo']} on {record['env']}, two layers of {record['hidden']}")
    for name, rate in record["medians"].items():
        speed = record["gflop_per_second"].get(name)
        print(f"  {name:18}{rate:9.1f} per second" + (f"{speed:8.1f} GFLOP/s" if speed else ""))
    print(f"  {'ratio':27}median     IQR            range")
    for name, r in record["ratios"].items():
        line = f"  {name:26}{r['median']:7.2f}  {r['q1']:6.2f} - {r['q3']:<6.2f} {r['min']:6.2f} - {r['max']:<6.2f}"
        if "target" in r:
            line += f"  at least {r['target']:g}: {'yes' if r['median'] >= r['target'] else 'NO'}"
        print(line.rstrip())
    for library, seconds in record["seconds_to_first_step"].items():
        memory = record["peak_memory_mib"][library]
        print(f"  {library:18}{seconds:9.1f} s from start to first step {memory:8.0f} MiB at most")


def peers_python(folder: Path, torch_index: str) -> Path:
    """The Python of the peers' environment, which is made where it is missing."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists():
        if subprocess.run([python, "-c", "import stable_baselines3, sbx"]).returncode:
            raise SystemExit(f"{folder} does not hold the peers whole: remove it, and it is made anew")
        return python
    print(f"Making the peers' environment in {folder}; this takes some minutes", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    index = ["--extra-index-url", torch_index] if torch_index else []
    subprocess.run([*install, "--no-deps", *index, TORCH], check=True)
    ours = [f"{name}=={importlib.metadata.version(name.partition('[')[0])}" for name in SHARED]
    subprocess.run([*install, *PEERS, *ours], check=True)
    return python


def main() -> None:
    """Measure the settings that the command line names, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"{', '.join(SETTINGS)}; all by default")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a block takes")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", help="the peers' environment")
    parser.add_argument("--torch-index", default="", help="package index with PyTorch for CPUs alone, else pip's own")
    parser.add_argument("--out", type=Path, help="the record, else that of this machine's processor")
    arguments = parser.parse_args()
    chosen = arguments.settings or list(SETTINGS)
    unknown = [name for name in chosen if name not in SETTINGS]
    if unknown:
        parser.error(f"there is no setting {unknown[0]!r}: choose from {', '.join(SETTINGS)}")

    from maxent.run import folder

    pythons = dict.fromkeys(LIBRARIES, peers_python(arguments.peers, arguments.torch_index)) | {
        "maxent": Path(sys.executable)
    }
    origin: dict[str, Any] = {
        "command": f"python benchmarks/speed.py {' '.join(chosen)} --rounds {arguments.rounds}",
        "machine": folder.machine(),
        "git": folder.git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "load_before": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "rounds": arguments.rounds,
        "seconds_a_block": arguments.seconds,
    }
    path = arguments.out or parts.record_of("speed", origin["machine"]["processor"])
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"settings": {}}
    for name in chosen:
        print(name, flush=True)
        record["settings"][name] = origin | measure(name, pythons, arguments.rounds, arguments.seconds)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    for name in chosen:
        show(record["settings"][name])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3])
    else:
        main()
