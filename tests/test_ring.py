"""The replay ring against a slow reference that keeps the list of all transitions."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import chisquare

import tiny
from maxent import native, streams
from maxent.loops.pieces import Counters
from maxent.replay import ring
from maxent.types import Leaf, Spec, Transition

CAPACITY, MEMBERS, ENVS, LONGEST = 13, 2, 2, 70
SPEC = Spec(Leaf((), "int32"), Leaf((1,), "float32"))
GAMMA = np.array([0.5, 0.75], np.float32)  # powers and sums of these are exact

sample = jax.jit(ring.sample, static_argnums=(2, 3))


@jax.jit
def add_all(real: ring.Ring, rows: Transition, count: int, cuts: jax.Array) -> ring.Ring:
    """The ring with the first `count` rows, cut before those that `cuts` marks."""

    def one(i: jax.Array, real: ring.Ring) -> ring.Ring:
        real = ring.cut(real, cuts[i])
        return ring.add(real, jax.tree.map(lambda x: x[i], rows))

    return jax.lax.fori_loop(0, count, one, real)


class Step(NamedTuple):
    """One transition as the reference keeps it: it leads from the row before `row` to `row`."""

    row: int
    obs: int
    action: float
    reward: float
    discount: float
    next_obs: int
    boundary: bool


class Reference:
    """Every row and every transition since the beginning, in lists [member][env]."""

    def __init__(self, capacity: int, members: int, envs: int) -> None:
        self.capacity, self.rows = capacity, 0
        self.newest = [[None] * envs for _ in range(members)]
        self.steps = [[[] for _ in range(envs)] for _ in range(members)]

    def add(self, row: Transition) -> None:
        for member, envs in enumerate(self.newest):
            for env, before in enumerate(envs):
                at = (member, env)
                step = Step(
                    self.rows,
                    *(None if before is None else before.next_obs, float(row.action[at][0]), float(row.reward[at])),
                    *(float(row.discount[at]), int(row.next_obs[at]), bool(row.boundary[at])),
                )
                if before is not None and not before.boundary:
                    self.steps[member][env].append(step)
                envs[env] = step
        self.rows += 1

    def cut(self) -> None:
        for member, envs in enumerate(self.newest):
            for env, newest in enumerate(envs):
                envs[env] = newest._replace(boundary=True)
                own = self.steps[member][env]
                if own and own[-1].row == newest.row:
                    own[-1] = envs[env]

    def windows(self, member: int, n_step: int, gamma: float, shorter: bool = False) -> dict[int, tuple]:
        """What may be sampled, by its first observation: (action, reward, discount, next_obs, boundary).

        All windows of n steps or up to a boundary; with `shorter` also those that the newest row cuts short.
        """
        found = {}
        for own in self.steps[member]:
            for i, first in enumerate(own):
                window = [first]
                while len(window) < n_step and not window[-1].boundary and i + len(window) < len(own):
                    window.append(own[i + len(window)])
                whole = len(window) == n_step or window[-1].boundary or shorter
                if not whole or first.row - 1 < self.rows - self.capacity:
                    continue
                reward, discount = 0.0, 1.0
                for step in window:
                    reward += discount * step.reward
                    discount *= gamma * step.discount
                found[first.obs] = (first.action, reward, discount, window[-1].next_obs, window[-1].boundary)
        return found


def rows_of(kinds: np.ndarray) -> list[Transition]:
    """Rows [member, env] of the given kinds: "." goes on, "T" terminates, "L" is a time limit; resets are put in."""
    over, rows = np.zeros(kinds.shape[1:], bool), []
    for number, kind in enumerate(kinds):
        resets, over = over, (kind != ".") & ~over
        numbers = np.arange(kind.size).reshape(kind.shape)
        rows.append(
            Transition(
                obs=None,
                action=((number * 7 + numbers * 3) % 16 / 16.0)[..., None].astype(np.float32),
                reward=np.where(resets, 0, (number * 5 + numbers) % 8 / 4.0).astype(np.float32),
                discount=np.where((kind == "T") & over, 0, 1).astype(np.float32),
                next_obs=(100 * numbers + 1000 * number).astype(np.int32),
                boundary=over,
                real=~resets,
            )
        )
    return rows


def filled(rows: list[Transition], capacity: int, cuts: tuple[int, ...] = ()) -> tuple[ring.Ring, Reference]:
    """The ring and the reference after these rows; before the rows numbered in `cuts` an interruption cuts both."""
    members, envs = rows[0].boundary.shape
    reference = Reference(capacity, members, envs)
    for number, row in enumerate(rows):
        if number in cuts:
            reference.cut()
        reference.add(row)
    stacked = jax.tree.map(lambda *x: np.stack([*x, *x[:1] * (LONGEST - len(rows))]), *rows)
    marked = np.isin(np.arange(LONGEST), cuts)
    return add_all(ring.empty(SPEC, capacity, members, envs), stacked, len(rows), marked), reference


def assert_whole(
    real: ring.Ring, reference: Reference, n_step: int, seed: int, count: int = 512, shorter: bool = False
) -> set[tuple[int, int]]:
    """Everything that is sampled is what the reference has; (member, first observation) of what was."""
    batch = sample(real, jax.random.split(jax.random.key(seed), real.reward.shape[1]), count, n_step, jnp.array(GAMMA))
    batch, seen = jax.device_get(batch), set()
    assert batch.real.all()
    for member in range(real.reward.shape[1]):
        allowed = reference.windows(member, n_step, float(GAMMA[member]), shorter)
        columns = (batch.obs, batch.action[..., 0], batch.reward, batch.discount, batch.next_obs, batch.boundary)
        for obs, *rest in set(zip(*(column[member].tolist() for column in columns))):
            assert allowed.get(obs) == tuple(rest)
            seen.add((member, obs))
    return seen


def everything(reference: Reference, n_step: int) -> set[tuple[int, int]]:
    return {(m, obs) for m in range(len(reference.steps)) for obs in reference.windows(m, n_step, float(GAMMA[m]))}


def pattern(text: str, rows: int) -> np.ndarray:
    """The same kinds of rows, repeated, for both members and envs; the second env one row late."""
    first = np.array(list((text * rows)[:rows]))
    late = np.array(["."] + list((text * rows)[: rows - 1]))
    return np.stack([np.stack([first, late], -1)] * MEMBERS, 1)


# --- which transitions, and what they are -------------------------------------------------------------------


@pytest.mark.parametrize("n_step", range(1, 6))
@pytest.mark.parametrize("rows", [8, 12, 13, 14, 20, 26, 40])
def test_what_is_sampled_is_what_happened(n_step, rows):
    """Ends, time limits, the write position before and after the wrap: all whole windows come up, and nothing else."""
    real, reference = filled(rows_of(pattern(".....T..L....", rows)), CAPACITY)
    assert assert_whole(real, reference, n_step, rows, 4096) == everything(reference, n_step)


def kinds(rows: int) -> st.SearchStrategy:
    column = st.lists(st.sampled_from("..TL"), min_size=rows, max_size=rows)
    columns = st.lists(column, min_size=MEMBERS * ENVS, max_size=MEMBERS * ENVS)
    return columns.map(lambda c: np.array(c).T.reshape(rows, MEMBERS, ENVS))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40).flatmap(kinds), st.integers(1, 5), st.integers(0, 10**6))
def test_any_episodes(kind, n_step, seed):
    kind[0] = "."  # the first reset
    real, reference = filled(rows_of(kind), CAPACITY)
    assert_whole(real, reference, n_step, seed, shorter=True)


@pytest.mark.parametrize("n_step", range(1, 6))
def test_a_young_ring_gives_what_it_has(n_step):
    """Two rows are one transition, n + 1 rows one window of n steps: nothing beyond is read, however many are asked."""
    for rows in (2, n_step + 1):
        real, reference = filled(rows_of(np.full((rows, MEMBERS, ENVS), ".")), CAPACITY)
        assert_whole(real, reference, n_step, seed=0, count=4096, shorter=True)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("at", [3, 4, 5, 6, 12, 13, 14, 23])
def test_an_interruption_is_a_time_limit(n_step, at):
    """After `cut`, no window reaches into what follows: also right after an end (5), a reset (6) and at the wrap."""
    real, reference = filled(rows_of(pattern("....T..........", 24)), CAPACITY, cuts=(at,))
    assert assert_whole(real, reference, n_step, at, 4096) == everything(reference, n_step)


def test_the_last_steps_before_an_interruption_bootstrap():
    real, reference = filled(rows_of(np.full((24, MEMBERS, ENVS), ".")), CAPACITY, cuts=(20,))
    ends = [discount for *_, discount, _, boundary in reference.windows(0, 3, 0.5).values() if boundary]
    assert sorted(set(ends)) == [0.125, 0.25, 0.5]
    assert_whole(real, reference, 3, seed=0)


def test_cut_changes_one_flag():
    rows = rows_of(pattern("...T", 20))
    before, _ = filled(rows, CAPACITY)
    after = ring.cut(before, jnp.ones((MEMBERS, ENVS), bool))
    newest = (20 - 1) % CAPACITY
    assert bool(after.boundary[newest].all())
    changed = jax.tree.map(lambda a, b: np.array(a != b), before, after)
    changed.boundary[newest] = False
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(changed))


def test_members_fold_their_own_gamma():
    """γ^m of an m-step window, for each member's γ; the reward Σ γ^i r."""
    real, _ = filled(rows_of(np.full((CAPACITY, MEMBERS, ENVS), ".")), CAPACITY)
    batch = sample(real, jax.random.split(jax.random.key(0), MEMBERS), 64, 3, jnp.array(GAMMA))
    assert_array_equal(batch.discount, np.broadcast_to((GAMMA**3)[:, None], (MEMBERS, 64)))
    first = np.array(batch.obs) // 1000
    numbers = np.array(batch.obs) % 1000 // 100
    rewards = sum(((first + i) * 5 + numbers) % 8 / 4.0 * GAMMA[:, None] ** (i - 1) for i in (1, 2, 3))
    assert_array_equal(batch.reward, rewards)


# --- uniformly ----------------------------------------------------------------------------------------------


def p_value(kind: np.ndarray, n_step: int = 1, draw=sample) -> float:
    """Of the hypothesis that a million draws fall on all true transitions alike, the smallest over the members."""
    real, reference = filled(rows_of(kind), 50)
    keys = [jax.random.split(jax.random.key(i), MEMBERS) for i in range(8)]
    drawn = [draw(real, key, 125_000, n_step, jnp.array(GAMMA)).obs for key in keys]
    found = []
    for member, own in enumerate(np.concatenate(drawn, 1)):
        values, counts = np.unique(own, return_counts=True)
        assert set(values.tolist()) == set(reference.windows(member, n_step, 1.0))
        found.append(chisquare(counts).pvalue)
    return min(found)


@pytest.mark.parametrize(("episodes", "n_step"), [("T", 1), (".T", 1), ("..T.....L", 3)])
def test_sampling_is_uniform(episodes, n_step):
    """A million draws each; "T" are episodes of one step, ".T" of two."""
    assert p_value(pattern(resets_between(episodes), 70), n_step) > 1e-3


def test_environments_with_different_episodes_are_one_pool():
    kind = pattern(".", 70)
    kind[:, :, 1] = pattern("T.", 70)[:, :, 0]
    assert p_value(kind) > 1e-3


def test_fewer_candidates_would_be_seen(monkeypatch):
    """The power of the tests above: with four candidates the bias is plain."""
    monkeypatch.setattr(ring, "CANDIDATES", 4)
    fewer = jax.jit(lambda *args: ring.sample(*args), static_argnums=(2, 3))
    assert p_value(pattern(resets_between(".T"), 70), draw=fewer) < 1e-6


def resets_between(episodes: str) -> str:
    return re.sub("([TL])", r"\1.", episodes)


# --- what is stored -----------------------------------------------------------------------------------------


def test_dictionaries_and_dtypes_are_kept():
    obs = {
        "pixels": Leaf((2, 3), "uint8"),
        "inner": {"choice": Leaf((), "int32", (5,)), "bits": Leaf((4,), "int8")},
        "numbers": Leaf((3,), "float32"),
    }
    spec = Spec(obs, Leaf((2,), "int32", (3, 3)))
    real = ring.empty(spec, 4, 1, 2)
    rng = np.random.default_rng(0)

    def draw(leaf: Leaf) -> np.ndarray:
        return rng.integers(0, 5, (1, 2, *leaf.shape)).astype(leaf.dtype)

    shown = [jax.tree.map(draw, obs, is_leaf=lambda x: isinstance(x, Leaf)) for _ in range(2)]
    for number, one in enumerate(shown):
        action, none = np.full((1, 2, 2), number, np.int32), np.zeros((1, 2))
        real = jax.jit(ring.add)(real, Transition((), action, none, none + 1, one, none > 0, none == 0))
    batch = sample(real, jax.random.split(jax.random.key(0), 1), 8, 1, jnp.ones(1))
    assert batch.action.dtype == jnp.int32 and (batch.action == 1).all()
    env = np.array([[np.all(p == shown[0]["pixels"][0, 1]) for p in np.array(batch.obs["pixels"][0])]]).astype(int)
    for got, sent in ((batch.obs, shown[0]), (batch.next_obs, shown[1])):
        assert jax.tree.structure(got) == jax.tree.structure(sent)
        jax.tree.map(lambda g, s: assert_array_equal(g, s[np.zeros_like(env), env], strict=True), got, sent)
    assert set(env.ravel().tolist()) == {0, 1}


def test_the_capacity_counts_rows_and_the_write_position_is_the_only_counter():
    rows = rows_of(pattern(".", 30))
    real, _ = filled(rows, CAPACITY)
    assert ring.capacity(real) == CAPACITY and int(real.written) == 30
    last = {int(row.next_obs[0, 0]) for row in rows[-CAPACITY:]}
    assert set(np.array(real.obs[:, 0, 0]).tolist()) == last


# --- cost ---------------------------------------------------------------------------------------------------

ROWS = 5003
"""A number that no other array here has as a dimension."""


def copies_of_the_ring(compiled: jax.stages.Compiled) -> list[str]:
    return re.findall(rf"= \(?\w+\[{ROWS}[,\]][^=]* copy\w*(?:-\w+)?\(.*", compiled.as_text())


def test_add_copies_nothing_of_the_capacity():
    real = ring.empty(SPEC, ROWS, 1, 2)
    row = jax.tree.map(jnp.array, rows_of(pattern(".", 1))[0]._replace(obs=()))
    row = jax.tree.map(lambda x: x[:1], row)
    assert not copies_of_the_ring(jax.jit(ring.add, donate_argnums=0).lower(real, row).compile())
    assert copies_of_the_ring(jax.jit(ring.add).lower(real, row).compile()), "what is looked for has another name now"


@pytest.mark.parametrize("n_step", [1, 3])
def test_learn_copies_nothing_of_the_capacity(n_step):
    spec = Spec({"a": Leaf((3,), "float32"), "b": Leaf((4, 4), "uint8")}, Leaf((2,), "float32"))
    programs = tiny.Programs(tiny.SAC, tiny.SACConfig(hidden_sizes=(8,), batch_size=4, n_step=n_step), spec)
    roots = streams.roots([0])
    learned = programs.init_shapes(roots, {})
    lowered = programs.learn.lower(learned, ring.empty(spec, ROWS, 1, 2), roots, np.uint32(0), count=2)
    assert not copies_of_the_ring(lowered.compile())


@pytest.mark.skipif(not native.available(), reason="no C compiler here")
@pytest.mark.parametrize(("n_step", "observes"), [(1, False), (3, True)])
def test_turns_copy_nothing_of_the_capacity(n_step, observes):
    """Though one program draws from the ring and writes into it."""
    spec = Spec({"a": Leaf((3,), "float32"), "b": Leaf((4, 4), "uint8")}, Leaf((2,), "float32"))
    config = tiny.SACConfig(hidden_sizes=(8,), batch_size=4, n_step=n_step, normalize_observations=observes)
    programs = tiny.Programs(tiny.SAC, config, spec)
    roots = streams.roots([0])
    learned = programs.init_shapes(roots, {})
    obs = {"a": jnp.zeros((1, 2, 3)), "b": jnp.zeros((1, 2, 4, 4), jnp.uint8)}
    lowered = programs.turns.lower(
        np.zeros(2, np.uint32), obs, np.zeros((1, 2), bool), learned, ring.empty(spec, ROWS, 1, 2), (), roots,
        Counters(*[np.uint32(0)] * 3), np.int32(1), observes=observes,
    )  # fmt: skip
    assert not copies_of_the_ring(lowered.compile())


@pytest.mark.parametrize("begun", [0, 2**31 - 3, 2**32 - 9])
def test_a_rollout_is_in_order_however_many_rows_there_were(begun):
    real = ring.empty(SPEC, 7, 1, 1)._replace(written=jnp.uint32(begun))
    for i in range(8):
        number = np.full((1, 1), i, np.float32)
        obs, no = np.int32(number), number < 0
        real = ring.add(real, Transition(obs, number[..., None], number, number, obs, no, no, ()))
    steps = ring.rollout(real)
    assert_array_equal(steps.obs.ravel(), range(1, 7))
    assert_array_equal(steps.reward.ravel(), range(2, 8))


def test_add_allocates_no_more_for_a_larger_ring():
    """What the compiled program allocates, beside the ring that it is given, does not grow with the capacity."""

    def allocated(rows: int) -> int:
        row = jax.tree.map(jnp.array, rows_of(pattern(".", 1))[0]._replace(obs=()))
        lowered = jax.jit(ring.add, donate_argnums=0).lower(ring.empty(SPEC, rows, MEMBERS, ENVS), row)
        memory = lowered.compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes

    assert allocated(100) == allocated(100_000)
