"""Members shared by several devices: parts of the CPU, which serves as many as it is told."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from maxent import devices, native
from maxent.config import TrainConfig
from maxent.errors import ConfigError
from maxent.run import driver, folder
from tiny import SETTINGS

SCRIPT = """
import sys
import jax
import numpy as np
import maxent
from maxent.config import TrainConfig
from maxent.envs.make import Factory
from maxent.run import driver
import tiny

env, algo, shared = sys.argv[1:4]
settings = {"hidden_sizes": (8,), "learning_rate": 1e-3}
settings |= {"rollout_length": 32, "batch_size": 16} if algo == "ppo" else {
    "learning_starts": 40, "batch_size": 8, "buffer_size": 1999}
from maxent import registry
from maxent.settings import build
config = build(registry.entry(algo).config, settings, algo)

def run(device, seeds=4):
    made = driver.Driver(
        TrainConfig(env, algo, steps=96, seeds=seeds, device=device, max_episode_steps=25), config,
        Factory(env, {}, 25))
    made.learn(96)
    return made

both, alone = run(shared), run("auto")
ring = both.loop.ring.reward
assert len(ring.sharding.device_set) == int(shared[4:]), ring.sharding
assert ring.addressable_shards[0].data.shape[1] == 4 // int(shared[4:])
for name in ("obs", "action", "reward", "boundary"):
    a, b = (np.asarray(getattr(r.loop.ring, name), np.float64)[:40] for r in (alone, both))
    np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
for a, b in zip(*(jax.tree.leaves(r.loop.learned.state) for r in (alone, both)), strict=True):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-4)
returns = [[e.total_reward for own in r.evaluate(2) for e in own] for r in (alone, both)]
np.testing.assert_allclose(*returns, rtol=1e-2)
if algo != "ppo":
    args = both.loop.learned, both.loop.ring, both.loop.roots, np.uint32(0)
    text = both.programs.learn.lower(*args, count=1).compile().as_text()
    assert "all-gather" not in text and "all-reduce" not in text, "members need nothing of each other"
if algo == "sac":
    agent = maxent.SAC(env, seeds=4, device=shared, hidden_sizes=[8])
    one = maxent.SAC(env, seeds=4, hidden_sizes=[8])
    actions = [a.predict(np.zeros(3, np.float32), member=2, deterministic=True)[0] for a in (agent, one)]
    np.testing.assert_allclose(*actions, rtol=1e-5)
print("equal")
"""


@pytest.mark.parametrize(
    ("env", "algo", "shared"),
    [
        ("Pendulum-v1", "sac", "cpu:4"),
        pytest.param("jax/CartPole-v1", "ppo", "cpu:2", marks=pytest.mark.slow),
        pytest.param("jax/Pendulum-v1", "td3", "cpu:2", marks=pytest.mark.slow),
    ],
)
def test_shared_members_learn_what_they_would_alone(env, algo, shared):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, env, algo, shared], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("cuda", "must be auto, cpu, gpu or tpu"),
        ("gpu:", "must be auto, cpu, gpu or tpu"),
        ("cpu:²", "must be auto, cpu, gpu or tpu"),
        ("cpu:0", "must be auto, cpu, gpu or tpu"),
        ("auto:2", "must be auto, cpu, gpu or tpu"),
        ("tpu", "JAX finds no tpu here, only"),
        ("cpu:4096", "JAX started with [0-9]+ cpu in this process: set JAX_NUM_CPU_DEVICES=4096 before"),
    ],
)
def test_devices_that_are_not_there_are_refused(words, complaint):
    with pytest.raises(ConfigError, match=complaint):
        devices.choose(words, 4096)


def test_members_that_cannot_be_shared_evenly_are_refused(monkeypatch):
    monkeypatch.setattr(devices.jax, "devices", lambda kind=None: [object(), object()])
    with pytest.raises(ConfigError, match="number of members is 3"):
        devices.choose("cpu:2", 3)


def test_a_replay_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(devices, "free_bytes", lambda device: 2 * 10**9)
    devices.refuse_too_large({"obs": np.empty((1000, 1000, 400), np.float32)}, None)
    with pytest.raises(ConfigError, match=r"the replay needs 2.4 GB and 2.0 GB are free: lower buffer_size"):
        devices.refuse_too_large({"obs": np.empty((1000, 1000, 600), np.float32)}, None)
    beside = {"weights": np.empty((1000, 1000, 125), np.float32)}
    with pytest.raises(ConfigError, match=r"the replay needs 1.6 GB and 1.5 GB are free"):
        devices.refuse_too_large({"obs": np.empty((1000, 1000, 400), np.float32)}, None, beside=beside)


@pytest.mark.parametrize(
    ("platform", "complaint"), [("cpu", "needs 4.8 GB and"), ("gpu", "2.4 GB on each of 2 devices")]
)
def test_parts_of_a_cpu_have_one_memory_and_devices_one_each(monkeypatch, platform, complaint):
    monkeypatch.setattr(devices, "free_bytes", lambda device: 2 * 10**9)
    two = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)] * 2))
    with pytest.raises(ConfigError, match=complaint):
        devices.refuse_too_large({"obs": np.empty((1000, 1000, 1200), np.float32)}, two)


THREADS = """
import sys
from pathlib import Path
import maxent

agent = maxent.SAC("Pendulum-v1", hidden_sizes=[int(sys.argv[1])], learning_starts=10, buffer_size=1000, batch_size=256)
print(sum(path.read_text().startswith("tf_XLAEigen") for path in Path("/proc/self/task").glob("*/comm")))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are counted in /proc")
@pytest.mark.parametrize(
    ("width", "wished", "compiler", "threads"),
    [(64, None, "", 1), (129, None, "", "all"), (64, "3", "", 3), (129, None, "cc", "all, or 1 beside native.c")],
)
def test_small_networks_compute_on_one_thread(width, wished, compiler, threads):
    """And all that have threads of their own."""
    environment = {name: value for name, value in os.environ.items() if name != devices.THREADS}
    environment |= {devices.THREADS: wished} if wished else {}
    if threads == "all, or 1 beside native.c":
        threads = 1 if native.available() else "all"
    command = [sys.executable, "-c", THREADS, str(width)]
    environment |= {"JAX_PLATFORMS": "cpu", "CC": compiler}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == (len(os.sched_getaffinity(0)) if threads == "all" else threads)


GENERATOR = """
import os
import jax
from maxent import devices
from maxent.config import SACConfig, TrainConfig

before = os.environ.get(devices.FLAGS)
devices.begin(TrainConfig("Pendulum-v1"), SACConfig(), 1)
assert os.environ.get(devices.FLAGS) == before, "the variable is as it was"
draw = jax.jit(lambda key: 2 * jax.random.normal(key, (256,)))
text = draw.lower(jax.random.key(0)).compile().as_text()
print("xla_cpu_small_call" in text)
"""


@pytest.mark.parametrize(
    ("flags", "one_kernel"),
    [
        (None, True),
        ("--xla_backend_extra_options=xla_cpu_use_fusion_emitters=true", True),
        ("--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=0", False),
    ],
)
def test_the_generators_loop_is_one_kernel_unless_the_user_says_otherwise(flags, one_kernel):
    environment = {name: value for name, value in os.environ.items() if name != devices.FLAGS}
    environment |= {"JAX_PLATFORMS": "cpu"} | ({devices.FLAGS: flags} if flags else {})
    done = subprocess.run([sys.executable, "-c", GENERATOR], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(one_kernel)]


BESIDE = """
import sys
import jax
import jax.numpy as jnp
from maxent import devices, registry
from maxent.config import TrainConfig

algo, count, learning = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "learning"
settings = registry.entry(algo).config()
devices.begin(TrainConfig("Pendulum-v1", algo, seeds=count, device=f"cpu:{count}"), settings, count, learning)
assert jax.config.read(devices.BESIDE), "the setting is as it was"
x = jnp.full((1500, 1500), 1e-3)
slow = jax.jit(lambda x: x @ x @ x @ x @ x).lower(x).compile()
print(not slow(x).is_ready())
"""


@pytest.mark.parametrize(
    ("algo", "count", "doing", "beside"),
    [
        ("sac", 1, "learning", True),
        ("ppo", 1, "learning", False),
        ("ppo", 2, "learning", True),
        ("sac", 2, "acting", False),
    ],
)
def test_where_nothing_runs_beside_acting_one_thread_does_both(algo, count, doing, beside):
    """But updates from a replay run while the environments step, and the parts of a CPU beside each other."""
    command = [sys.executable, "-c", BESIDE, algo, str(count), doing]
    environment = {name: value for name, value in os.environ.items() if name != devices.CPUS}
    done = subprocess.run(command, env=environment | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(beside)]


LOADED = """
import sys
import jax
from maxent.run import policy

policy.load(sys.argv[1], member=1)
print(len(jax.devices()))
"""


def test_a_saved_policy_acts_on_one_device(tmp_path):
    """However many its run learned on: they may not be there any more."""
    run = driver.start(TrainConfig("Pendulum-v1", steps=60, seeds=2), SETTINGS, {}, out=str(tmp_path / "run"))
    run.learn(60)
    config = run.path / folder.CONFIG
    config.write_text(config.read_text().replace('device = "auto"', 'device = "cpu:2"'))
    environment = {name: value for name, value in os.environ.items() if name != devices.CPUS}
    command = [sys.executable, "-c", LOADED, str(run.path)]
    done = subprocess.run(command, env=environment | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert folder.read(run.path)[0].device == "cpu:2" and done.stdout.split() == ["1"]
