"""A Ctrl-C before anything is there to save.

It ends the process at once: as an exception it would get lost in a callback of the garbage collector, or unwind a
compilation whose threads go on.
"""

import os
import signal
from typing import Any

INTERRUPTED = 130
"""The exit code after a Ctrl-C, as shells count it."""


def begins() -> None:
    """From here on a Ctrl-C ends the process, unless somebody has other plans with it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def ends() -> None:
    """From here on a Ctrl-C is an exception: there is something to save, or to take away."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: Any) -> None:
    os.write(2, b"maxent: interrupted\n")
    os._exit(INTERRUPTED)
