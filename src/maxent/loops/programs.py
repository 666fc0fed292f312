"""The compiled pieces that every loop shares: `act`, `warm_up`, `add`, `observe`, `learn`.

The member axis is an ordinary leading axis, and it is always there. The algorithm's functions are vmapped over it; the
loop, the ring and its write position are not.
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maxent import observations
from maxent.replay import ring
from maxent.settings import numbers, without_numbers
from maxent.streams import stream
from maxent.types import Algorithm, Spec, Transition, Tree


class Learned(NamedTuple):
    """What `learn` changes."""

    state: Tree
    """The algorithm's state, every array [member, …]."""
    totals: Array
    """Every metric's sum over the updates since the last report, [member, metric]: one array costs the loop less."""
    updates: Array
    """How many those are."""


class Programs:
    """The compiled functions for one algorithm, config and environment description.

    `traces` counts how often each was traced: once for every shape it is called with, and never again.
    """

    def __init__(self, algorithm: Algorithm, config: Any, spec: Spec) -> None:
        self.algorithm, self.spec = algorithm, spec
        self.config = config
        self._static = without_numbers(config)
        self.metrics: tuple[str, ...] = (*algorithm.metrics(config), *observations.SUMMARY)
        """The names of the columns of `Learned.totals`."""
        self.traces: Counter[str] = Counter()
        self._initial_states = jax.jit(jax.vmap(self._initial_state))
        self.act = jax.jit(self._counted(self._act), static_argnames=("explore", "name"))
        self.warm_up = jax.jit(self._counted(self._warm_up), static_argnames="envs")
        self.add = jax.jit(self._counted(ring.add), donate_argnums=0)
        self.observe = jax.jit(self._counted(self._observe), donate_argnums=0)
        self.learn = jax.jit(self._counted(self._learn), donate_argnums=0, static_argnames="count")
        self.view = jax.jit(self._counted(jax.vmap(algorithm.view)))

    def init(self, roots: Array, swept: dict[str, Array]) -> Learned:
        """A fresh state for every member; `swept` overrides numbers of the config by name, arrays [member]."""
        members = roots.shape[0]
        values = {name: jnp.full(members, value) for name, value in numbers(self.config).items()} | swept
        state = self._initial_states(roots, values)
        return Learned(state, jnp.zeros((members, len(self.metrics))), jnp.zeros((), jnp.int32))

    def _initial_state(self, root: Array, values: dict[str, Array]) -> Tree:
        return self.algorithm.init(replace(self.config, **values), self.spec, stream(root, "init", 0))

    def observes(self, learned: Learned, row: Transition) -> bool:
        """Whether the algorithm, with this config, keeps anything of what it observes."""
        return bool(jax.make_jaxpr(self._observe)(learned, row).eqns)

    def _counted(self, function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.traces[function.__name__.lstrip("_")] += 1
            return function(*args, **kwargs)

        return counted

    def _act(
        self, view: Tree, carry: Tree, obs: Tree, roots: Array, step: Array, *, explore: bool, name: str = "act"
    ) -> tuple[Array, Tree, Tree]:
        """Actions [member, env, …] for observations of that shape, with the key of one step of a stream."""

        def act(view: Tree, carry: Tree, obs: Tree, root: Array) -> tuple[Array, Tree, Tree]:
            key = stream(root, name, step)
            return self.algorithm.act(self._static, self.spec, view, carry, obs, key, explore)

        return jax.vmap(act)(view, carry, obs, roots)

    def _warm_up(self, roots: Array, step: Array, *, envs: int) -> Array:
        """Uniform actions [member, env, …] of the act stream."""
        action = self.spec.action
        shape = (envs, *action.shape)

        def draw(root: Array) -> Array:
            key = stream(root, "act", step)
            if not action.categories:
                return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
            return jax.random.randint(key, shape, 0, jnp.array(action.categories).reshape(action.shape))

        return jax.vmap(draw)(roots)

    def _observe(self, learned: Learned, row: Transition) -> Learned:
        """Show the algorithm one row of new transitions [member, env, …]."""
        observe = partial(self.algorithm.observe, self._static, self.spec)
        return learned._replace(state=jax.vmap(observe)(learned.state, row))

    def _learn(
        self, learned: Learned, rows: ring.Ring, roots: Array, index: Array, *, count: int
    ) -> tuple[Learned, Tree]:
        """`count` updates from the one numbered `index` on, each from a batch of its own; and the new view."""
        config = self._static

        def one(learned: Learned, index: Array) -> tuple[Learned, None]:
            keys = jax.vmap(lambda root: stream(root, "replay", index))(roots)
            batch = ring.sample(rows, keys, config.batch_size, config.n_step, learned.state.numbers["gamma"])
            keys = jax.vmap(lambda root: stream(root, "update", index))(roots)
            update = partial(self.algorithm.update, config, self.spec)
            state, metrics = jax.vmap(update, (0, 0, 0, None))(learned.state, batch, keys, index)
            metrics |= jax.vmap(partial(observations.summary, self.spec))(batch.obs)
            totals = learned.totals + jnp.stack([metrics[name] for name in self.metrics], -1)
            return Learned(state, totals, learned.updates + 1), None

        learned, _ = jax.lax.scan(one, learned, index + jnp.arange(count, dtype=jnp.uint32))
        return learned, jax.vmap(self.algorithm.view)(learned.state)
