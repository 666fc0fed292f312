"""The end of a worker that is in the process of its environments; `maxent.envs.workers` has the other one."""

import contextlib
import os
import pickle
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import gymnasium

from maxent.envs.plain import RemoteError, declared, perform, told
from maxent.errors import ConfigError, MaxentError

GRACE = 2.0
"""Seconds in which a worker whose socket was closed may end by itself."""


def serve(handle: int) -> None:
    """Answer the requests that come through the socket of that file descriptor, until it is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent ends in its own way, and closes the socket
    threading.Thread(target=_leave_when_closed, args=(handle,), daemon=True).start()
    envs: dict[int, gymnasium.Env] = {}
    with contextlib.suppress(EOFError, OSError), Connection(handle) as connection:
        while True:
            for request in connection.recv():
                connection.send_bytes(_answer(envs, *request))
    for env in envs.values():
        with contextlib.suppress(Exception):
            env.close()


def _answer(envs: dict[int, gymnasium.Env], number: int, name: str, argument: Any) -> bytes:
    """What is sent back: whether all went well, and the answer or what was raised."""
    try:
        return pickle.dumps((True, _fulfil(envs, number, name, argument)))
    except MaxentError as error:
        return pickle.dumps((False, error))
    except Exception as error:
        remote = RemoteError(told(error))
        remote.add_note(traceback.format_exc())
        return pickle.dumps((False, remote))


def _fulfil(envs: dict[int, gymnasium.Env], number: int, name: str, argument: Any) -> Any:
    if name == "make":
        env = envs[number] = _factory(argument)()
        return declared(env)
    if name == "close":
        return envs.pop(number).close() if number in envs else None
    return perform(envs[number], name, argument)


def _factory(pickled: bytes) -> Callable[[], gymnasium.Env]:
    try:
        return pickle.loads(pickled)
    except (AttributeError, ImportError) as error:
        raise ConfigError(
            f"the environment cannot be imported in a worker process ({error}): put it into a module of its own, or "
            "set env_workers to 0"
        ) from None


def _leave_when_closed(handle: int) -> None:
    """End this process when its parent is gone, even where an environment hangs."""
    watch = select.poll()
    watch.register(handle, 0)  # that the other end was closed is told unasked
    watch.poll()
    time.sleep(GRACE)
    os._exit(1)
