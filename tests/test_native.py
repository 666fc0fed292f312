"""The library of native.c is compiled once and found again, by whoever asks first, or done without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maxent import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no C compiler here")


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "'"])
def test_a_compiler_that_fails_is_none(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    assert not native.available()


TOGETHER = """
import threading
from maxent import native
found = []
threads = [threading.Thread(target=lambda: found.append(native.available())) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import os, jax.numpy as jnp
os.environ["CC"] = "cc -DOTHER"
assert found == [True] * 4 and native.available() and jnp.ones(3).sum() == 3
"""


def test_threads_and_compilers_may_ask_at_once() -> None:
    """XLA takes one library: a second one would end its CPU."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", TOGETHER], check=True, env=environment)


def test_what_was_compiled_is_kept(tmp_path: Path) -> None:
    """For this processor, this source and this JAX; a second process compiles nothing, but for a damaged file."""
    code = "from maxent import native; assert native.available()"
    environment, kept = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}, []
    for damaged in (False, False, True):
        if damaged:
            kept[0][0].write_bytes(b"")
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        (file,) = tmp_path.iterdir()
        kept.append((file, file.stat().st_mtime_ns, file.stat().st_size))
    assert kept[0] == kept[1] and kept[2][1] > kept[1][1] and kept[2][2] == kept[1][2]


@pytest.mark.parametrize("folder", ["/dev/null/no", "gs://bucket/cache"])
def test_where_nothing_can_be_kept_it_is_compiled_each_time(folder: str, tmp_path: Path) -> None:
    code = "from maxent import native; assert native.available()"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
