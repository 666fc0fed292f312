"""Which devices a run learns on, how they share its members, and whether they have room for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from maxent import native, perceptron, registry
from maxent.config import TrainConfig
from maxent.errors import ConfigError
from maxent.types import Tree

SHARED = 2**23
"""Multiplications of a product up to which one thread has it sooner than several (docs/update-speed.md)."""
THREADS = "PJRT_NPROC"
"""The environment variable that JAX reads once, when it starts: on how many threads a CPU computes."""
CPUS = "JAX_NUM_CPU_DEVICES"
"""The one for how many devices a CPU passes."""
FLAGS = "XLA_FLAGS"
"""The one for XLA's settings, which it reads once as well."""
LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=65536"
"""The setting that makes one kernel of a CPU's loop over so few bytes: of JAX's generator for a batch,
which takes eighty otherwise (docs/update-speed.md)."""
BESIDE = "jax_cpu_enable_async_dispatch"
"""The setting that JAX reads once, when it starts: whether a CPU computes on a thread beside Python's."""
KINDS = ("auto", "cpu", "gpu", "tpu")


def begin(config: TrainConfig, settings: Any, members: int, learning: bool = True) -> None:
    """Start JAX for a run: with the CPUs that the members share, its small loops as one kernel, and on a single thread
    where that is faster.

    That is where the networks are small, or their products are not JAX's own and have threads of their own.

    Where nothing is computed beside acting (no policy learns, or a rollout has to be whole first), one CPU computes on
    Python's own thread: to wake another one takes longer than an action does (docs/update-speed.md).

    JAX starts once a process, and its variables are the user's: where either has come first, it is left as it is.

    Raises:
        ConfigError: where the devices asked for are no devices, or cannot share the members evenly.
    """
    kind, count = asked(config.device, members)
    if kind == "cpu" and count > 1 and CPUS not in os.environ:
        with suppress(RuntimeError):  # JAX has started; `choose` finds what it has
            jax.config.update("jax_num_cpu_devices", count)
    small = multiplications(config, settings, members // count) <= SHARED
    ours = perceptron.covers(settings.activation, settings.layer_norm) and native.available()
    variables = {FLAGS: f"{LOOPS} {os.environ.get(FLAGS, '')}"}  # where both set something, the user's comes last
    if THREADS not in os.environ and (small or ours):
        variables[THREADS] = "1"
    beside = jax.config.read(BESIDE)
    in_turn = not learning or (count == 1 and registry.algorithm(config.algo).feed == "rollout")
    jax.config.update(BESIDE, beside and not in_turn)
    try:
        with _environment(variables):
            jax.devices()
    finally:
        jax.config.update(BESIDE, beside)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def multiplications(config: TrainConfig, settings: Any, members: int) -> int:
    """About how many the largest product of an update, or of acting, has: rows × inputs × outputs of a layer."""
    learned = settings.batch_size * getattr(settings, "critics", 1) * getattr(settings, "value_particles", 1)
    return members * max(learned, config.envs) * max(settings.hidden_sizes, default=1) ** 2


def asked(words: str, members: int) -> tuple[str, int]:
    """The kind of device that "auto", "cpu", "gpu", "gpu:4", … asks for, and how many.

    Raises:
        ConfigError: where the words say something else, or so many cannot share the members evenly.
    """
    kind, colon, number = words.partition(":")
    if kind not in KINDS or (colon and not (number.isdecimal() and int(number) > 0)) or (kind == "auto" and colon):
        raise ConfigError(f"train.device is {words!r}: it must be auto, cpu, gpu or tpu, or how many, as in gpu:4")
    count = int(number or 1)
    if members % count:
        raise ConfigError(
            f"train.device is {words!r} and the number of members is {members}: it must be a multiple of {count}, so "
            "that each device has as many"
        )
    return kind, count


def choose(words: str, members: int) -> Mesh | None:
    """The devices for "auto", "cpu", "gpu", "gpu:4", …; None for the one that JAX takes by itself.

    Raises:
        ConfigError: where there are not so many of them, or they cannot share the members evenly.
    """
    kind, count = asked(words, members)
    if kind == "auto":
        return None
    try:
        found = jax.devices(kind)
    except RuntimeError:
        have = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise ConfigError(f"train.device is {words!r} and JAX finds no {kind} here, only {have}") from None
    if count > len(found):
        have = f"train.device is {words!r} and JAX started with {len(found)} {kind} in this process"
        raise ConfigError(have + (f": set {CPUS}={count} before it starts" if kind == "cpu" else ""))
    if count == 1 and found[0] == jax.devices()[0]:
        return None
    return Mesh(np.array(found[:count]), ("member",))


REPLAY = "the replay", "lower buffer_size (of a rollout, rollout_length), or the number of members"
NETWORKS = "what is learned", "lower hidden_sizes, critics, or the number of members"


def refuse_too_large(arrays: Tree, mesh: Mesh | None, part: tuple[str, str] = REPLAY, beside: Tree = ()) -> None:
    """Raise a ConfigError, before anything is allocated, where arrays of these shapes do not fit beside others.

    `part` is what they are, and what to do about it.
    """
    devices = [jax.devices()[0]] if mesh is None else list(mesh.devices.flat)
    memories = 1 if devices[0].platform == "cpu" else len(devices)
    needed, taken = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / memories for tree in (arrays, beside)
    )
    free = free_bytes(devices[0])
    if free is None:
        return
    free -= taken
    if needed > free:
        each = f" on each of {memories} devices" if memories > 1 else ""
        raise ConfigError(f"{part[0]} needs {needed / 1e9:,.1f} GB{each} and {free / 1e9:,.1f} GB are free: {part[1]}")


def free_bytes(device: Any) -> int | None:
    """Memory that is free on a device, None where nobody knows."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pages, size = "SC_AVPHYS_PAGES", "SC_PAGE_SIZE"
        return os.sysconf(pages) * os.sysconf(size) if pages in os.sysconf_names else None
