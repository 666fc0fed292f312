"""A disk that is full, read-only or gone: training goes on, and what is on the disk stays whole."""

import builtins
import csv
import errno
import io
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import tiny
from maxent.config import TrainConfig
from maxent.errors import CheckpointError, ConfigError
from maxent.run import checkpoint, driver, files, folder
from maxent.run.loggers import CSVLogger, Patient, cut_back, read_csv

pytestmark = pytest.mark.usefixtures("shared_programs")

SETTINGS = tiny.SETTINGS.__class__(hidden_sizes=(4,), batch_size=4, buffer_size=16, learning_starts=2)
CONFIG = TrainConfig(
    "tiny:Clock", steps=8, log_every=2, eval_every=4, eval_episodes=1, checkpoint_every=4, keep_checkpoints=2
)
CLOCKS = ("wall_time", "steps_per_second")


class Disk:
    """Counts every call that changes what lies below a folder, and lets some fail.

    `fails(number)` says which. A full disk still deletes and cuts off, and takes half of what is written before it
    refuses; one that is read-only takes nothing.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, error: int, fails) -> None:
        self.root, self.error, self.fails, self.calls = str(root), error, fails, []
        kinds = {"fsync": 0, "mkdir": 1, "rename": 1, "replace": 1}
        if error == errno.EROFS:
            kinds |= {"unlink": 1}
        for name in kinds:
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))
        real = builtins.open

        def opening(path, mode="r", *args, **kwargs):
            if str(path).startswith(self.root) and set(mode) & set("wax+"):
                self.count("open", path)
                if "b" in mode:
                    return Leaking(self, path, mode)
            return real(path, mode, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", opening)

    def count(self, name: str, path) -> None:
        self.calls.append(name)
        if self.fails(len(self.calls)):
            raise OSError(self.error, os.strerror(self.error), str(path))

    def _failing(self, name, function):
        def call(path, *args, **kwargs):
            if name == "fsync":
                self.count(name, "")
                return None  # what the disk itself holds back is no matter of these tests
            if str(path).startswith(self.root):
                self.count(name, path)
            return function(path, *args, **kwargs)

        return call


class Leaking(io.FileIO):
    """A file on such a disk."""

    def __init__(self, disk: Disk, path, mode: str) -> None:
        super().__init__(path, mode.replace("b", ""))
        self._disk = disk

    def write(self, content) -> int:
        try:
            self._disk.count("write", self.name)
        except OSError:
            if self._disk.error == errno.ENOSPC:
                super().write(content[: len(content) // 2])
            raise
        return super().write(content)

    def truncate(self, size=None) -> int:
        if self._disk.error == errno.EROFS:
            self._disk.count("truncate", self.name)
        return super().truncate(size)


def begin(path: Path, **train) -> driver.Driver:
    run = driver.start(CONFIG.__class__(**(vars(CONFIG) | train)), SETTINGS, {"length": 3}, str(path))
    run.told = []
    run.warn = run.told.append
    return run


def rows(path: Path) -> list[dict[str, str]]:
    table = csv.DictReader(path.read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in table]


def states(path: Path) -> dict[str, dict[str, bytes]]:
    """Every checkpoint that is found, with the bits of all that it holds: each has to be whole."""
    found = {}
    for kind in ("step", "best"):
        for where in checkpoint.find(path / folder.CHECKPOINTS, kind):
            manifest = checkpoint.read_manifest(where)
            entries = [(where, manifest["state"]), (where, manifest["moment"])]
            entries += [(where.parent / "replay", file) for file in checkpoint.replay_files(where)]
            name = "-".join(where.name.split("-")[:2])  # one that was written again has a number more
            found[name] = {}
            for place, entry in entries:
                content = (place / entry["name"]).read_bytes()
                assert len(content) == entry["bytes"] and files.digest(content) == entry["sha256"]
                found[name][entry["name"]] = content
    return found


def assert_whole_events(path: Path) -> int:
    """Every event file is a row of whole records; how many."""
    count = 0
    for file in path.rglob("events.out.*"):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            assert len(content) >= length + 16
            content, count = content[length + 16 :], count + 1
    return count


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shared_programs):
    """The run on a disk that takes everything: its checkpoints, its tables, and how often it changed the disk."""
    path = tmp_path_factory.mktemp("reference") / "run"
    with pytest.MonkeyPatch.context() as patched:
        run = begin(path)
        disk = Disk(patched, path, errno.ENOSPC, lambda number: False)
        assert run.learn(8)
    assert run.told == []
    calls = {kind: disk.calls.count(kind) for kind in ("open", "write", "fsync", "mkdir", "rename", "replace")}
    assert min(calls.values()) > 0
    return path, states(path), len(disk.calls)


def survives(path: Path, reference, error: int, fails) -> bool:
    """Train on such a disk; whether everything was kept. What must hold whatever fails is asserted here."""
    original, wanted, _ = reference
    run = begin(path)
    with pytest.MonkeyPatch.context() as patched:
        Disk(patched, path, error, fails)
        try:
            assert run.learn(8)
            kept = True
        except (CheckpointError, ConfigError) as refusal:
            kept = False
            assert "\n" not in str(refusal) and str(path) in str(refusal) and os.strerror(error) in str(refusal)
            assert run.loop.step == 8 or (run.loop.step == 0 and not states(path))
    assert all("\n" not in line and os.strerror(error) in line and "training goes on" in line for line in run.told)

    found = states(path)
    assert set(found) <= set(wanted) and all(found[name] == wanted[name] for name in found)
    assert_whole_events(path)
    for name in (folder.PROGRESS, folder.EVALUATIONS):
        if (path / name).exists():
            content, whole = (path / name).read_bytes(), rows(original / name)
            assert content == b"" or content.endswith(b"\n")
            assert rows(path / name) == whole[: len(rows(path / name))]
    hidden = [p for p in path.rglob(".*.partial")]
    named = {f["name"] for p in checkpoint.find(path / folder.CHECKPOINTS) for f in checkpoint.replay_files(p)}
    if error == errno.ENOSPC:
        assert not hidden
        assert {p.name for p in path.rglob("rows-*")} <= named
    if kept:
        assert rows(path / folder.PROGRESS) == rows(original / folder.PROGRESS)
        assert rows(path / folder.EVALUATIONS) == rows(original / folder.EVALUATIONS)
        assert found["step-000000008"] == wanted["step-000000008"]
    return kept


# --- every call in turn -------------------------------------------------------------------------------------

PARTS = 4
"""The calls are dealt out to so many tests, which may run side by side."""


@pytest.mark.parametrize("part", range(PARTS))
def test_any_one_call_may_fail(tmp_path, reference, part):
    """A disk that is full for a moment: all is kept, unless it was the end that could not be."""
    outcomes = []
    for number in range(1 + part, reference[2] + 1, PARTS):
        outcomes.append(survives(tmp_path / str(number), reference, errno.ENOSPC, lambda call, n=number: call == n))
    assert outcomes.count(True) > 0.5 * len(outcomes)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("part", range(PARTS))
def test_every_call_may_fail_from_some_time_on(tmp_path, reference, error, part):
    """The checkpoints of before stay, the run goes on to its end, and then says what is not kept."""
    for number in range(1 + part, reference[2] + 1, 2 * PARTS):
        path = tmp_path / str(number)
        assert not survives(path, reference, error, lambda call, n=number: call >= n)
        last = checkpoint.find(path / folder.CHECKPOINTS)
        if last and number % 5 == 0:
            assert driver.reopen(path).loop.step == int(last[-1].name.split("-")[1])


def test_a_disk_that_is_full_for_a_while_costs_nothing_in_the_end(tmp_path, reference):
    """Rows wait, in order; the best evaluation is written later, and so is the next checkpoint."""
    for first in range(1, reference[2] - 40, 16):
        path = tmp_path / str(first)
        run = begin(path)
        with pytest.MonkeyPatch.context() as patched:
            Disk(patched, path, errno.ENOSPC, lambda call, n=first, run=run: n <= call and 0 < run.loop.step < 7)
            assert run.learn(8)
        assert 0 < len(run.told) <= 6
        assert rows(path / folder.PROGRESS) == rows(reference[0] / folder.PROGRESS)
        assert rows(path / folder.EVALUATIONS) == rows(reference[0] / folder.EVALUATIONS)
        found = states(path)
        assert found["step-000000008"] == reference[1]["step-000000008"]
        assert {name for name in found if name[:4] == "best"} == {name for name in reference[1] if name[:4] == "best"}


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    """As where a mount vanished: nothing is written in its place."""
    run = begin(tmp_path / "run")

    def vanish(progress):
        run.keeper.wait()
        if progress.step == 6:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(CheckpointError, match="No such file or directory"):
        run.learn(8, [vanish])
    assert run.loop.step == 8 and not (tmp_path / "run").exists()
    assert "step-000000004" in states(tmp_path / "elsewhere")


def test_a_wait_that_is_interrupted_can_be_repeated(tmp_path, monkeypatch):
    """The writing goes on, and the process does not end before it has."""
    run, going = begin(tmp_path / "run"), threading.Event()
    write = checkpoint.write

    def slowly(folder, snapshot):
        assert going.wait(60)
        return write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "write", slowly)
    run.keeper.write_meanwhile("step")
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            run.keeper.wait()
    finally:
        signal.signal(signal.SIGINT, found)
    assert run.keeper.busy()
    going.set()
    run.keeper.wait()
    assert not run.keeper.busy() and checkpoint.last_step(tmp_path / "run" / "checkpoints") == 0


def test_an_interrupt_that_cannot_save_is_not_taken_for_one_that_did(tmp_path):
    run = begin(tmp_path / "run")

    def interrupt(progress):
        if progress.step == 6:
            (tmp_path / "run").rename(tmp_path / "elsewhere")
            raise KeyboardInterrupt

    with pytest.raises(CheckpointError, match="is not kept"):
        run.learn(8, [interrupt])
    run = begin(tmp_path / "again")

    def fail(progress):
        (tmp_path / "again").rename(tmp_path / "there")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run.learn(8, [fail])
    assert "is not kept" in run.told[-1]


# --- the parts ----------------------------------------------------------------------------------------------


def test_a_piece_that_is_not_written_whole_is_taken_back(tmp_path, monkeypatch):
    """At once, or, where that fails as well, before the next one."""
    file = files.Growing(tmp_path / "file")
    file.append(b"one\n")
    with monkeypatch.context() as patched:
        Disk(patched, tmp_path, errno.ENOSPC, lambda call: call == 2)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/file'"):
            file.append(b"two\n")
    assert file.path.read_bytes() == b"one\n"
    with monkeypatch.context() as patched:
        Disk(patched, tmp_path, errno.ENOSPC, lambda call: call == 2)
        patched.setattr(Leaking, "truncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(OSError):
            file.append(b"two\n")
    assert file.path.read_bytes() == b"one\ntw"
    file.append(b"two\n")
    assert file.path.read_bytes() == b"one\ntwo\n" and not file.empty()


def test_a_header_is_written_once(tmp_path, monkeypatch):
    logger = CSVLogger(tmp_path / "progress.csv", tmp_path / "evaluations.csv")
    told = []
    patient = Patient(logger, told.append)
    with monkeypatch.context() as patched:
        Disk(patched, tmp_path, errno.ENOSPC, lambda call: True)
        patient.progress([{"step": 1, "x": 0.5}])
        patient.progress([{"step": 2, "x": 0.25}])
    assert len(told) == 1
    patient.progress([{"step": 3, "x": 0.125}])
    patient.close()
    assert (tmp_path / "progress.csv").read_bytes() == b"step,x\r\n1,0.5\r\n2,0.25\r\n3,0.125\r\n"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "file"
    files.replace(file, b"old")
    for number in range(1, 5):
        with monkeypatch.context() as patched:
            disk = Disk(patched, tmp_path, errno.ENOSPC, lambda call, n=number: call == n)
            with pytest.raises(OSError, match="file'"):
                files.replace(file, b"new")
        assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file] and len(disk.calls) == number
    files.replace(file, b"new")
    assert file.read_bytes() == b"new"


def test_rows_are_cut_back_without_a_half_one(tmp_path):
    file = tmp_path / "progress.csv"
    file.write_bytes(b"step,member\r\n50,1\r\n100,2\r\n1")
    assert [row["step"] for row in read_csv(file)] == ["50", "100"]
    cut_back(file, 50, ["step", "member"])
    assert file.read_bytes() == b"step,member\r\n50,1\r\n"
    cut_back(file, 0, ["step", "member"])
    assert file.read_bytes() == b"step,member\r\n"


def test_a_run_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch):
    """Neither its config alone, which would stand in the way of the next try."""
    for number in range(1, 20):
        with monkeypatch.context() as patched:
            disk = Disk(patched, tmp_path, errno.ENOSPC, lambda call, n=number: call == n)
            try:
                begin(tmp_path / "run")
            except OSError:
                assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
                continue
        assert len(disk.calls) == number - 1 > 5
        return
    raise AssertionError("every try failed")


def test_a_limit_of_the_system_itself(tmp_path):
    """No file may grow beyond 3,000 bytes for a while: a checkpoint's cannot, the tables can."""
    script = """
        import resource, signal, sys
        from pathlib import Path
        import tiny
        from maxent.config import SACConfig, TrainConfig
        from maxent.run import checkpoint, driver

        settings = SACConfig(hidden_sizes=(16,), batch_size=4, buffer_size=16, learning_starts=2)
        every = dict(log_every=2, eval_every=8, eval_episodes=1, checkpoint_every=4)
        run = driver.start(TrainConfig("tiny:Clock", steps=16, **every), settings, {"length": 3}, sys.argv[1])
        told, found = [], []
        run.warn = told.append
        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        def callback(progress):
            run.keeper.wait()
            found.append([p.name for p in checkpoint.find(Path(sys.argv[1]) / "checkpoints")])
            if progress.step in (6, 10):
                limit(3000 if progress.step == 6 else resource.RLIM_INFINITY)
        run.learn(16, [callback])
        print(len(told), "File too large" in told[0], found[4], found[6], driver.reopen(sys.argv[1]).loop.step)
    """
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": f"{here}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # the limit would leave half an entry in a cache that all tests share
    }
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, too_large, rest = done.stdout.split(maxsplit=2)
    assert int(count) >= 1 and too_large == "True"
    assert rest.strip() == "['step-000000004'] ['step-000000004', 'step-000000012'] 16"
    assert len(rows(tmp_path / "run" / folder.PROGRESS)) == 8
    assert not list((tmp_path / "run").rglob(".*.partial"))
