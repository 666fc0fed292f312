"""Damaged checkpoints: each is refused by a CheckpointError in one line, or is what was saved; none costs memory."""

import copy
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny
from maxent.config import TrainConfig
from maxent.errors import CheckpointError, ConfigError
from maxent.run import checkpoint, driver, files, folder, rowfiles, saving
from maxent.run.loggers import cut_back, read_csv

SETTINGS = tiny.SETTINGS.__class__(hidden_sizes=(4,), batch_size=4, buffer_size=16, learning_starts=2)
ROWS = "replay"
PARTS = 8


def trained(path: Path) -> driver.Driver:
    """A run of two members with one checkpoint, its replay in three files."""
    every = {"log_every": 2, "eval_every": 0, "eval_episodes": 1, "checkpoint_every": 0}
    run = driver.start(TrainConfig("tiny:Clock", steps=10, seeds=2, **every), SETTINGS, {"length": 4}, str(path))
    run.learn(10)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, shared_programs):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rowfiles, "ROWS_PER_FILE", 4)
        yield trained(tmp_path_factory.mktemp("damage") / "run")


@pytest.fixture(scope="module")
def saved(run) -> Path:
    (found,) = checkpoint.find(run.path / folder.CHECKPOINTS)
    assert len(checkpoint.replay_files(found)) == 3
    return found


def leaves(loaded) -> list[bytes]:
    counters, *trees = loaded
    return [json.dumps(counters).encode(), *(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees))]


def forms(loaded) -> list:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(loaded[1:])]


def outcome(run: driver.Driver, found: Path):
    """What is loaded, or None where it is refused as it has to be; anything else that is raised goes on."""
    try:
        return saving.read(found, run.loop)
    except CheckpointError as error:
        assert "\n" not in str(error)
        return None


# --- how a checkpoint is damaged ------------------------------------------------------------------------------


class Damaged:
    """A copy of a checkpoint to be damaged, and put back as it was."""

    def __init__(self, saved: Path) -> None:
        self.path = saved
        self.manifest = json.loads((saved / checkpoint.MANIFEST).read_text())
        entries = {"state": self.manifest["state"], "moment": self.manifest["moment"]}
        entries[ROWS] = self.manifest["replay"]["files"][1]
        self.files = {part: self.file(part, entry) for part, entry in entries.items()}
        self.contents = {part: path.read_bytes() for part, path in self.files.items()}
        self.own = (saved / checkpoint.MANIFEST).read_bytes()

    def file(self, part: str, entry) -> Path:
        return (self.path.parent / "replay" if part == ROWS else self.path) / entry["name"]

    def restore(self) -> None:
        for path, content in [(self.files[part], self.contents[part]) for part in self.files] + [
            (self.path / checkpoint.MANIFEST, self.own)
        ]:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path.is_symlink() or path.exists():
                path.unlink()
            path.write_bytes(content)

    def put(self, part: str, content: bytes, right: bool) -> None:
        """Other content in place of a file's, with the right size and checksum if wanted."""
        self.files[part].write_bytes(content)
        if right:
            manifest = copy.deepcopy(self.manifest)
            entry = manifest["replay"]["files"][1] if part == ROWS else manifest[part]
            entry |= {"bytes": len(content), "sha256": files.digest(content)}
            self.put_manifest(manifest, True)

    def put_manifest(self, manifest, right: bool) -> None:
        if right and isinstance(manifest, dict):
            manifest = checkpoint.sealed({name: value for name, value in manifest.items() if name != "sha256"})
        (self.path / checkpoint.MANIFEST).write_text(json.dumps(manifest))

    def split(self, part: str) -> tuple[dict, bytes]:
        """A file's header and its data."""
        content = self.contents[part]
        length = int.from_bytes(content[:8], "little")
        return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def sections(content: bytes) -> list[int]:
    """Lengths at which a file breaks off: within and between the length, the header and the data."""
    end = 8 + int.from_bytes(content[:8], "little")
    return [0, 1, 7, 8, 9, (8 + end) // 2, end - 1, end, end + 1, (end + len(content)) // 2, len(content) - 1]


def in_data(damaged: Damaged):
    """Truncated, longer, and with a flipped bit; where sizes and checksums are made right, those that still show."""
    for part, content in damaged.contents.items():
        other = {f"cut to {n}": content[:n] for n in sections(content)}
        other |= {"a byte more": content + b"\0", "eight more": content + bytes(8), "twice": content * 2}
        for name, changed in other.items():
            for right in (False, True):
                yield f"{part} {name} {right}", lambda p=part, c=changed, r=right: damaged.put(p, c, r)
        for at in np.linspace(0, len(content) - 1, 30).astype(int):
            changed = bytearray(content)
            changed[at] ^= 1 << int(at) % 8
            yield f"{part} bit of {at}", lambda p=part, c=bytes(changed): damaged.put(p, c, False)


WRONG_DTYPES = ("F64", "BOGUS", "", "f32", None, 3, ["F32"], {})
WRONG_SHAPES = (
    [0], [-1], [2**62], [2**63], [2**64], [2**32, 2**32], [1.5], "x", None, [[1]], [True], [1] * 50, {}, 3, [None],
)  # fmt: skip
TRICKS = ("../x", "/etc/passwd", "a\0b", "", "..", "x/../../y", "\ud800", "__metadata__", "a" * 300)


def in_headers(damaged: Damaged):
    """Everything that a header may say, with a right checksum."""
    for part in damaged.files:
        header, data = damaged.split(part)
        first, second = [name for name in header if name != "__metadata__"][:2]
        begin, end = header[first]["data_offsets"]
        offsets = (
            header[second]["data_offsets"], [begin + 1, end + 1], [begin, end + 4], [end, begin], [-4, end - 4],
            [0, 2**63], [begin, 2**64], [len(data), len(data) + end - begin], [0.5, end], [begin], [begin, end, end],
            None, "x", [None, None],
        )  # fmt: skip
        changes: dict[str, object] = {}
        for key, values in (("dtype", WRONG_DTYPES), ("shape", WRONG_SHAPES), ("data_offsets", offsets)):
            for value in values:
                changes[f"{key} {value!s:.30}"] = header | {first: header[first] | {key: value}}
            changes[f"no {key}"] = header | {first: {k: v for k, v in header[first].items() if k != key}}
        without = {name: entry for name, entry in header.items() if name != first}
        changes |= {f"entry {value!r}": header | {first: value} for value in (None, 3, "x", [], {})}
        changes |= {f"header {value!r}": value for value in (None, 3, "x", [], {}, [header])}
        changes["one less"] = without
        changes |= {f"also {name!r}": header | {name: header[first]} for name in TRICKS}
        changes |= {f"renamed {name!r}": without | {name: header[first]} for name in TRICKS}
        text = json.dumps(header)
        one = json.dumps(first) + ":" + json.dumps(header[first])
        changes["one twice"] = (text[:-1] + "," + one + "}").encode()
        changes["one twice, first another"] = ("{" + one.replace("F32", "F64") + "," + text[1:]).encode()
        changes["deep"] = b"[" * 900
        changes["deeper"] = b'{"a":' * 200
        changes["NaN"] = text.replace(str(header[first]["shape"][0]), "NaN", 1).encode()
        changes["Infinity"] = text.replace(str(header[first]["shape"][0]), "Infinity", 1).encode()
        changes["1e999"] = text.replace(str(header[first]["shape"][0]), "1e999", 1).encode()
        changes["long number"] = text.replace(str(header[first]["shape"][0]), "1" * 500, 1).encode()
        changes["no UTF-8"] = text.encode().replace(b"F32", b"\xff32", 1)
        changes["UTF-16"] = text.encode("utf-16")
        for name, changed in changes.items():
            content = joined(changed, data)
            yield f"{part} {name}", lambda p=part, c=content: damaged.put(p, c, True)
        for length in (0, 1, len(text) - 1, len(text) + 1, len(text) + len(data), 10**8, 2**31, 2**63, 2**64 - 1):
            content = joined(text.encode(), data, length)
            yield f"{part} length {length}", lambda p=part, c=content: damaged.put(p, c, True)


def in_place_of_files(damaged: Damaged):
    """No file, or something that is none."""
    outside = damaged.path.parent.parent / "outside"
    for name, path in [*damaged.files.items(), ("manifest", damaged.path / checkpoint.MANIFEST)]:

        def link(path=path):
            shutil.copy(path, outside)
            path.unlink()
            path.symlink_to(outside)

        def loop(path=path):
            path.unlink()
            path.symlink_to(path)

        def as_folder(path=path):
            path.unlink()
            path.mkdir()

        def pipe(path=path):
            path.unlink()
            os.mkfifo(path)

        def gone(path=path):
            path.unlink()

        def empty(path=path):
            path.write_bytes(b"")

        def zeros(path=path):
            path.write_bytes(bytes(path.stat().st_size))

        for how in (link, loop, as_folder, pipe, gone, empty, zeros):
            yield f"{name} {how.__name__}", how


WRONG = (KeyError, None, -1, True, 2**32, 2**63, -(2**63), 10**400, 0.5, "x", "", "../x", [], {}, [[]])


def places(tree, at=()):
    """Every path into the manifest, of lists the first entry alone."""
    items = (
        list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))[:1] if isinstance(tree, list) else []
    )
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def changed_at(manifest, path, value):
    manifest = copy.deepcopy(manifest)
    inside = manifest
    for key in path[:-1]:
        inside = inside[key]
    if value is KeyError:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return manifest


def in_manifest(damaged: Damaged):
    """Everything that stands in the manifest something else, its own checksum left as it was."""
    for path in places(damaged.manifest):
        for wrong in WRONG:
            other = changed_at(damaged.manifest, path, wrong)
            if other != damaged.manifest and path != ("sha256",):
                yield f"manifest {path} {wrong!s:.20}", lambda m=other: damaged.put_manifest(m, False)


def in_names(damaged: Damaged):
    """Files elsewhere, and replays that are not one row after the other, with a right checksum."""
    tricks = (
        *TRICKS,
        "/",
        ".",
        "state.safetensors/",
        "./state.safetensors",
        "x" * 5000,
        "moment.safetensors\0",
        "rows-x",
    )
    for path in (("state", "name"), ("moment", "name"), ("replay", "files", 0, "name"), ("replay", "files", 1, "name")):
        for name in tricks:
            other = changed_at(damaged.manifest, path, name)
            yield f"{path} {name!r:.30}", lambda m=other: damaged.put_manifest(m, True)
    replay = damaged.manifest["replay"]
    all_files, written = replay["files"], replay["written"]
    replays = {
        "none": [], "one less": all_files[:-1], "hole": [all_files[0], all_files[2]], "backwards": all_files[::-1],
        "one twice": [all_files[0], *all_files], "many": all_files * 3000,
        "empty file": [all_files[0] | {"stop": all_files[0]["start"]}, *all_files],
        "negative": [all_files[0] | {"start": -1}, *all_files[1:]],
        "overlap": [all_files[0], all_files[1] | {"start": all_files[1]["start"] - 1}, all_files[2]],
        "beyond": [*all_files[:-1], all_files[-1] | {"stop": written + 1}],
        "absurd": [*all_files[:-1], all_files[-1] | {"stop": 2**32 - 1}],
        "swapped": [all_files[1] | {"start": all_files[0]["start"], "stop": all_files[0]["stop"]}, *all_files[1:]],
    }  # fmt: skip
    for name, own in replays.items():
        other = changed_at(damaged.manifest, ("replay", "files"), own)
        if name != "swapped":  # rows are not signed with their numbers
            yield f"replay {name}", lambda m=other: damaged.put_manifest(m, True)
    for other in (0, 1, written - 1, written + 1, 2**31, 2**32 - 1):
        manifest = changed_at(damaged.manifest, ("replay", "written"), other)
        yield f"written {other}", lambda m=manifest: damaged.put_manifest(m, True)


def as_text(damaged: Damaged):
    """What is no JSON, or JSON that no checkpoint is."""
    whole = damaged.own.decode()
    step, version = f'"step": {damaged.manifest["step"]}', f'"version": {checkpoint.VERSION}'
    texts = {f"cut to {n}": damaged.own[:n] for n in np.linspace(0, len(whole) - 1, 25).astype(int)}
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "0x10", "01", "1_0", "+1", "٣"):
        texts[f"step {number:.12}"] = whole.replace(step, f'"step": {number}', 1).encode()
    texts |= {
        "no UTF-8": damaged.own.replace(b"state", b"st\xffte", 1), "UTF-16": whole.encode("utf-16"),
        "a mark": b"\xef\xbb\xbf" + damaged.own, "more": damaged.own + b"{}", "nothing": b"", "zeros": bytes(500),
        "deep": b"[" * 100_000, "deep names": b'{"a":' * 100_000, "deep and closed": b"[" * 50_000 + b"]" * 50_000,
        "long": b" " * (9 << 20) + damaged.own, "a name twice": whole.replace(step, f'"step": 1, {step}', 1).encode(),
        "a name more": whole.replace(step, f'"other": 1, {step}', 1).encode(),
        "list": b"[]", "null": b"null", "number": b"3", "text": b'"x"', "empty": b"{}", "truth": b"true",
        "another version": whole.replace(version, f"{version}0").encode(),
        "half a version": whole.replace(version, f"{version}.5").encode(),
    }  # fmt: skip
    for bit in range(0, len(whole) * 8, len(whole) // 8 * 8 // 5 + 1):
        changed = bytearray(damaged.own)
        changed[bit // 8] ^= 1 << bit % 8
        texts[f"bit {bit}"] = bytes(changed)
    for name, text in texts.items():
        yield f"text {name}", lambda t=text: (damaged.path / checkpoint.MANIFEST).write_bytes(t)


def all_cases(damaged: Damaged) -> list:
    kinds = (in_data, in_headers, in_place_of_files, in_manifest, in_names, as_text)
    return [case for kind in kinds for case in kind(damaged)]


@pytest.mark.parametrize("part", range(PARTS))
def test_damage_is_refused(run, saved, part):
    """Every kind by hand. The few that change nothing but the spelling are what was saved."""
    damaged = Damaged(saved)
    cases = all_cases(damaged)
    assert len({name for name, _ in cases}) >= 500
    whole, silent, wrong, refused = leaves(saving.read(saved, run.loop)), [], [], 0
    for name, damage in cases[part::PARTS]:
        try:
            damage()
            loaded = outcome(run, saved)
            refused += loaded is None
            if loaded is not None and leaves(loaded) != whole:
                silent.append(name)
        except (Exception, MemoryError) as error:
            wrong.append((name, repr(error)[:200]))
        finally:
            damaged.restore()
    assert silent == []
    assert wrong == []
    assert refused > 0.95 * len(cases[part::PARTS])
    assert leaves(saving.read(saved, run.loop)) == whole


def test_a_right_checksum_opens_no_way(run, saved):
    """Counters that an attacker has signed: refused, or taken for what they are; nothing else is raised."""
    damaged, taken = Damaged(saved), 0
    whole = saving.read(saved, run.loop)
    for path in places(damaged.manifest):
        for wrong in WRONG:
            try:
                damaged.put_manifest(changed_at(damaged.manifest, path, wrong), True)
                loaded = outcome(run, saved)
                without = path == ("replay",) and wrong is None  # as a checkpoint of the best evaluation is
                assert loaded is None or without or forms(loaded) == forms(whole), (path, wrong)
                taken += loaded is not None
            finally:
                damaged.restore()
    assert taken < 60  # a clock that went otherwise, the number of an episode: who signs may say so


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_stands_in_a_file(run, saved, data):
    """Bytes changed, cut out and put in anywhere; unsigned they are refused, signed they are refused or fit."""
    damaged = Damaged(saved)
    whole = saving.read(saved, run.loop)
    part = data.draw(st.sampled_from([*damaged.files, "manifest"]))
    content = damaged.own if part == "manifest" else damaged.contents[part]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(len(content), begin + 16)))
    piece = data.draw(st.one_of(st.binary(max_size=16), st.text('{}[]:,"-0123456789eN', max_size=16).map(str.encode)))
    changed, signed = content[:begin] + piece + content[end:], data.draw(st.booleans())
    try:
        if part == "manifest":
            (saved / checkpoint.MANIFEST).write_bytes(changed)
        else:
            damaged.put(part, changed, signed)
        loaded = outcome(run, saved)
    finally:
        damaged.restore()
    if loaded is not None:
        assert forms(loaded) == forms(whole)
        assert leaves(loaded) == leaves(whole) or (signed and part != "manifest")


HUNGRY = """
    import hashlib, resource, sys
    from pathlib import Path
    import test_damage
    from maxent.run import checkpoint, files, rowfiles, saving

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    rowfiles.ROWS_PER_FILE = 4
    run = test_damage.trained(Path(sys.argv[1]))
    (saved,) = checkpoint.find(run.path / "checkpoints")
    damaged = test_damage.Damaged(saved)
    saving.read(saved, run.loop)
    before = peak()

    def text(content):
        (saved / checkpoint.MANIFEST).write_bytes(content[: files.MOST_JSON])

    def sparse(part, size):
        with open(damaged.files[part], "r+b") as file:
            file.write((size - 8).to_bytes(8, "little"))
            file.truncate(size)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest() if size < 10**8 else ""
        manifest = test_damage.changed_at(damaged.manifest, (part, "bytes"), size)
        damaged.put_manifest(test_damage.changed_at(manifest, (part, "sha256"), digest), True)

    def header(part, entry):
        own, data = damaged.split(part)
        name = "journal/actions" if part == "moment" else next(iter(own))
        damaged.put(part, test_damage.joined(own | {name: own[name] | entry}, data), True)

    half = files.MOST_JSON // 2
    cases = {
        "lists": lambda: text(b"[" + b"[]," * (files.MOST_JSON // 3 - 2) + b"[]]"),
        "tables": lambda: text(b"[" + b"{}," * (files.MOST_JSON // 3 - 2) + b"{}]"),
        "tables in one": lambda: text(b"{" + b",".join(b'"%x":{}' % i for i in range(half // 6)) + b"}"),
        "texts": lambda: text(b"[" + b'"ab",' * (files.MOST_JSON // 5 - 2) + b'""]'),
        "both": lambda: text(b"[" + b"[]" + b",0.5,0.5,[]" * (files.MOST_JSON // 12 - 3) + b"]"),
        "numbers": lambda: text(b"[" + b"0.5," * (files.MOST_JSON // 4 - 2) + b"0]"),
        "a state of 4 GB": lambda: sparse("state", 4 << 30),
        "a moment of 1 GB": lambda: sparse("moment", 1 << 30),
        "actions": lambda: header("moment", {"shape": [2**40, 1], "data_offsets": [0, 2**42]}),
        "a state": lambda: header("state", {"shape": [2**30, 2**30]}),
        "a header of 90 MB": lambda: sparse("state", 90_000_000),
        "a header's length": lambda: damaged.put("state", test_damage.joined(b"{}", b"", 2**40), True),
    }
    for name, damage in cases.items():
        damage()
        assert test_damage.outcome(run, saved) is None, name
        damaged.restore()
        print(name, peak() - before)
    assert saving.read(saved, run.loop)
    print(peak() - before)
"""


def test_damage_costs_no_memory(tmp_path):
    """At most 200 MB beyond what the process had before, whatever sizes are claimed."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(HUNGRY), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 200, done.stdout


# --- what else a run folder holds -----------------------------------------------------------------------------


def test_a_damaged_config_is_refused(run, tmp_path):
    config = (run.path / folder.CONFIG).read_text()
    texts = {
        b"", b"\xff\xfe", b"a = ", b"[train", b"train = 3", config.encode("utf-16"), b"x = " + b"[" * 100_000,
        b"[train]\nenv = 3", b"[other]\nx = 1", config.encode() + b"[train]",
        config.encode() + b"\n[sac]\nx = 1", *(config.encode()[:n] for n in range(1, 60, 7)),
    }  # fmt: skip
    wrong = ("-1", "nan", "inf", "-inf", "1e999", "true", '"x"', "[]", "{}", "[[1]]", "1979-05-27", "0.5", "1" * 400)
    lines = [line for line in config.splitlines() if " = " in line]
    texts |= {
        config.replace(line, f"{line.split(' = ')[0]} = {value}").encode()
        for line in lines for value in (*wrong, "1" * 5000)
    }  # fmt: skip
    read = 0
    for text in texts:
        (tmp_path / folder.CONFIG).write_bytes(text)
        try:
            folder.read(tmp_path)
            read += 1
        except ConfigError as error:
            assert "\n" not in str(error)
    assert len(texts) > 400 and read < len(texts) / 3


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"processes": 3}', b'{"processes": [3]}', b"\xff", b"[" * 100_000, b"NaN"]
)
def test_a_damaged_record_of_origin_is_refused(run, content):
    file = run.path / folder.RUN
    whole = file.read_bytes()
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        folder.record_command(run.path)
    assert file.read_bytes() == content
    file.write_bytes(whole)
    folder.record_command(run.path)
    assert len(json.loads(file.read_text())["processes"]) == 2
    file.write_bytes(whole)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b"step", b"stop", 1), lambda text: text.replace(b"\r\n2,", b"\r\nx,", 1),
        lambda text: text.replace(b"\r\n2,", b"\r\n\xff,", 1), lambda text: text.replace(b"\r\n4,", b"\r\n4,1,", 1),
        lambda text: text.replace(b",", b"", 30), lambda text: bytes(len(text)) + b"\n" + text,
        lambda text: b'"' + text, lambda text: text.replace(b"\r\n2,", b"\r\n0.5,", 1),
        lambda text: text + b"\r\n", lambda text: text[:-1] + b"x" * 200_000 + b"\r\n",
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused_before_training(run, damage):
    """A last line that was broken off is left out; anything else is for the user to look at."""
    file = run.path / folder.PROGRESS
    whole, columns = file.read_bytes(), list(read_csv(file)[0])
    file.write_bytes(damage(whole))
    try:
        cut_back(file, 10, columns)
    except CheckpointError as error:
        assert "\n" not in str(error) and str(file) in str(error)
        assert file.read_bytes() == damage(whole)
    else:
        assert file.read_bytes() == whole  # an empty line more
    finally:
        file.write_bytes(whole)
