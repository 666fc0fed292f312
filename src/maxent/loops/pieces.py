"""The pieces of which every loop is made, as pure functions: `init`, `act`, `warm_up`, `observe`, `learn`,
`learn_rollout`; and `turns`, in which the loop on the host has most of them at once.

The member axis is an ordinary leading axis, and it is always there. The algorithm's functions are vmapped over it; the
loop, the ring and its write position are not.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import observations
from maxent.envs.contract import Stepped
from maxent.replay import ring
from maxent.settings import without_numbers
from maxent.streams import stream
from maxent.types import Algorithm, Batch, Spec, Transition, Tree


class Learned(NamedTuple):
    """What `learn` changes."""

    state: Tree
    """The algorithm's state, every array [member, …]."""
    totals: Array
    """Every metric's sum over the updates since the last report, [member, metric]: one array costs the loop less."""
    updates: Array
    """How many those are."""


class Arrived(NamedTuple):
    """What a step of the host's environments adds to what is known where the actions were drawn, [member, env, …]."""

    reward: Batch
    discount: Batch
    next_obs: Tree
    boundary: Batch
    real: Batch
    obs: Tree
    """What to act on next."""
    starts: Batch
    """Where that is the first observation of an episode."""

    @classmethod
    def of(cls, stepped: Stepped) -> "Arrived":
        """Of a step."""
        row = stepped.row
        return cls(row.reward, row.discount, row.next_obs, row.boundary, row.real, stepped.obs, stepped.starts)

    @classmethod
    def like(cls, obs: Tree, starts: Batch) -> "Arrived":
        """The shapes of one, where the step before gave these."""
        number, flag = jax.ShapeDtypeStruct(starts.shape, jnp.float32), jax.ShapeDtypeStruct(starts.shape, bool)
        shapes = _like(obs)
        return cls(number, number, shapes, flag, flag, shapes, flag)


class Counters(NamedTuple):
    """How far a loop has come, as uint32."""

    step: Batch
    """Environment steps of each member whose rows are stored."""
    updates: Batch
    ahead: Batch
    """Updates already made for the step to come."""


class Turned(NamedTuple):
    """What turns leave behind; the arrays are there when the last one has ended."""

    learned: Learned
    rows: ring.Ring
    carry: Tree
    """The actor's memory before the first action whose row was not taken."""
    acted: tuple[Tree, Tree]
    """The actor's memory after the last action, and what is to be stored of it."""
    counters: Counters


LAST = -1
"""In place of the updates that are due in the next turn: there is none."""


class Pieces:
    """Those of one algorithm, config and environment description."""

    def __init__(self, algorithm: Algorithm, config: Any, spec: Spec) -> None:
        self.algorithm, self.config, self.spec = algorithm, config, spec
        self.static = without_numbers(config)
        """The config that all functions but `init` are given."""
        self.metrics: tuple[str, ...] = (*algorithm.metrics(config), *observations.SUMMARY)
        """The names of the columns of `Learned.totals`."""

    def init(self, roots: Array, values: dict[str, Array]) -> Learned:
        """A fresh state for every member, with its values of the config's numbers, arrays [member]."""

        def one(root: Array, values: dict[str, Array]) -> Tree:
            return self.algorithm.init(replace(self.config, **values), self.spec, stream(root, "init", 0))

        state = jax.vmap(one)(roots, values)
        return Learned(state, jnp.zeros((len(roots), len(self.metrics))), jnp.zeros((), jnp.int32))

    def initial_carry(self, shape: tuple[int, int]) -> Tree:
        """The actor's memory at the beginning of an episode, for environments [member, env]."""
        return self.algorithm.initial_carry(self.static, self.spec, shape)

    def act(
        self,
        view: Tree,
        carry: Tree,
        obs: Tree,
        starts: Array,
        roots: Array,
        step: Array,
        *,
        explore: bool,
        name: str = "act",
    ) -> tuple[Array, Tree, Tree]:
        """Actions [member, env, …] for observations of that shape, with the key of one step of a stream.

        The memory begins anew where an observation `starts` an episode, [member, env].
        """

        def begin(initial: Array, kept: Array) -> Array:
            return jnp.where(starts.reshape(starts.shape + (1,) * (kept.ndim - starts.ndim)), initial, kept)

        def act(view: Tree, carry: Tree, obs: Tree, root: Array) -> tuple[Array, Tree, Tree]:
            key = stream(root, name, step)
            action, after, extras = self.algorithm.act(self.static, self.spec, view, carry, obs, key, explore)
            after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)
            return action.astype(self.spec.action.dtype), after, extras  # in 64-bit mode draws are wider

        members, envs = starts.shape
        carry = jax.tree.map(begin, self.initial_carry((members, envs)), carry)
        return jax.vmap(act)(view, carry, obs, roots)

    def warm_up(self, roots: Array, step: Array, *, envs: int) -> Array:
        """Uniform actions [member, env, …] of the act stream."""
        action = self.spec.action
        shape = (envs, *action.shape)

        def draw(root: Array) -> Array:
            key = stream(root, "act", step)
            if not action.categories:
                return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
            return jax.random.randint(key, shape, 0, jnp.array(action.categories).reshape(action.shape))

        return jax.vmap(draw)(roots)

    def observe(self, learned: Learned, row: Transition) -> Learned:
        """Show the algorithm one row of new transitions [member, env, …]."""
        observe = partial(self.algorithm.observe, self.static, self.spec)
        return learned._replace(state=jax.vmap(observe)(learned.state, row))

    def learn(self, learned: Learned, rows: ring.Ring, roots: Array, index: Array, *, count: int) -> Learned:
        """`count` updates from the one numbered `index` on, each from a batch of its own."""
        config = self.static

        def one(learned: Learned, index: Array) -> tuple[Learned, None]:
            keys = jax.vmap(lambda root: stream(root, "replay", index))(roots)
            batch = ring.sample(rows, keys, config.batch_size, config.n_step, learned.state.numbers["gamma"])
            return self._updated(learned, batch, roots, index), None

        return jax.lax.scan(one, learned, index + jnp.arange(count, dtype=jnp.uint32))[0]

    def turns(
        self,
        table: Array,
        obs: Tree,
        starts: Array,
        learned: Learned,
        rows: ring.Ring,
        carry: Tree,
        roots: Array,
        counters: Counters,
        due: Array,
        *,
        observes: bool,
    ) -> Turned:
        """Iterations while the host steps its environments, until it says that one was the last, or has no row.

        native.c lays actions and rows on the `table`, and `due` says how many updates the first turn makes.
        """
        shapes, structure = jax.tree.flatten(Arrived.like(obs, starts))

        def act(learned: Learned, carry: Tree, obs: Tree, starts: Array, step: Array) -> tuple[Array, Tree, Tree]:
            return self.act(self.algorithm.view(learned.state), carry, obs, starts, roots, step, explore=True)

        def learn(learned: Learned, rows: ring.Ring, index: Array, due: Array) -> tuple[Learned, Array]:
            def one(i: Array, learned: Learned) -> Learned:
                return self.learn(learned, rows, roots, index + i, count=1)

            number = due.astype(jnp.uint32)
            return jax.lax.fori_loop(jnp.uint32(0), number, one, learned), index + number

        def turn(state: tuple) -> tuple:
            (learned, rows, carry, _, (step, index, ahead)), obs, starts, due = state
            action, after, extras = act(learned, carry, obs, starts, step)
            # Each call hands a number through. What is read of the replay hangs on that of the giving, and what is
            # written on that of the taking: else XLA might learn before it gives, and would copy the replay.
            (index,) = _exchange("maxent_give", [_like(index)], table, index, action)
            learned, index = learn(learned, rows, index, due)
            ahead += due.astype(jnp.uint32)
            results, arguments = [_like(rows.written), _like(due), *shapes], [rows.written, *jax.tree.leaves(learned)]
            written, due, *leaves = _exchange("maxent_take", results, table, *arguments)
            new = jax.tree.unflatten(structure, leaves)
            row = Transition(obs, action, new.reward, new.discount, new.next_obs, new.boundary, new.real, extras)
            taken = due >= LAST
            rows = jax.lax.cond(taken, lambda: ring.add(rows._replace(written=written), row), lambda: rows)
            learned = _where(taken, self.observe(learned, row), learned) if observes else learned
            counted = Counters(step + jnp.uint32(starts.shape[1]), index, jnp.zeros_like(ahead))
            counters = _where(taken, counted, Counters(step, index, ahead))
            turned = Turned(learned, rows, _where(taken, after, carry), (after, extras), counters)
            return turned, new.obs, new.starts, due

        acted = jax.eval_shape(act, learned, carry, obs, starts, counters.step)[1:]
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), acted)
        state = Turned(learned, rows, carry, nothing, counters), obs, starts, due
        return jax.lax.while_loop(lambda state: state[-1] >= 0, turn, state)[0]

    def learn_rollout(self, learned: Learned, rows: ring.Ring, roots: Array, index: Array) -> Learned:
        """One update from all steps of the full ring, which the algorithm then observes as well.

        It learns first: the rollout was acted with the statistics of before.
        """
        rollout = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), ring.rollout(rows))
        learned = self._updated(learned, rollout, roots, index)
        return self.observe(learned, jax.tree.map(lambda x: jax.lax.collapse(x, 1, 3), rollout))

    def _updated(self, learned: Learned, batch: Transition, roots: Array, index: Array) -> Learned:
        keys = jax.vmap(lambda root: stream(root, "update", index))(roots)
        update = partial(self.algorithm.update, self.static, self.spec)
        state, metrics = jax.vmap(update, (0, 0, 0, None))(learned.state, batch, keys, index)
        metrics |= jax.vmap(partial(observations.summary, self.spec))(batch.obs)
        totals = learned.totals + jnp.stack([metrics[name] for name in self.metrics], -1)
        return Learned(state, totals, learned.updates + 1)


def _where(condition: Array, new: Tree, old: Tree) -> Tree:
    return jax.tree.map(partial(jnp.where, condition), new, old)


def _like(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _exchange(name: str, results: Sequence[jax.ShapeDtypeStruct], *arguments: Array) -> Sequence[Array]:
    return jax.ffi.ffi_call(name, results, has_side_effect=True)(*arguments)
