"""Environments in processes of their own: one that crashes or hangs costs an episode, and not the run.

A worker serves several environments. What they are asked is sent to all workers before the first answer is waited for,
so they work at the same time; a worker answers in the order in which it was asked. When a process ends, or is ended
because it has not answered in time, the oldest of its unanswered requests is to blame; the others are cancelled, and
their environments are `lost`: they begin anew in a new process.

A worker is a plain subprocess. A `multiprocessing.Process` would run the user's own script a second time, and a forked
one would deadlock with JAX's threads. Nothing here needs JAX, so workers are small and start quickly.
"""

import multiprocessing
import pickle
import signal
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count, islice
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium

from maxent.envs.plain import RemoteError, declared, perform, told
from maxent.envs.serving import GRACE
from maxent.errors import ConfigError


class Lost(Exception):
    """An environment is not where its episode is, and not to blame for it."""


def ask(env: "gymnasium.Env | RemoteEnv", name: str, argument: Any) -> Callable[[], Any]:
    """Ask an environment to `perform`; the function that gives its answer, or raises what it raised.

    An environment of this process does it when that function is called. One in a worker does it meanwhile; the function
    raises `Lost` where its process has ended and another one's request is to blame.
    """
    return env.ask(name, argument) if isinstance(env, RemoteEnv) else partial(perform, env, name, argument)


def lost() -> Any:
    """The answer of an environment that is lost."""
    raise Lost


def spaces_of(env: "gymnasium.Env | RemoteEnv") -> tuple[gymnasium.Space, gymnasium.Space]:
    """Those of the observations and the actions."""
    return env.spaces() if isinstance(env, RemoteEnv) else declared(env)


class Workers:
    """Makes environments that live in so many processes, each where there are fewest.

    Args:
        make: What makes an environment; it is sent to the processes, and imported there.
        count: Processes at most. Each is started when it is needed, and ends when its last environment is closed.
        timeout: Seconds that a process may take for one step or reset; 0 waits for ever.

    Raises:
        ConfigError: where `make` cannot be sent.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], count: int, timeout: float = 0.0) -> None:
        try:
            self._pickled = pickle.dumps(make)
        except Exception:
            name = getattr(make, "name", "") or getattr(make, "__qualname__", type(make).__qualname__)
            raise ConfigError(
                f"env_workers is {count} and the environment {name} cannot be sent to another process: "
                "pass its id, or a class or function of a module, or set env_workers to 0"
            ) from None
        self._workers: list[_Worker] = []
        self._workers += [_Worker(self._workers, timeout) for _ in range(count)]

    def __call__(self) -> "RemoteEnv":
        """A new environment."""
        return RemoteEnv(min(self._workers, key=lambda worker: len(worker.environments)), self._pickled)


class RemoteEnv:
    """An environment in a worker."""

    _numbers = count()

    def __init__(self, worker: "_Worker", pickled: bytes) -> None:
        self._worker, self._pickled, self._number = worker, pickled, next(self._numbers)
        worker.environments.add(self._number)
        self._make()

    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """As they were when it was made."""
        try:
            return self._worker.wait(self._made)
        except RemoteError as error:
            raise ConfigError(f"the environment cannot be made in a worker process: {error}") from error

    @property
    def lost(self) -> bool:
        """Whether its process has ended since it was made: only a reset makes it anew."""
        return self._life != self._worker.life

    def ask(self, name: str, argument: Any) -> Callable[[], Any]:
        """See `maxent.envs.workers.ask`."""
        if self.lost and name == "reset":
            self._make()
        if self.lost:
            return lost
        made, done = self._made, self._worker.ask(self._number, name, argument)

        def answer() -> Any:
            self._worker.wait(made)
            return self._worker.wait(done)

        return answer

    def close(self) -> None:
        """Close it, and its process, if it was the last one there."""
        try:
            self.ask("close", None)()
        except Lost:
            pass
        finally:
            self._worker.remove(self._number)

    def _make(self) -> None:
        self._life = self._worker.life
        self._made: Future = self._worker.ask(self._number, "make", self._pickled)


class _Request(NamedTuple):
    """What an environment is asked."""

    number: int
    name: str
    argument: Any
    answer: Future
    seconds: float | None
    """How long it may take; None for ever."""


class _Worker:
    """The end of a worker that is in this process."""

    def __init__(self, peers: list["_Worker"], timeout: float) -> None:
        self._peers, self._timeout = peers, timeout
        self.environments: set[int] = set()
        """Numbers of those that live there."""
        self.life = 0
        """Processes that have ended."""
        self._waiting: deque[_Request] = deque()
        """What has no answer yet."""
        self._sent = 0
        """How many of those, from the oldest on, were sent."""
        self._process: subprocess.Popen | None = None

    def remove(self, number: int) -> None:
        """Forget an environment."""
        self.environments.discard(number)
        if not self.environments and self._process is not None:
            _end(self._process, self._connection)
            self._stop()

    def ask(self, number: int, name: str, argument: Any) -> Future:
        """Ask an environment; it is sent when anybody waits."""
        seconds = None if name == "make" else self._timeout or None
        self._waiting.append(_Request(number, name, argument, Future(), seconds))
        return self._waiting[-1].answer

    def wait(self, future: Future) -> Any:
        """The answer, once it has come. An interrupt may leave anything half done: it ends all workers' processes."""
        try:
            while not future.done():
                for worker in self._peers:
                    worker._send()
                if not future.done():
                    self._receive()
        except BaseException:
            for worker in self._peers:
                worker._stop()
            raise
        if future.cancelled():
            raise Lost
        return future.result()

    def _send(self) -> None:
        """Everything at once: a worker that reads all before it answers cannot wait for who waits for it."""
        unsent = [(r.number, r.name, r.argument) for r in islice(self._waiting, self._sent, None)]
        if not unsent:
            return
        if self._process is None:
            self._start()
        try:
            self._connection.send(unsent)
        except OSError:
            return self._lose(self._obituary())
        self._sent = len(self._waiting)

    def _receive(self) -> None:
        timeout = self._waiting[0].seconds
        try:
            if not self._connection.poll(timeout):
                return self._lose(f"it has not answered for {timeout:g} s, and its process was ended")
            message = self._connection.recv_bytes()
        except (EOFError, OSError):
            return self._lose(self._obituary())
        future = self._waiting.popleft().answer
        self._sent -= 1
        try:
            good, answer = pickle.loads(message)
        except Exception as error:
            good, answer = False, RemoteError(f"its answer cannot be read: {told(error)}")
        if good:
            future.set_result(answer)
        else:
            future.set_exception(answer)

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from maxent.envs import serving; serving.serve({theirs.fileno()})"
        )
        self._connection = ours
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # a Ctrl-C is for the parent, which knows what to do
        )
        theirs.close()
        weakref.finalize(self, _end, self._process, ours)

    def _lose(self, why: str) -> None:
        """End the process, if it has not ended, and blame the oldest request."""
        self._waiting.popleft().answer.set_exception(RemoteError(why))
        self._stop()

    def _stop(self) -> None:
        """End the process, and cancel what has no answer."""
        if self._process is not None:
            self._process.kill()
            _end(self._process, self._connection)
        self._process = None
        self.life += 1
        for request in self._waiting:
            request.answer.cancel()
        self._waiting.clear()
        self._sent = 0

    def _obituary(self) -> str:
        """How a process ended that has closed its socket."""
        assert self._process is not None
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "its process has closed its socket"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"its process {how}"


def _end(process: subprocess.Popen, connection: Connection) -> None:
    """Let a process end by itself, else end it."""
    connection.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
