"""The host loop: the same bits whoever watches, updates on schedule, nothing compiled twice, true rows."""

from collections.abc import Iterable
from dataclasses import replace
from math import floor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tiny
from maxent import native, registry
from maxent.config import PPOConfig, SACConfig, TrainConfig
from maxent.envs.host import HostEnvs
from maxent.envs.make import Factory
from maxent.loops.evaluate import evaluate
from maxent.loops.host import HostLoop
from maxent.loops.loop import Report, updates_due
from maxent.loops.programs import Programs
from maxent.replay import ring
from maxent.run import driver

PENDULUM = Factory("Pendulum-v1", max_episode_steps=20)


def pendulum(seeds: Iterable[int] = (0,), envs: int = 1, settings: SACConfig = tiny.SETTINGS) -> HostLoop:
    host = HostEnvs(PENDULUM, list(seeds), envs)
    return HostLoop(tiny.programs(tiny.SAC, settings, host.spec), host, list(seeds), {})


def clock(length: int = 3, ending: str = "terminated", envs: int = 1, algorithm=tiny.SAC, **settings) -> HostLoop:
    host = HostEnvs(lambda: tiny.Clock(length, ending), [0], envs)
    return HostLoop(tiny.programs(algorithm, replace(tiny.SETTINGS, **settings), host.spec), host, [0], {})


def run(loop: HostLoop, total: int, every: int = 1000) -> HostLoop:
    for _ in loop.run(total, every):
        pass
    return loop


def training(loop: HostLoop) -> list[np.ndarray]:
    """Everything that later steps depend on, but for sums since the last report."""
    return jax.tree.leaves(jax.device_get((loop.learned.state, loop.view, loop.ring, loop.stepped.obs)))


def assert_same_bits(one: HostLoop, other: HostLoop) -> None:
    assert (one.step, one.updates) == (other.step, other.updates) and one.updates > 0
    for a, b in zip(training(one), training(other), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


# --- the same bits ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return run(pendulum(), 200)


def test_the_same_seed_gives_the_same_bits(reference):
    assert_same_bits(run(pendulum(), 200), reference)


def test_another_seed_gives_another_run(reference):
    other = jax.tree.leaves(run(pendulum([1]), 200).learned.state)
    weights = [(a, b) for a, b in zip(other, jax.tree.leaves(reference.learned.state)) if a.ndim > 2]
    assert weights and not any(np.any(a == b) for a, b in weights)


@pytest.mark.parametrize("explore", [False, True])
def test_evaluation_leaves_training_as_it_was(reference, explore):
    loop = pendulum()
    envs = HostEnvs(PENDULUM, [0], 2, stream="eval")
    for _ in loop.run(200, 40):
        played = evaluate(loop.programs, loop.view, envs, loop.roots, 3, explore)
        assert [len(own) for own in played] == [3]
    assert_same_bits(loop, reference)


@pytest.mark.parametrize("every", [1, 37])
def test_reports_leave_training_as_it_was(reference, every):
    assert_same_bits(run(pendulum(), 200, every), reference)


def test_stopping_and_going_on_leaves_training_as_it_was(reference):
    loop = pendulum()
    for total in (30, 51, 120, 200):
        run(loop, total)
    assert_same_bits(loop, reference)


def test_the_driver_changes_nothing(reference, tmp_path, monkeypatch):
    """Logs, evaluations and checkpoints at whatever intervals."""
    monkeypatch.setattr(driver, "Programs", tiny.programs)
    for name, settings in (
        ("quiet", {"eval_every": 0, "checkpoint_every": 0, "log_every": 1000}),
        ("busy", {"eval_every": 40, "checkpoint_every": 60, "log_every": 20, "keep_checkpoints": 1}),
    ):
        config = TrainConfig("Pendulum-v1", steps=200, max_episode_steps=20, eval_episodes=2, **settings)
        run = driver.start(config, tiny.SETTINGS, {}, str(tmp_path / name))
        assert run.learn(200)
        assert_same_bits(run.loop, reference)
    assert len(list((tmp_path / "busy" / "checkpoints").glob("step-*"))) == 1


# --- members ------------------------------------------------------------------------------------------------


def test_a_member_learns_what_a_run_alone_learns():
    """Warm-up to the last bit; then 100 updates, whose sums are ordered otherwise, to float tolerance."""
    seeds, total = [0, 1, 2], 50 + 100
    together = run(pendulum(seeds), total)
    weights = np.array(together.view.policy.network.layers[0].weight)
    assert not np.any(weights[0] == weights[1])
    for member, seed in enumerate(seeds):
        alone = run(pendulum([seed]), total)
        assert together.updates == alone.updates == 100
        for a, b in zip(jax.tree.leaves(together.ring), jax.tree.leaves(alone.ring)):
            if a.ndim > 1:
                assert_array_equal(a[:51, member], b[:51, 0])
        for a, b in zip(jax.tree.leaves(together.learned.state), jax.tree.leaves(alone.learned.state)):
            assert_allclose(a[member], b[0], rtol=1e-4, atol=1e-5)


# --- compiled once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn", ["turns", "learn"])
@pytest.mark.parametrize(("utd", "envs"), [pytest.param(0.3, 1, marks=pytest.mark.slow), (4.0, 1), (1.0, 3), (0.3, 3)])
def test_nothing_is_compiled_after_warm_up(utd, envs, learn, monkeypatch):
    """And the loop keeps to the schedule: utd updates a step since learning started."""
    if learn == "learn":
        monkeypatch.setenv("CC", "")
    elif not native.available():
        pytest.skip("no C compiler here")
    host = HostEnvs(lambda: tiny.Clock(5), [0, 1], envs)
    settings = replace(tiny.SETTINGS, utd=utd, hidden_sizes=(4,), learning_starts=12)
    programs = Programs(tiny.SAC, settings, host.spec)
    loop = HostLoop(programs, host, [0, 1], {})
    evaluation = HostEnvs(lambda: tiny.Clock(5), [0, 1], 2, stream="eval")

    def go(total: int) -> None:
        run(loop, total, 10)
        assert (loop.step, loop.updates) == (total, floor(utd * (total - 12)))
        evaluate(programs, loop.view, evaluation, loop.roots, 2)

    run(loop, 12)
    assert (loop.step, loop.updates) == (12, 0)
    go(30)
    acts = 1 if learn == "turns" else 2  # acting is traced for the mean, and for exploring where it is by itself
    once = {learn: 1, "add": 1, "warm_up": 1, "act": acts}
    assert dict(programs.traces) == once
    go(90)
    assert dict(programs.traces) == once
    assert getattr(programs, learn)._cache_size() == programs.add._cache_size() == 1


# --- the schedule -------------------------------------------------------------------------------------------


@given(st.floats(0.001, 20), st.integers(1, 8), st.integers(1, 300))
def test_updates_add_up(utd, envs, iterations):
    """utd updates a step, rounded down, at every moment; never all of them at the end."""
    due = [updates_due(utd, i * envs, envs) for i in range(iterations)]
    assert sum(due) == floor(envs * iterations * utd)
    assert max(due) <= floor(utd * envs) + 1 and min(due) >= floor(utd * envs) - 1 * (utd * envs % 1 > 0)


@given(st.floats(0.01, 4), st.integers(1, 50))
def test_updates_do_not_depend_on_the_number_of_environments(utd, rounds):
    totals = {n: sum(updates_due(utd, i * n, n) for i in range(12 * rounds // n)) for n in (1, 2, 3, 4, 6)}
    assert len(set(totals.values())) == 1


# --- reports ------------------------------------------------------------------------------------------------


def reports(every: int) -> list[Report]:
    return list(pendulum().run(130, every))


def test_reports_come_at_multiples_and_at_the_end():
    assert [r.step for r in reports(50)] == [50, 100, 130]
    assert [r.updates for r in reports(50)] == [0, 50, 80]
    assert reports(50)[0].metrics == {}


def test_metrics_are_the_means_of_their_period():
    (period,) = [r for r in reports(50) if r.step == 100]
    single = [r.metrics for r in reports(1) if 50 < r.step <= 100]
    assert {"critic_loss", "temperature", "entropy"} < set(period.metrics) and len(single) == 50
    for name, mean in period.metrics.items():
        assert_allclose(mean, np.mean([m[name] for m in single], 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("every", [7, 60])
def test_every_episode_is_reported_once(every):
    loop = clock(length=3, envs=2)
    episodes = [e for report in loop.run(80, every) for e in report.episodes]
    assert sorted((e.env, e.number) for e in episodes) == [(env, number) for env in (0, 1) for number in range(10)]
    assert all(e.total_reward == 30 * e.number + 6 and e.length == 3 for e in episodes)
    assert all(e.success == (e.number % 2 == 0) for e in episodes)


# --- what is learned from -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "bootstrap"), [("terminated", 0), ("truncated", 1), ("both", 0)])
def test_rows_of_an_episode(ending, bootstrap):
    """A termination has discount 0, a time limit 1, both a boundary; then comes a reset, and nothing was earned."""
    rows = jax.tree.map(lambda x: np.array(x)[:9, 0, 0] if np.ndim(x) else x, run(clock(3, ending), 8).ring)
    assert_array_equal(rows.obs, [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3], [2, 0]])
    assert_array_equal(rows.reward, [0, 1, 2, 3, 0, 11, 12, 13, 0])
    assert_array_equal(rows.discount, [1, 1, 1, bootstrap, 1, 1, 1, bootstrap, 1])
    assert_array_equal(rows.boundary, [False, False, False, True, False, False, False, True, False])


def test_going_on_elsewhere_cuts_like_a_time_limit():
    """A clock shows how often it was reset, so its running episode cannot be brought back; the next step resets it."""
    loop = run(clock(5), 3)
    kept = loop.resume(loop.moment, loop.ring)
    assert not kept.any()
    run(loop, 4)
    rows = jax.tree.map(lambda x: np.array(x)[:5, 0, 0] if np.ndim(x) else x, loop.ring)
    assert_array_equal(rows.obs, [[0, 0], [0, 1], [0, 2], [0, 3], [2, 0]])
    assert_array_equal(rows.boundary, [False, False, False, True, False])
    assert_array_equal(rows.discount, 1)


def test_resets_are_never_learned_from():
    """Of 4,096 samples each leads one step on within its episode, and every kind of step comes up."""
    real = run(clock(3, envs=2), 90).ring
    batch = jax.device_get(ring.sample(real, jax.random.split(jax.random.key(0), 1), 4096, 1, jnp.ones(1)))
    (episode, now), (next_episode, next_now) = np.moveaxis(batch.obs[0], -1, 0), np.moveaxis(batch.next_obs[0], -1, 0)
    assert_array_equal(next_episode, episode)
    assert_array_equal(next_now, now + 1)
    assert_array_equal(batch.reward[0], 10 * episode + next_now)
    assert_array_equal(batch.discount[0], next_now < 3)
    assert set(now) == {0, 1, 2} and set(episode) == set(range(12))


@pytest.mark.parametrize(("learning_starts", "n_step"), [(0, 1), pytest.param(2, 3, marks=pytest.mark.slow), (20, 3)])
def test_every_batch_is_made_of_what_happened(learning_starts, n_step):
    """From the first update on, whenever learning starts: m ≤ n steps of one episode, their rewards, γ^m."""
    seen = []

    def update(config, spec, state, batch, key, index):
        columns = (batch.obs, batch.next_obs, batch.reward, batch.discount)
        jax.debug.callback(lambda *columns: seen.append(columns), *columns)
        return tiny.SAC.update(config, spec, state, batch, key, index)

    gamma = 0.5
    spied = tiny.SAC._replace(update=update)
    loop = clock(4, algorithm=spied, learning_starts=learning_starts, n_step=n_step, gamma=gamma, hidden_sizes=(4,))
    run(loop, 40)
    jax.effects_barrier()
    assert len(seen) == loop.updates > 10 and max(columns[0].max() for columns in seen) == 7
    for obs, next_obs, reward, discount in seen:
        (episode, now), (next_episode, next_now) = np.moveaxis(obs, -1, 0), np.moveaxis(next_obs, -1, 0)
        assert_array_equal(next_episode, episode)
        taken = (next_now - now).astype(int)
        assert 1 <= taken.min() and taken.max() <= n_step
        rewards = [sum(gamma**i * (10 * e + n + 1 + i) for i in range(m)) for e, n, m in zip(episode, now, taken)]
        assert_array_equal(reward, np.array(rewards, np.float32))
        assert_array_equal(discount, np.where(next_now == 4, 0, gamma**taken))


# --- evaluation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("episodes", "envs"), [(1, 1), (5, 2), (3, 3), (7, 4)])
def test_evaluation_plays_what_it_is_asked_for(episodes, envs):
    """Each environment its share, so that short episodes count no more than long ones."""
    loop = clock(3)
    lengths = iter(range(2, 2 + envs))
    host = HostEnvs(lambda: tiny.Clock(next(lengths)), [0], envs, stream="eval")
    (played,) = evaluate(loop.programs, loop.view, host, loop.roots, episodes)
    assert [(e.env, e.number) for e in played] == [(i % envs, i // envs) for i in range(episodes)]
    assert [e.length for e in played] == [2 + i % envs for i in range(episodes)]


def test_rows_of_a_rollout_are_in_the_ring_for_whoever_looks():
    host = HostEnvs(PENDULUM, [0, 1], 2)
    settings = PPOConfig(hidden_sizes=(8,), rollout_length=16, batch_size=8, epochs=1)
    programs = Programs(registry.algorithm("ppo"), settings, host.spec)
    looked_at, alone = (HostLoop(programs, HostEnvs(PENDULUM, [0, 1], 2), [0, 1], {}) for _ in range(2))
    for step in range(2, 2 * 40 + 1, 2):
        before = jax.device_get(looked_at.ring)
        run(looked_at, step)
        rows = jax.device_get(looked_at.ring)
        assert rows.written == before.written + 1 == step // 2 + 1
        newest = looked_at.stepped.row
        for kept, new in zip((rows.obs, rows.reward, rows.action), (newest.next_obs, newest.reward, newest.action)):
            assert_array_equal(kept[step // 2 % 17], new)
    assert_same_bits(run(alone, 80), looked_at)
    assert programs.traces["extend"] == 1
