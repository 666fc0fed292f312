"""Ctrl-C and SIGTERM: the first waits for the iteration under way, in which arrays are donated; a second does not."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from maxent.errors import Terminated
from maxent.loops.loop import Loop

USUAL: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupts:
    """Stops a loop between two iterations, and knows what it was that stopped it.

    Only the main thread hears of signals, and a handler that somebody else has set stays.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.reason: type[BaseException] = KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it a signal sets the loop's `stopping`; at its end what came too late to stop anything is raised."""
        self.loop.stopping = False
        ours = [number for number, handler in USUAL.items() if signal.getsignal(number) is handler]
        if threading.current_thread() is not threading.main_thread():
            ours = []

        def stop(number: int, _: Any) -> None:
            self.loop.stopping = True
            self.reason = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            restore()

        def restore() -> None:
            for number in ours:
                signal.signal(number, USUAL[number])

        for number in ours:
            signal.signal(number, stop)
        try:
            yield
        finally:
            restore()
        self.refuse()

    def refuse(self) -> None:
        """Raise what has stopped the loop, if anything has."""
        if self.loop.stopping:
            raise self.reason
