"""Checkpoints: what is loaded is what was saved, or an error in one line; and there always is one to load."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

import tiny
from maxent.config import TrainConfig
from maxent.errors import CheckpointError
from maxent.replay import ring
from maxent.run import checkpoint, driver, files, folder, policy, rowfiles
from maxent.types import Leaf, Spec, Transition

PER_FILE = 8
SPEC = Spec({"image": Leaf((2, 2), "uint8"), "vector": Leaf((3,), "float32")}, Leaf((2,), "float32"))
add = jax.jit(ring.add)
STATE = {
    "weights": [jnp.arange(6, dtype=jnp.float32).reshape(2, 3), jnp.full((2,), -0.0)],
    "count": jnp.int32(7),
    "flags": jnp.array([True, False]),
    "odd": jnp.array([np.nan, np.inf], jnp.float32),
    "bytes": jnp.arange(4, dtype=jnp.uint8),
    "none": jnp.zeros((0, 3)),
}
MOMENT = {"carry": (), "journal": {"actions": np.arange(6, dtype=np.float32).reshape(3, 2)}}
COUNTERS = {"step": 5, "text": "ü", "best": [None, 1.5]}


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(rowfiles, "ROWS_PER_FILE", PER_FILE)


def filled(rows: int, capacity: int = 20) -> ring.Ring:
    """A ring after so many rows, each unlike all others."""
    real = ring.empty(SPEC, capacity, 1, 2)
    for number in range(rows):
        rng = np.random.default_rng(number)
        obs = {"image": rng.integers(0, 256, (1, 2, 2, 2)), "vector": rng.normal(size=(1, 2, 3))}
        action, reward, flags = rng.normal(size=(1, 2, 2)), rng.normal(size=(1, 2)), rng.integers(0, 2, (2, 1, 2))
        real = add(real, Transition((), action, reward, flags[0], obs, flags[1] > 0, ()))
    return real


def save(path: Path, step: int, state, moment, counters, rows, kind="step", known=()) -> Path:
    return checkpoint.write(path, checkpoint.take(kind, step, state, moment, counters, rows, known))


def rewrite(path: Path, manifest: dict) -> None:
    """Put another manifest in place, its checksum as it has to be."""
    manifest = checkpoint.sealed({name: value for name, value in manifest.items() if name != "sha256"})
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))


def assert_same(one, other) -> None:
    """The same structure, dtypes and bits."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def template(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was written, and what it holds."""
    found = [p for p in sorted(path.rglob("*")) if p.is_file()]
    return {str(p.relative_to(path)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


# --- what was saved -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 19, 20, 21, 24, 40, 47])
def test_what_is_loaded_is_what_was_saved(tmp_path, rows):
    """Every leaf's bits, with the ring empty, full and wrapped."""
    saved = filled(rows)
    path = save(tmp_path, 5, STATE, MOMENT, COUNTERS, saved)
    assert checkpoint.find(tmp_path) == [path]
    assert_same(checkpoint.load_tree(path, "state", template(STATE)), STATE)
    assert_same(checkpoint.load_rows(path, template(saved)), saved)
    assert checkpoint.read_manifest(path)["counters"] == COUNTERS


def test_a_checkpoint_without_a_replay(tmp_path):
    path = save(tmp_path, 5, STATE, MOMENT, COUNTERS, None)
    assert checkpoint.load_rows(path, filled(0)) is None
    assert not (tmp_path / "replay").exists()


def test_a_row_goes_into_a_file_once(tmp_path):
    """A second checkpoint writes the new rows; files that were full stay as they are, and both can be loaded."""
    rings = [filled(20), filled(27), filled(60)]
    paths = [save(tmp_path, 1, STATE, MOMENT, COUNTERS, rings[0])]
    before = contents(tmp_path / "replay")
    known = checkpoint.replay_files(paths[0])
    paths.append(save(tmp_path, 2, STATE, MOMENT, COUNTERS, rings[1], known=known))
    after = contents(tmp_path / "replay")
    assert {name: after[name] for name in before} == before
    full = [name for name in before if "-000000000-" in name or "-000000008-" in name]
    assert len(full) == 2 and len(set(after) - set(before)) == 2  # rows 16 to 24, and 24 to 27
    named = [f["name"] for f in checkpoint.read_manifest(paths[1])["replay"]["files"]]
    assert set(full) < set(named) or set(full[1:]) < set(named)
    paths.append(save(tmp_path, 3, STATE, MOMENT, COUNTERS, rings[2], known=checkpoint.replay_files(paths[1])))
    for path, saved in zip(paths, rings):
        assert_same(checkpoint.load_rows(path, template(saved)), saved)


def test_a_row_that_an_interruption_changed_is_written_again(tmp_path):
    """`cut` makes the newest row a boundary after it was saved; also where it is the last of a full file."""
    for rows in (11, 16):
        saved = filled(rows)
        saved = saved._replace(boundary=jnp.zeros_like(saved.boundary))
        save(tmp_path / str(rows), 1, STATE, MOMENT, COUNTERS, saved)
        changed = ring.cut(saved, jnp.array([[True, False]]))
        path = save(tmp_path / str(rows), 2, STATE, MOMENT, COUNTERS, changed)
        assert_same(checkpoint.load_rows(path, template(saved)), changed)


def test_pruning_deletes_what_nothing_names(tmp_path):
    rings = {step: filled(5 * step) for step in range(1, 9)}
    for step, saved in rings.items():
        save(tmp_path, step, STATE, MOMENT, COUNTERS, saved)
    best = save(tmp_path, 3, STATE, MOMENT, COUNTERS, None, kind="best")
    stranger = tmp_path / "replay" / "notes.txt"
    stranger.write_text("mine")
    before = contents(tmp_path)
    checkpoint.prune(tmp_path, tmp_path / "step-000000008", 2)
    kept = checkpoint.find(tmp_path)
    assert [p.name for p in kept] == ["step-000000007", "step-000000008"]
    assert checkpoint.find(tmp_path, "best") == [best]
    after = contents(tmp_path)
    assert after == {name: before[name] for name in after} and stranger.exists()
    named = {f["name"] for p in kept for f in checkpoint.read_manifest(p)["replay"]["files"]}
    assert {p.name for p in (tmp_path / "replay").glob("rows-*")} == named
    for path, step in zip(kept, (7, 8)):
        assert_same(checkpoint.load_rows(path, template(rings[step])), rings[step])


@pytest.mark.parametrize(("keep", "left"), [(1, [2]), (2, [2, 9]), (3, [2, 8, 9]), (9, [2, 7, 8, 9])])
def test_what_was_just_written_stays_whatever_its_step(tmp_path, keep, left):
    """A run that was resumed from an early step finds later ones of a past that is void."""
    for step in (7, 8, 9):
        save(tmp_path, step, STATE, MOMENT, COUNTERS, None, kind="best")
    checkpoint.prune(tmp_path, save(tmp_path, 2, STATE, MOMENT, COUNTERS, None, kind="best"), keep)
    assert [int(p.name[5:]) for p in checkpoint.find(tmp_path, "best")] == left


# --- damage -------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path, 5, STATE, MOMENT, COUNTERS, filled(27))


def load(path: Path):
    return checkpoint.load_tree(path, "state", template(STATE)), checkpoint.load_rows(path, filled(0))


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message


def data_files(path: Path) -> list[Path]:
    return [path / "state.safetensors", *sorted((path.parent / "replay").glob("rows-*"))]


def test_a_flipped_bit_anywhere_is_seen(saved):
    for file in data_files(saved):
        whole = file.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 9).astype(int):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(at) % 8
            file.write_bytes(damaged)
            refused(saved, file.name, "damaged")
        file.write_bytes(whole)
    load(saved)


def test_a_truncated_or_missing_file_is_seen(saved):
    for file in data_files(saved):
        whole = file.read_bytes()
        for content in (whole[:-1], whole[:5], b"", whole + b"\0"):
            file.write_bytes(content)
            refused(saved, file.name, "bytes")
        file.unlink()
        refused(saved, file.name)
        file.write_bytes(whole)
    load(saved)


def test_a_file_that_is_no_safetensors_is_seen_though_its_checksum_is_right(saved):
    manifest = json.loads((saved / checkpoint.MANIFEST).read_text())
    for content in (b"", b"nonsense, and not short", b"\xff" * 40):
        (saved / checkpoint.STATE).write_bytes(content)
        manifest["state"] |= {"bytes": len(content), "sha256": files.digest(content)}
        rewrite(saved, manifest)
        refused(saved, checkpoint.STATE)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"{}"])
def test_a_damaged_manifest_is_seen(saved, content):
    (saved / checkpoint.MANIFEST).write_bytes(content)
    refused(saved, checkpoint.MANIFEST)


def places(tree, at=()):
    """Every path into the manifest."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def test_whatever_is_wrong_in_a_manifest_is_a_checkpoint_error(saved):
    """Each entry taken out or made something else: refused in one line, or of no consequence."""
    file, seen = saved / checkpoint.MANIFEST, []
    whole = json.loads(file.read_text())
    for path in places(whole):
        for wrong in (KeyError, None, -1, "x", [], {}):
            manifest = json.loads(json.dumps(whole))
            inside = manifest
            for key in path[:-1]:
                inside = inside[key]
            if wrong is KeyError:
                del inside[path[-1]]
            else:
                inside[path[-1]] = wrong
            if path[0] in ("counters", "step") or inside == whole:
                continue
            rewrite(saved, manifest)
            try:
                load(saved)
            except CheckpointError as error:
                assert "\n" not in str(error)
            except Exception as error:
                seen.append((path, wrong, repr(error)))
    assert seen == []


@pytest.mark.parametrize(("key", "value"), [("version", 6), ("version", 4), ("format", "other")])
def test_another_format_is_refused(saved, key, value):
    manifest = json.loads((saved / checkpoint.MANIFEST).read_text())
    (saved / checkpoint.MANIFEST).write_text(json.dumps(manifest | {key: value}))
    refused(saved, str(value), f"maxent-checkpoint {checkpoint.VERSION}", "run.json")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", ".", ""])
def test_a_file_outside_the_folder_is_never_read(saved, name, tmp_path):
    (tmp_path / "outside").write_bytes((saved / checkpoint.STATE).read_bytes())
    manifest = json.loads((saved / checkpoint.MANIFEST).read_text())
    manifest["state"]["name"] = name
    rewrite(saved, manifest)
    refused(saved)


CONFIGS = {
    "shape": (STATE | {"bytes": jnp.zeros(5, jnp.uint8)}, ["bytes", "[4]", "[5]"]),
    "dtype": (STATE | {"count": jnp.float32(0)}, ["count", "I32", "F32"]),
    "more": (STATE | {"new": jnp.zeros(1)}, ["new"]),
    "less": ({k: v for k, v in STATE.items() if k != "flags"}, ["flags"]),
}


@pytest.mark.parametrize(("other", "parts"), CONFIGS.values(), ids=CONFIGS)
def test_another_configs_state_is_refused(saved, other, parts):
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_tree(saved, "state", template(other))
    assert "\n" not in str(error.value) and all(part in str(error.value) for part in parts)


@pytest.mark.parametrize(
    "other",
    [
        ring.empty(SPEC, 20, 1, 3),
        ring.empty(SPEC, 20, 2, 2),
        ring.empty(replace(SPEC, obs=SPEC.obs | {"vector": Leaf((4,), "float32")}), 20, 1, 2),
        ring.empty(replace(SPEC, obs=SPEC.obs | {"image": Leaf((2, 2), "float32")}), 20, 1, 2),
        ring.empty(replace(SPEC, obs=SPEC.obs | {"new": Leaf((), "int32")}), 20, 1, 2),
        ring.empty(replace(SPEC, action=Leaf((3,), "float32")), 20, 1, 2),
    ],
    ids=["envs", "members", "shape", "dtype", "more", "action"],
)
def test_another_environments_replay_is_refused(saved, other):
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.load_rows(saved, other)


@pytest.mark.parametrize("capacity", [12, 50])
def test_a_ring_of_another_capacity_holds_no_rows_that_never_were(saved, capacity):
    """Refused, or the newest rows in it and nothing else to sample."""
    try:
        loaded = checkpoint.load_rows(saved, ring.empty(SPEC, capacity, 1, 2))
    except CheckpointError as error:
        assert "\n" not in str(error)
        return
    true = {tuple(row) for row in np.array(filled(27).obs["vector"]).reshape(-1, 3).tolist()}
    loaded = loaded._replace(boundary=jnp.zeros_like(loaded.boundary))
    batch = ring.sample(loaded, jax.random.split(jax.random.key(0), 1), 512, 1, jnp.ones(1))
    assert {tuple(row) for row in np.array(batch.obs["vector"][0]).tolist()} <= true


def test_a_missing_checkpoint_is_refused(tmp_path):
    refused(tmp_path / "step-000000001", "step-000000001")
    assert checkpoint.find(tmp_path) == []


# --- in the middle of writing -------------------------------------------------------------------------------


class Failure(Exception):
    """What interrupts."""


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Make the call of that number fail among all that change the disk; the names of those that were made."""
    calls: list[str] = []

    def failing(name, function):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == number:
                raise Failure(name)
            return function(*args, **kwargs)

        return call

    paths = [(Path, name) for name in ("rename", "replace", "mkdir", "unlink")]
    for owner, name in ((os, "fsync"), (os, "replace"), (shutil, "rmtree"), *paths):
        monkeypatch.setattr(owner, name, failing(name, getattr(owner, name)))
    return calls


@pytest.mark.parametrize("step", [2, 1], ids=["another step", "the same step"])
def test_there_is_a_whole_checkpoint_at_every_moment(tmp_path, monkeypatch, step):
    """Wherever the writing of a second one is interrupted, the newest is the first or the second, whole."""
    states = {1: STATE, 2: template(STATE)}
    rings = {1: filled(20), 2: filled(27)}
    outcomes = []
    for number in range(1, 100):
        path = tmp_path / str(number)
        save(path, 1, states[1], MOMENT, COUNTERS, rings[1])
        with monkeypatch.context() as patched:
            calls = fail_at(patched, number)
            try:
                checkpoint.prune(path, save(path, step, states[2], MOMENT, COUNTERS, rings[2]), 1)
                failed = ""
            except Failure as failure:
                failed = str(failure)
        found = checkpoint.find(path)
        assert found, f"no checkpoint is left after a failing {failed}, call {number} of {calls}"
        written = int(checkpoint.load_rows(found[-1], template(rings[1])).written)
        which = {20: 1, 27: 2}[written]
        assert_same(checkpoint.load_tree(found[-1], "state", template(STATE)), states[which])
        assert_same(checkpoint.load_rows(found[-1], template(rings[1])), rings[which])
        outcomes.append(which)
        save(path, 3, states[2], MOMENT, COUNTERS, rings[2])
        assert_same(checkpoint.load_rows(checkpoint.find(path)[-1], template(rings[1])), rings[2])
        if not failed:
            break
    assert not failed and outcomes == sorted(outcomes) and outcomes[0] == 1 and outcomes[-1] == 2 and len(outcomes) > 8


def test_half_a_checkpoint_is_not_found(tmp_path):
    whole = save(tmp_path, 1, STATE, MOMENT, COUNTERS, None)
    (tmp_path / "step-000000002").mkdir()
    (tmp_path / "step-000000002" / checkpoint.STATE).write_bytes(b"")
    shutil.copytree(whole, tmp_path / ".step-000000003.partial")
    assert checkpoint.find(tmp_path) == [whole]


# --- a run --------------------------------------------------------------------------------------------------

SETTINGS = replace(tiny.SETTINGS, buffer_size=60, learning_starts=30)
OBS = np.array([[[3.0, 1.0], [0.5, 2.0]]], np.float32)


@pytest.fixture
def train(tmp_path, shared_programs):
    """A run of two environments up to step 100, and its folder."""

    def trained(save_replay: bool) -> driver.Driver:
        every = {"log_every": 25, "eval_every": 50, "eval_episodes": 1, "checkpoint_every": 50}
        config = TrainConfig("tiny:Clock", steps=100, envs=2, save_replay=save_replay, **every)
        run = driver.start(config, SETTINGS, {"length": 7}, str(tmp_path / "run"))
        assert run.learn(100)
        return run

    return trained


def actions(run: driver.Driver) -> np.ndarray:
    """The mean action, and a sample."""
    arguments = (run.loop.view, (), OBS, np.ones(OBS.shape[:2], bool), run.loop.roots, np.uint32(9))
    return np.stack([run.programs.act(*arguments, explore=explore)[0] for explore in (False, True)])


@pytest.mark.filterwarnings("ignore:.* could not be brought back")
@pytest.mark.parametrize("save_replay", [True, False])
def test_a_restored_run_acts_the_same_and_goes_on(train, save_replay):
    run = train(save_replay)
    again = driver.reopen(run.path)
    assert_array_equal(actions(again), actions(run))
    assert_same(again.loop.learned.state, run.loop.learned.state)
    assert (again.loop.step, again.loop.updates) == (run.loop.step, run.loop.updates) == (100, 70)
    assert again.history.counters() == run.history.counters()

    assert again.learn(140)
    assert again.loop.step == 140
    # With its replay it learns from the first step on; without, it first takes learning_starts steps to fill one.
    assert again.loop.updates == 70 + (40 if save_replay else 40 - SETTINGS.learning_starts)
    assert not np.array_equal(actions(again), actions(run))
    assert driver.reopen(run.path).loop.step == 140


def test_the_replay_comes_back_cut_where_episodes_could_not_be_brought_back(train):
    """A clock shows how often it was reset, so no seed brings an episode back."""
    run = train(True)
    again = driver.reopen(run.path)
    lost = ~run.loop.stepped.row.boundary
    assert lost.any()
    assert_same(again.loop.ring, ring.cut(run.loop.ring, jnp.array(lost)))
    with pytest.warns(UserWarning, match="1 of the running episodes could not be brought back|2 of the"):
        again.learn(140)


@pytest.mark.filterwarnings("ignore:.* could not be brought back")
def test_a_restored_run_plays_new_episodes(train):
    """Its environments are seeded with the numbers that follow, after the running episode, which is tried once more."""
    run = train(True)
    again = driver.reopen(run.path)
    again.learn(140)
    before, after = ([env.unwrapped.played for env in r.loop.envs._envs[0]] for r in (run, again))
    for env, (old, seeds) in enumerate(zip(before, after)):
        assert set(old) & set(seeds) <= {old[-1]}
        seeds = [seed for seed in seeds if seed != old[-1]]
        finished = [
            e.seed for e in again.history.recent[0] if e.env == env and e.number >= run.loop.envs.episodes[0, env]
        ]
        assert len(finished) > 1 and finished == seeds[: len(finished)]


@pytest.mark.filterwarnings("ignore:.* could not be brought back")
@pytest.mark.parametrize("save_replay", [True, False])
def test_a_restored_run_learns_from_what_happened(train, save_replay):
    """The interruption is no transition: neither to the first observation after it, nor from one before it."""
    again = driver.reopen(train(save_replay).path)
    again.learn(140)
    batch = ring.sample(again.loop.ring, jax.random.split(jax.random.key(0), 1), 4096, 1, jnp.ones(1))
    obs, next_obs = np.array(batch.obs[0]), np.array(batch.next_obs[0])
    assert_array_equal(next_obs, obs + [0, 1])
    assert_array_equal(batch.reward[0], 10 * next_obs[:, 0] + next_obs[:, 1])


def test_the_best_checkpoint_is_kept_beside_the_last(train):
    run = train(True)
    best = driver.reopen(run.path, best=True)
    (found,) = checkpoint.find(run.path / folder.CHECKPOINTS, "best")
    manifest = checkpoint.read_manifest(found)
    assert best.loop.step == manifest["step"] and manifest["replay"] is None


def test_a_run_without_a_checkpoint_is_at_its_beginning(train, capsys):
    run = train(False)
    whole = [np.asarray(x) for x in jax.tree.leaves((run.loop.learned, run.loop.ring))]
    rows = (run.path / folder.EVALUATIONS).read_text()
    shutil.rmtree(run.path / folder.CHECKPOINTS)
    with pytest.raises(CheckpointError, match="no last checkpoint"):
        policy.load(run.path)
    with pytest.warns(UserWarning, match="has no checkpoint: it begins again"):
        again = driver.reopen(run.path)
    assert again.loop.step == 0 and again.learn(run.loop.step)
    for x, y in zip(whole, jax.tree.leaves((again.loop.learned, again.loop.ring)), strict=True):
        assert_array_equal(x, y)
    assert (run.path / folder.EVALUATIONS).read_text() == rows
    (newest,) = checkpoint.find(run.path / folder.CHECKPOINTS)[-1:]
    checkpoint.set_aside(newest)
    for older in checkpoint.find(run.path / folder.CHECKPOINTS):
        shutil.rmtree(older)
    with pytest.raises(CheckpointError, match="no last checkpoint"):  # it was further than its beginning
        driver.reopen(run.path)


def test_a_manifest_has_a_checksum(train):
    run = train(False)
    newest = checkpoint.find(run.path / folder.CHECKPOINTS)[-1]
    manifest = json.loads((newest / checkpoint.MANIFEST).read_text())
    del manifest["sha256"]
    (newest / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged checkpoint.json"):
        checkpoint.read_manifest(newest)


def test_a_damaged_counter_is_a_checkpoint_error(train):
    run = train(False)
    older, newest = checkpoint.find(run.path / folder.CHECKPOINTS)
    shutil.rmtree(older)
    file = newest / checkpoint.MANIFEST
    manifest = json.loads(file.read_text())
    for counters in ({}, None, manifest["counters"] | {"step": "x"}):
        rewrite(newest, manifest | {"counters": counters})
        with pytest.raises(CheckpointError):
            driver.reopen(run.path)


def test_nothing_that_is_written_or_read_is_a_pickle(train, monkeypatch):
    run = train(True)
    names = contents(run.path / folder.CHECKPOINTS)
    assert {Path(name).suffix for name in names} == {".safetensors", ".json"}
    for name, (_, content) in names.items():
        json.loads(content) if name.endswith("json") else load_file(run.path / folder.CHECKPOINTS / name)
        with pytest.raises(Exception):  # noqa: B017
            pickle.loads(content)

    def forbidden(*args, **kwargs):
        raise AssertionError("a pickle is read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    driver.reopen(run.path)
