"""The loop's turns on the host: where Python meets a program that goes on running.

To begin a program costs XLA a third of what an update of small networks takes, and Python as much again. So the program
is not begun anew for every step: `Pieces.turns` acts, gives the actions away, makes the updates that are due while the
host steps its environments, takes the row that came of it, stores it, and acts again. native.c has the table on which
actions and rows are laid, and XLA calls it on a CPU.
"""

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from maxent import native
from maxent.envs.contract import Stepped
from maxent.loops.pieces import Arrived, Turned

PATIENCE = 0.01
"""Seconds that a program waits for a row before it ends without it. Environments that compute with JAX may be waiting
for the very thread that waits for them."""
MOST_ALONE = 127
"""After a wait in vain, turns that are not waited in; the first time one, then twice as many and one more."""


class Turns:
    """The turns of one loop, whose steps are like the one that is given."""

    def __init__(self, program: Callable[..., Turned], stepped: Stepped) -> None:
        self._program = program
        self._action = np.zeros_like(stepped.row.action)
        self._row = [np.zeros(x.shape, x.dtype) for x in jax.tree.leaves(Arrived.like(stepped.obs, stepped.starts))]
        self._pointers = (ctypes.c_void_p * len(self._row))(*[x.ctypes.data for x in self._row])
        self._library = native.library()
        self._library.maxent_table.restype = ctypes.c_void_p
        table = self._library.maxent_table(ctypes.c_void_p(self._action.ctypes.data), self._pointers)
        self._table = ctypes.c_void_p(table)
        self._address = np.array([table], np.uint64).view(np.uint32)
        self._patient, self._late = True, 0
        self._alone = self._rest = 0
        """Turns yet to come that are not waited in, and how many they were after the last wait in vain."""
        removal = weakref.finalize(self, self._library.maxent_remove_table, self._table)
        removal.atexit = False  # a thread may be learning still

    def begin(self, stepped: Stepped, *args: Any, **fixed: Any) -> Turned:
        """Begin with the turn that acts on this step; the rest are the program's, `Pieces.turns`."""
        self._patient = not self._alone
        self._alone = max(self._alone - 1, 0)
        self._library.maxent_lay(self._table, ctypes.c_int64(int(PATIENCE * 1e9) if self._patient else 0))
        self._turned: Turned = self._program(self._address, stepped.obs, stepped.starts, *args, **fixed)
        if self._patient:
            self._late = self._late + 1 if self._ended else 0
        return self._turned

    @property
    def vain(self) -> bool:
        """Whether programs wait before the host hears of them: JAX was started to compute on Python's own thread."""
        return self._late >= 3

    def action(self) -> np.ndarray:
        """What the program gives next, [member, env, …]."""
        while True:
            ended = self._ended
            if self._library.maxent_fetch(self._table, ctypes.c_int64(100_000_000)):
                return self._action.copy()
            if ended:
                jax.block_until_ready(self._turned)  # says why
                raise RuntimeError("a program ended before it gave an action")

    def take(self, stepped: Stepped, due: int) -> bool:
        """Have the program take what its actions led to, and then make so many updates; whether it does.

        Where it does not, it has lost its patience and ended.
        """
        for own, leaf in zip(self._row, jax.tree.leaves(Arrived.of(stepped)), strict=True):
            own[...] = leaf
        taken = bool(self._library.maxent_post(self._table, ctypes.c_int32(due)))
        if self._patient:
            self._rest = self._alone = 0 if taken else min(2 * self._rest + 1, MOST_ALONE)
        return taken

    def end(self) -> BaseException | None:
        """Wait for the program to end, which it does when it has done what it was told so far.

        Returns what was raised meanwhile: nothing may begin before it has ended, whoever presses Ctrl-C.
        """
        raised = None
        self._library.maxent_stop(self._table)
        while not self._ended:
            try:
                jax.block_until_ready(self._turned.learned.updates)
            except BaseException as error:
                raised = error
        return raised

    @property
    def _ended(self) -> bool:
        return self._turned.learned.updates.is_ready()  # type: ignore[attr-defined]
