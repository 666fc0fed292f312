"""The compiled programs that the loops run, each made of the pure pieces and traced once for every shape it meets."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maxent import native, observations, registry, streams
from maxent.errors import ConfigError
from maxent.loops.pieces import Learned, Pieces
from maxent.replay import ring
from maxent.settings import numbers
from maxent.types import Algorithm, Spec, Transition, Tree

MEMBER, WHOLE, ROW = P("member"), P(), P(None, "member")
"""How an array lies on several devices: by its first axis, all of it on each, by its second."""
LEARNED = Learned(MEMBER, MEMBER, WHOLE)  # type: ignore[arg-type]
RING = ring.Ring(ROW, ROW, ROW, ROW, ROW, ROW, WHOLE)  # type: ignore[arg-type]

ONCE = {"xla_backend_optimization_level": 1}
"""For a program that runs once: XLA's further passes unroll JAX's generator wherever it is called, which takes longer
than to compile all that learns (docs/update-speed.md)."""


class Programs:
    """The compiled functions for one algorithm, config and environment description.

    `traces` counts how often each was traced: once for every shape it is called with, and never again. `pure` has the
    functions that they are compiled from, for programs that are made of several.

    Over a mesh of devices, each device has its share of the members. Nothing that a member does needs another one, so
    every device runs the same program on its own members alone.

    Raises:
        ConfigError: where the algorithm cannot act in the action space, or there is nothing to act on.
    """

    def __init__(self, algorithm: Algorithm, config: Any, spec: Spec, mesh: Mesh | None = None) -> None:
        refuse_unfit(algorithm, spec)
        self.algorithm, self.config, self.spec, self.mesh = algorithm, config, spec, mesh
        self.pure = pure = Pieces(algorithm, config, spec)
        self.metrics = pure.metrics
        self._alone: Programs | None = None
        self.traces: Counter[str] = Counter()
        self._init = jax.jit(pure.init, compiler_options=ONCE)
        learning = (LEARNED, RING, MEMBER, WHOLE)
        self.act = self.compiled(pure.act, (MEMBER,) * 5 + (WHOLE,), MEMBER, static=("explore", "name"))
        self.warm_up = self.compiled(pure.warm_up, (MEMBER, WHOLE), MEMBER, static=("envs",))
        self.add = self.compiled(ring.add, (RING, MEMBER), RING, donate=(0,))
        self.extend = self.compiled(ring.extend, (RING, ROW, WHOLE), RING, donate=(0,))
        self.observe = self.compiled(pure.observe, (LEARNED, MEMBER), LEARNED, donate=(0,))
        self.learn = self.compiled(pure.learn, learning, LEARNED, donate=(0,), static=("count",))
        in_turns = mesh is None and native.takes()
        self.turns = self.compiled(pure.turns, (), (), donate=(3, 4), static=("observes",)) if in_turns else None
        self.learn_rollout = self.compiled(pure.learn_rollout, learning, LEARNED, donate=(0,))

    def of_one_device(self) -> "Programs":
        """The same for arrays that lie on one device, such as those of one member."""
        if self.mesh is None:
            return self
        if self._alone is None:
            self._alone = Programs(self.algorithm, self.config, self.spec)
        return self._alone

    def compiled(
        self, function: Any, takes: tuple, gives: Any, donate: tuple[int, ...] = (), static: tuple[str, ...] = ()
    ) -> Any:
        """A function compiled for each shape it meets, and counted; `takes` and `gives` say how its arrays lie."""
        name = getattr(function, "__name__", "").lstrip("_")

        def counted(*args: Any, **fixed: Any) -> Any:
            self.traces[name] += 1
            own = partial(function, **fixed)
            if self.mesh is not None:
                own = jax.shard_map(own, mesh=self.mesh, in_specs=takes, out_specs=gives, check_vma=False)
            return own(*args)

        return jax.jit(counted, donate_argnums=donate, static_argnames=static)

    def roots(self, seeds: Sequence[int], attempt: int = 0) -> Array:
        """The members' root keys, [member], where they belong; others for every further attempt at the same run."""
        return self.placed(streams.roots(seeds, attempt), MEMBER)

    def placed(self, tree: Tree, specs: Any) -> Tree:
        """Arrays of NumPy or JAX, on the devices where they belong."""
        if self.mesh is None:
            return jax.tree.map(lambda x: x if isinstance(x, Array) else jnp.array(x), tree)
        return jax.device_put(tree, self._shardings(specs))

    def made(self, make: Callable[[], Tree], specs: Any) -> Tree:
        """New arrays, each made on the devices where it belongs: none has to hold the shares of all."""
        return make() if self.mesh is None else jax.jit(make, out_shardings=self._shardings(specs))()

    def _shardings(self, specs: Any) -> Any:
        assert self.mesh is not None
        return jax.tree.map(partial(NamedSharding, self.mesh), specs, is_leaf=lambda x: isinstance(x, P))

    def init(self, roots: Array, swept: dict[str, Array]) -> Learned:
        """A fresh state for every member; `swept` overrides numbers of the config by name, arrays [member]."""
        return self.placed(self._init(roots, self._values(roots, swept)), LEARNED)

    def init_shapes(self, roots: Array, swept: dict[str, Array]) -> Learned:
        """The shapes of what `init` gives."""
        return self._init.eval_shape(roots, self._values(roots, swept))

    def _values(self, roots: Array, swept: dict[str, Array]) -> dict[str, Array]:
        return {name: jnp.full(len(roots), value) for name, value in numbers(self.config).items()} | swept

    def observes(self, learned: Learned, row: Transition) -> bool:
        """Whether the algorithm, with this config, keeps anything of what it observes."""
        return bool(jax.make_jaxpr(self.pure.observe)(learned, row).eqns)

    def initial_carry(self, shape: tuple[int, int]) -> Tree:
        """The actor's memory at the beginning of an episode, for environments [member, env]."""
        return self.pure.initial_carry(shape)

    def extras(self, view: Tree, obs: Tree, roots: Array) -> Tree:
        """The shapes of what `act` wants stored with each step, [member, env, …]."""
        members, envs = jax.tree.leaves(obs)[0].shape[:2]
        act, starts = partial(self.pure.act, explore=True), np.ones((members, envs), bool)
        carry = self.initial_carry((members, envs))
        return jax.eval_shape(act, view, carry, obs, starts, roots, np.uint32(0))[2]


@jax.jit
@jax.vmap
def all_finite(state: Tree) -> Array:
    """Whether every number of a member's state is, [member], but for -∞, the logarithm of a temperature of 0."""
    return jnp.stack([(jnp.isfinite(x) | jnp.isneginf(x)).all() for x in jax.tree.leaves(state)]).all()


def refuse_unfit(algorithm: Algorithm, spec: Spec) -> None:
    """A ConfigError where the algorithm cannot act in the action space, naming those that can."""
    kind = "continuous" if spec.continuous else "discrete"
    if kind not in algorithm.actions:
        able = [name for name in registry.ALGORITHMS if kind in registry.algorithm(name).actions]
        others = f"use {' or '.join(able)}" if able else "no algorithm here takes them yet"
        raise ConfigError(f"{algorithm.name} does not take {kind} actions: {others}")
    if not observations.count_features(spec.obs):
        raise ConfigError("the observation space is empty: there is nothing to act on")
    if 0 in spec.action.shape:
        raise ConfigError("the action space is empty: there is nothing to learn")
