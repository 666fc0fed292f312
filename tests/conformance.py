"""What tests do with any algorithm: a state to begin with, one update, its computation, a run on a probe."""

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.wrappers import TimeLimit

from maxent.envs.host import HostEnvs
from maxent.envs.spaces import spec_of
from maxent.loops.host import HostLoop
from maxent.loops.loop import Report
from maxent.loops.programs import Programs
from maxent.settings import without_numbers
from maxent.types import Algorithm, Transition
from probes import LONG, Probe
from test_sac import KEY, SPEC, compiled, make_batch


def initial_state(algorithm: Algorithm, config: Any, networks: Sequence[str]) -> Any:
    """A fresh state, its networks drawn anew: targets differ from what they follow, and no offset is 0 or scale 1."""
    form = jax.eval_shape(partial(algorithm.init, config, SPEC), KEY)
    rng, real = np.random.default_rng(2), jnp.zeros(()).dtype

    def draw(tree: Any) -> Any:
        return jax.tree.map(lambda x: 0.5 * rng.standard_normal(x.shape).astype(real), tree)

    def rest() -> Any:
        return algorithm.init(config, SPEC, KEY)._replace(**dict.fromkeys(networks, ()))

    state = jax.device_get(compiled(rest)())
    state = jax.tree.map(lambda x: x.astype(real) if np.issubdtype(x.dtype, np.floating) else x, state)
    return state._replace(**{name: draw(getattr(form, name)) for name in networks})


def observe_and_update(algorithm: Algorithm, config: Any) -> Callable[..., Any]:
    """(state, batch, key, index) → state, metrics, as the loop calls them: with a config that has no numbers."""
    static = without_numbers(config)

    def function(state: Any, batch: Transition, key: jax.Array, index: jax.Array) -> tuple[Any, Any]:
        return algorithm.update(static, SPEC, algorithm.observe(static, SPEC, state, batch), batch, key, index)

    return function


def computation(algorithm: Algorithm, config: Any) -> str:
    """What is computed to observe, update and act, as JAX writes it down."""
    state = jax.eval_shape(partial(algorithm.init, config, SPEC), KEY)
    batch = make_batch(0)

    def everything(state: Any, batch: Transition, key: jax.Array, index: jax.Array) -> Any:
        new, metrics = algorithm.update(config, SPEC, algorithm.observe(config, SPEC, state, batch), batch, key, index)
        carry = algorithm.initial_carry(config, SPEC, batch.reward.shape)
        view = algorithm.view(state)
        return new, metrics, [algorithm.act(config, SPEC, view, carry, batch.obs, key, e) for e in (True, False)]

    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(everything)(state, batch, KEY, jnp.uint32(0))))


programs = cache(
    lambda algorithm, config: Programs(algorithm, config, spec_of(Probe.observation_space, Probe.action_space))
)
"""Compiled once for all probes with the same settings; numbers that differ live in the state."""


def train(
    algorithm: Algorithm, config: Any, probe: type[Probe], limit: int = LONG, steps: int = 1600,
    swept: dict[str, np.ndarray] | None = None,
) -> tuple[HostLoop, Report]:  # fmt: skip
    """Two members in two environments each: the loop after its last step, and the report of its last quarter."""
    envs = HostEnvs(lambda: TimeLimit(probe(), limit), range(2), 2)
    loop = HostLoop(programs(algorithm, config), envs, range(2), swept or {})
    *_, report = loop.run(steps, steps // 4)
    return loop, report
