"""What becomes of sixteen environments that fail in all ways they can: no true step is lost, and no false one stored.

    python benchmarks/soak.py --steps 1000000

The real loop steps one member with sixteen environments; those that fail are made anew. Each environment records by
itself what it has truly shown and been given. At the end every transition of the replay is compared with that record,
bit for bit, and so are the finished episodes and the faults that were told. The policy acts and does not learn: some
rewards are 1e30, which are numbers, and kept, and would rightly end a training. Results go to
benchmarks/results/soak.json.
"""

import argparse
import json
import os
import shlex
import sys
import time
from array import array
from itertools import count, cycle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

RESULTS = Path(__file__).parent / "results"
ENVS = 16
UNIT = 2.0**-24
"""Observations are numbered, and these numbers are kept exactly in 32 bits."""
COLUMNS = ("before", "place before", "action", "reward", "discount", "boundary", "after", "place after")

ROUNDING = {"action": 1e-7}
"""Actions are scaled to the environment's bounds with 32 bits; everything else is compared bit for bit."""
WINDOWS = 100_000


class Record:
    """The truth, as the environments know it."""

    def __init__(self) -> None:
        self.shown = count()
        self.transitions = array("d")
        self.episodes: list[tuple[int, float]] = []
        self.faults = 0
        self.made = 0

    def add(self, *values: float) -> int:
        """A true transition; its place in the record."""
        self.transitions.extend(values)
        return len(self.transitions) - len(COLUMNS)

    def cut(self, place: int) -> None:
        """What followed this transition has failed, so its episode was cut there."""
        self.transitions[place + COLUMNS.index("boundary")] = 1.0


class Sound(gymnasium.Env):
    """Walks on a ring from a random place. At random it fails in the way of its kind, and does not record that step."""

    chance = 0.004

    def __init__(self, record: Record) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.record, self.rng = record, np.random.default_rng(record.made)
        record.made += 1

    def reset(self, *, seed=None, options=None):
        self.place, self.now, self.total, self.last = float(self.rng.uniform(-1, 1)), 0, 0.0, None
        self.length = int(self.rng.integers(2, 60))
        self.obs = self.show()
        return self.obs.copy(), {}

    def show(self):
        return np.array([next(self.record.shown) * UNIT, self.place], np.float32)

    def step(self, action):
        fails = self.rng.random() < self.chance
        before, self.now = self.obs, self.now + 1
        self.place = (self.place + 0.1 * float(action[0]) + 1) % 2 - 1
        self.obs, reward, terminated, truncated = self.show(), self.pay(), *self.over()
        result = (self.obs.copy(), reward, terminated, truncated, {})
        if fails and (wrong := self.fail(*result)) is not result:
            self.has_failed()
            if isinstance(wrong, Exception):
                raise wrong
            return wrong
        end = terminated or truncated
        self.total += reward
        self.last = self.record.add(*before, action[0], np.float32(reward), not terminated, end, *self.obs)
        if end:
            self.record.episodes.append((self.now, self.total))
            self.last = None
        return result

    def has_failed(self):
        self.record.faults += 1
        if self.last is not None:
            self.record.cut(self.last)

    def pay(self):
        return float(self.rng.normal())

    def over(self):
        return self.now >= self.length and self.length % 2 == 0, self.now >= self.length

    def fail(self, *result):
        """What the step gives instead, or an exception to raise."""
        return RuntimeError("the cable came off")


class NaNObservation(Sound):
    def fail(self, obs, *rest):
        return np.array([obs[0], np.nan], np.float32), *rest


class InfiniteObservation(Sound):
    def fail(self, obs, *rest):
        return np.array([np.inf, obs[1]], np.float32), *rest


class NaNReward(Sound):
    def fail(self, obs, reward, *rest):
        return obs, float("nan"), *rest


class InfiniteReward(Sound):
    def fail(self, obs, reward, *rest):
        return obs, -float("inf"), *rest


class NoReward(Sound):
    def fail(self, obs, reward, *rest):
        return obs, None, *rest


class TooLargeReward(Sound):
    """A number of 64 bits, and none of 32."""

    def fail(self, obs, reward, *rest):
        return obs, 1e39, *rest


class HugeReward(Sound):
    """Pays 1e30 now and then, which is no fault."""

    def pay(self):
        return 1e30 if self.rng.random() < 0.01 else super().pay()


class OtherShape(Sound):
    def fail(self, obs, *rest):
        return obs[None], *rest


class OtherType(Sound):
    def fail(self, obs, *rest):
        return obs.astype(str), *rest


class Strange(Sound):
    """Four values, flags that are arrays, or no info where an episode ends."""

    def fail(self, *result):
        obs, reward, terminated, truncated, info = result
        return [result[:4], (obs, reward, np.array([True, False]), truncated, info), (obs, reward, True, False, None)][
            int(self.rng.integers(3))
        ]


class Slow(Sound):
    def pay(self):
        if self.rng.random() < 0.001:
            time.sleep(0.002)
        return super().pay()


class Endless(Sound):
    def over(self):
        return False, False


class AtOnce(Sound):
    """Every episode ends after one step."""

    def over(self):
        return self.now % 2 == 1, False


class OtherSpaces(Sound):
    """Has another action space from some reset on."""

    chance = 0.0

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset()
        if self.rng.random() < 0.05:
            self.record.faults += 1
            self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        return obs, info


class BadReset(Sound):
    """Raises in reset, or shows a NaN."""

    chance = 0.0

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset()
        if (chance := self.rng.random()) < 0.1:
            self.record.faults += 1
            if chance < 0.05:
                raise OSError("no such level")
            obs[1] = np.nan
        return obs, info


KINDS = (
    Sound, NaNObservation, InfiniteObservation, NaNReward, InfiniteReward, NoReward, TooLargeReward, HugeReward,
    OtherShape, OtherType, Strange, Slow, Endless, AtOnce, OtherSpaces, BadReset,
)  # fmt: skip


def soak(steps: int, seed: int = 0) -> dict[str, Any]:
    """Run the loop for so many environment steps and compare all that it has stored with the record."""
    import jax

    from maxent.algorithms.sac import SAC
    from maxent.config import SACConfig
    from maxent.envs.host import HostEnvs
    from maxent.loops.host import HostLoop
    from maxent.loops.programs import Programs

    record, kinds = Record(), cycle(KINDS)
    envs = HostEnvs(lambda: next(kinds)(record), [seed], ENVS, restarts=steps)
    config = SACConfig(hidden_sizes=(8,), batch_size=4, learning_starts=0, utd=1e-9, buffer_size=steps)
    loop = HostLoop(Programs(SAC, config, envs.spec), envs, [seed], {})
    started, finished = time.monotonic(), []
    for report in loop.run(steps, max(steps // 10, ENVS)):
        finished += [(e.length, e.total_reward) for e in report.episodes]
    seconds = time.monotonic() - started
    assert loop.updates == 0 and loop.ring.written <= loop.ring.reward.shape[0]  # nothing was overwritten

    rows = jax.device_get(loop.ring)
    written = int(rows.written)
    first, second = slice(0, written - 1), slice(1, written)
    whole = ~rows.boundary[first, 0]
    stored = np.stack(
        [
            rows.obs[first, 0, :, 0] / UNIT, rows.obs[first, 0, :, 1], rows.action[second, 0, :, 0],
            rows.reward[second, 0], rows.discount[second, 0], rows.boundary[second, 0],
            rows.obs[second, 0, :, 0] / UNIT, rows.obs[second, 0, :, 1],
        ], axis=-1,
    )[whole].astype(np.float64)  # fmt: skip
    true = np.array(record.transitions).reshape(-1, len(COLUMNS))
    true[:, [0, 6]] /= UNIT
    last = COLUMNS.index("after")
    stored, true = stored[np.argsort(stored[:, last])], true[np.argsort(true[:, last])]
    lost = len(np.setdiff1d(true[:, last], stored[:, last]))
    false = len(np.setdiff1d(stored[:, last], true[:, last]))
    altered = dict.fromkeys(COLUMNS, 0)
    if not lost and not false:
        altered = {
            name: int((np.abs(stored[:, i] - true[:, i]) > ROUNDING.get(name, 0)).sum())
            for i, name in enumerate(COLUMNS)
        }
    untrue = untrue_windows(true, loop.ring, seed) if not lost else WINDOWS
    return {
        "environment_steps": loop.step,
        "true_transitions": len(true),
        "lost": lost,
        "false": false,
        "altered": altered,
        "windows_of_three_steps_sampled": WINDOWS,
        "of_these_untrue": untrue,
        "episodes": len(record.episodes),
        "episodes_reported_as_they_were": finished == record.episodes,
        "faults": record.faults,
        "faults_told": len(envs.faults),
        "kinds_of_faults_told": len({told.partition(": ")[2][:30] for told in envs.faults}),
        "rewards_of_1e30": int((stored[:, COLUMNS.index("reward")] == np.float32(1e30)).sum()),
        "environments_made": record.made,
        "seconds": round(seconds, 1),
    }


def untrue_windows(true: np.ndarray, rows: Any, seed: int) -> int:
    """How many of the windows that the ring samples are not the sum of what happened, one step after the other."""
    import jax
    import jax.numpy as jnp

    from maxent.replay import ring

    batch = jax.device_get(ring.sample(rows, jax.random.split(jax.random.key(seed), 1), WINDOWS, 3, jnp.ones(1)))
    before, _, _, reward, discount, boundary, after, _ = true.T
    at = np.full(int(max(after.max(), before.max())) + 2, -1)
    at[before.astype(int)] = np.arange(len(true))
    here = at[np.rint(batch.obs[0, :, 0] / UNIT).astype(int)]
    unknown, total = here < 0, reward[here]
    for _ in range(2):
        on = (boundary[here] == 0) & (at[after[here].astype(int)] >= 0)
        here = np.where(on, at[after[here].astype(int)], here)
        total = np.where(on, total + reward[here], total)
    same = np.isclose(batch.reward[0], total, rtol=1e-5, atol=1e-5) & (batch.discount[0] == discount[here])
    same &= (batch.boundary[0] == boundary[here]) & (np.rint(batch.next_obs[0, :, 0] / UNIT) == after[here])
    return int((unknown | ~same).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from maxent.run import folder

    result = soak(arguments.steps, arguments.seed)
    print(json.dumps(result, indent=1))
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": folder.versions(),
        "machine": folder.machine(),
        "git": folder.git_revision(),
        "seed": arguments.seed,
        "kinds": [kind.__name__ for kind in KINDS],
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
