"""What every algorithm keeps, whichever it is: one suite over the registry, in which none is named.

Most of it is a rehearsal: the loop runs as ever, but its programs are only written down, so that many settings cost
little. What has to be computed is computed once for each algorithm and kind of action, on an environment that pays for
taking time limits and ends for what they are.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.extend.random import define_prng_impl
from jax.interpreters.partial_eval import dce_jaxpr
from numpy.testing import assert_allclose, assert_array_equal

import probes
from maxent import registry, streams
from maxent.config import TrainConfig
from maxent.envs.host import HostEnvs
from maxent.envs.spaces import empty_batch, spec_of, write_observation
from maxent.errors import ConfigError
from maxent.loops.host import HostLoop
from maxent.loops.programs import Programs, refuse_unfit
from maxent.replay import ring
from maxent.run import driver
from maxent.settings import numbers
from maxent.types import Algorithm, Spec, Transition
from test_streams import Recorder

CASES = [(name, kind) for name in registry.ALGORITHMS for kind in registry.algorithm(name).actions]
every_case = pytest.mark.parametrize(("name", "kind"), CASES, ids=map("-".join, CASES))
every_algorithm = pytest.mark.parametrize("name", registry.ALGORITHMS)
SEEDS, ENVS = (5, 6), 2


# Random keys ---------------------------------------------------------------------------------------------------------


def _mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def _keys(key: Array, numbers: Array) -> Array:
    numbers = _mix(jnp.asarray(numbers).astype(jnp.uint32) + jnp.uint32(0x9E3779B9))
    return jnp.stack([_mix(key[0] + numbers), _mix(key[1] ^ numbers)], -1)


def _bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    drawn = _mix(key[0] + _mix(key[1] ^ jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32)))
    return drawn.reshape(shape).astype(f"uint{width}")


HASH = define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: _keys(jnp.zeros(2, jnp.uint32), seed),
    split=lambda key, shape: _keys(key, jnp.arange(np.prod(shape, dtype=int))).reshape(*shape, 2),
    random_bits=_bits,
    fold_in=_keys,
    name="hash",
    tag="hash",
)
"""Random keys that compile fast and, unlike JAX's own fast ones, draw the same under vmap as alone."""


def roots(seeds: Sequence[int], attempt: int = 0) -> Array:
    """The members' keys; no run here goes back to a checkpoint."""
    assert attempt == 0
    keys = [jax.random.key(seed, impl=HASH) for seed in seeds]
    return jnp.stack([jnp.stack([jax.random.fold_in(key, i) for i in range(len(streams.STREAMS))]) for key in keys])


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Those keys, and programs that compile fast because each runs a few hundred times only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "roots", roots)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


# Rehearsals ----------------------------------------------------------------------------------------------------------

SMALL = dict(
    hidden_sizes=(8,), batch_size=6, buffer_size=40, learning_starts=4, rollout_length=4, epochs=2, critics=2,
    target_noise_clip=0.5, learning_rate_steps=(1,), learning_rate_factor=0.5,
)  # fmt: skip
"""With two critics, room for noise and a step of the rates, without which some settings have nothing to say."""


def settings_of(name: str, **options: Any) -> Any:
    """The algorithm's config with those of the options that it knows."""
    config = registry.entry(name).config
    return config(**{key: value for key, value in options.items() if key in config.__dataclass_fields__})


class Witness:
    """An algorithm's functions, which check what goes in and comes out of them wherever they are traced."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def init(self, config: Any, spec: Spec, key: Array) -> Any:
        state = self.algorithm.init(config, spec, key)
        assert all(isinstance(x, Array) for x in jax.tree.leaves(state)), "the state holds more than arrays"
        assert {"gamma"} <= state.numbers.keys() and hasattr(state, "moments")
        assert all(form(x) == form(np.float32(0)) for x in state.numbers.values())
        assert not any(x.weak_type for x in jax.tree.leaves(state)), "an update would give the state another type"
        return state

    def view(self, state: Any) -> Any:
        view = self.algorithm.view(state)
        selected = {id(x) for x in jax.tree.leaves(state)}
        assert all(id(x) in selected for x in jax.tree.leaves(view)), "the view computes something"
        return view

    def act(self, config: Any, spec: Spec, view: Any, carry: Any, obs: Any, key: Array, explore: bool) -> Any:
        assert view is not None
        action, after, extras = self.algorithm.act(config, spec, view, carry, obs, key, explore)
        batch = jax.tree.leaves(obs)[0].shape[0]
        assert action.shape == (batch, *spec.action.shape) and action.dtype == spec.action.dtype
        assert same_form(carry, after)
        assert all(x.shape[0] == batch for x in jax.tree.leaves(extras))
        return action, after, extras

    def observe(self, config: Any, spec: Spec, state: Any, block: Any) -> Any:
        after = self.algorithm.observe(config, spec, state, block)
        assert same_form(state, after)
        return after

    def update(self, config: Any, spec: Spec, state: Any, batch: Any, key: Array, index: Array) -> Any:
        after, metrics = self.algorithm.update(config, spec, state, batch, key, index)
        assert same_form(state, after)
        assert sorted(metrics) == sorted(self.algorithm.metrics(config)), "metrics are not what was declared"
        assert all(form(x) == form(np.float32(0)) for x in metrics.values())
        return after, metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self.algorithm, name)


def form(x: Any) -> tuple[Any, ...]:
    return x.shape, x.dtype, getattr(x, "weak_type", False)


def same_form(one: Any, other: Any) -> bool:
    """The same tree, shapes and dtypes: what a scan asks of its carry."""
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        form(a) == form(b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other))
    )


class Rehearsal(Programs):
    """Programs that are written down where they would run, and answer with zeros."""

    def __init__(self, name: str, config: Any, spec: Spec) -> None:
        super().__init__(Witness(registry.algorithm(name)), config, spec)  # type: ignore[arg-type]
        self.turns = None
        self.transcript: list[str] = []
        self._written: dict[Any, tuple[str, Any]] = {}
        shapes = self._init.eval_shape
        functions = dict(
            _init=self.pure.init, act=self.pure.act, warm_up=self.pure.warm_up, add=ring.add,
            observe=self.pure.observe, learn=self.pure.learn, learn_rollout=self.pure.learn_rollout,
        )  # fmt: skip
        for called, function in functions.items():
            setattr(self, called, partial(self._write, called, function))
        self._init.eval_shape = shapes

    def _write(self, called: str, function: Any, *args: Any, **options: Any) -> Any:
        key = called, tuple(options.items()), *((x.shape, x.dtype) for x in jax.tree.leaves(args))
        if key not in self._written:
            text, out = jax.make_jaxpr(partial(function, **options), return_shape=True)(*args)
            zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), out)
            self._written[key] = f"{called} {options}: {re.sub('0x[0-9a-f]+', '', str(text))}", zeros, text
        text, zeros, program = self._written[key]
        self.transcript.append(text)
        self.perform(program, args)
        return zeros

    def perform(self, program: Any, args: Any) -> None:
        """Nothing is computed."""


class KeyRehearsal(Rehearsal):
    """Of each program only that part is computed that notes the use of keys (`test_streams.Recorder`)."""

    def perform(self, program: Any, args: Any) -> None:
        part, used = dce_jaxpr(program.jaxpr, [False] * len(program.jaxpr.outvars))
        given = [x for x, is_used in zip(jax.tree.leaves(args), used, strict=True) if is_used]
        jaxpr_as_fun(ClosedJaxpr(part, program.consts))(*given)


class Space(probes.Probe):
    """Shows and takes anything."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, **_: Any) -> Any:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, False, False, {}


VECTOR, IMAGE = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (2, 2, 3), np.uint8)
ACTIONS = {"continuous": spaces.Box(-1, 1, (2,)), "discrete": spaces.MultiDiscrete([2, 3])}


def rehearse(
    name: str, kind: str, config: Any, observation: spaces.Space = VECTOR, static: Any = None,
    rehearsal: type[Rehearsal] = Rehearsal,
) -> Rehearsal:  # fmt: skip
    """Sixteen steps of learning, written down; `static` is the config given to all functions but `init`."""
    envs = HostEnvs(lambda: Space(observation, ACTIONS[kind]), SEEDS, ENVS)
    programs = rehearsal(name, config, envs.spec)
    programs.pure.static = programs.pure.static if static is None else static
    loop = HostLoop(programs, envs, SEEDS, {})
    for _ in loop.run(16, 16):
        pass
    assert loop.updates
    return programs


rehearsed = cache(lambda name, kind: rehearse(name, kind, settings_of(name, **SMALL)).transcript)


@every_algorithm
@pytest.mark.parametrize(
    "observation",
    [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Dict(image=IMAGE, nothing=spaces.Box(-1, 1, (0,)))],
    ids=["choice", "choices", "image and nothing"],
)
def test_all_kinds_of_observations_are_taken(name: str, observation: spaces.Space) -> None:
    """By functions that keep their contract (`Witness`)."""
    assert rehearse(name, registry.algorithm(name).actions[0], settings_of(name, **SMALL), observation).transcript


def another(config: Any, field: str) -> Any:
    """A value of the field that differs from the config's and is allowed."""
    value, hint = getattr(config, field), get_type_hints(type(config))[field]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 7)
    if get_origin(hint) is not None and set(map(type, get_args(hint))) == {str}:
        return next(x for x in get_args(hint) if x != value)
    if isinstance(value, str):
        return 3
    return value + 1 if isinstance(value, int) else 0.5 * value + 0.1


STRUCTURAL = [
    (name, f.name)
    for name, entry in registry.ALGORITHMS.items() for f in fields(entry.config) if not f.metadata.get("swept")
]  # fmt: skip


@pytest.mark.parametrize(("name", "field"), STRUCTURAL, ids=map(".".join, STRUCTURAL))
def test_every_setting_is_heard(name: str, field: str) -> None:
    """It changes what is computed or when, for some kind of action; and functions keep their contract all the same."""
    config = settings_of(name, **SMALL)
    config = replace(config, **{field: another(config, field)})
    assert list(config.conflicts()) == []
    kinds = registry.algorithm(name).actions
    assert any(rehearse(name, kind, config).transcript != rehearsed(name, kind) for kind in kinds)


@every_case
def test_the_configs_copy_of_a_swept_number_is_not_read(name: str, kind: str) -> None:
    """Without the NaNs that stand in its place the same is computed."""
    config = settings_of(name, **SMALL)
    assert numbers(config) and rehearse(name, kind, config, static=config).transcript == rehearsed(name, kind)


@every_algorithm
def test_every_swept_number_is_heard(name: str) -> None:
    """What is done or learned depends on it, be what is "auto" left so or given; its mere copy in the state apart."""
    heard: set[str] = set()
    plain = settings_of(name, **SMALL)
    swept = {f.name for f in fields(plain) if f.metadata.get("swept")}
    auto = [x for x in sorted(swept) if getattr(plain, x) == "auto"]
    for given in ([], auto, *([x] for x in auto)):
        if heard != swept:
            config = replace(plain, **dict.fromkeys(given, 0.5))
            heard = heard.union(*(heard_numbers(name, kind, config) for kind in registry.algorithm(name).actions))
    assert heard == swept


def heard_numbers(name: str, kind: str, config: Any) -> set[str]:
    """The swept numbers on which actions and learning depend."""
    programs = Programs(registry.algorithm(name), config, spec_of(VECTOR, ACTIONS[kind]))
    roots, obs = streams.roots([0]), np.zeros((1, ENVS, 3), np.float32)
    starts, carry = np.zeros((1, ENVS), bool), programs.initial_carry((1, ENVS))

    def life(values: dict[str, Array]) -> Any:
        learned = programs.pure.init(roots, values)
        view = programs.algorithm.view(learned.state)
        extras = programs.extras(view, obs, roots)
        action, _, _ = programs.pure.act(view, carry, obs, starts, roots, jnp.uint32(0), explore=True)
        if programs.algorithm.feed == "replay":
            rows = ring.empty(programs.spec, config.buffer_size, 1, ENVS, extras)
            learned = programs.pure.learn(learned, rows, roots, jnp.uint32(0), count=2)
        else:
            rows = ring.empty(programs.spec, config.rollout_length + 1, 1, ENVS, extras)
            learned = programs.pure.learn_rollout(learned, rows, roots, jnp.uint32(0))
        return action, learned._replace(state=learned.state._replace(numbers={}))

    values = {key: jnp.full(1, value) for key, value in sorted(numbers(config).items())}
    jaxpr = jax.make_jaxpr(life)(values).jaxpr
    _, used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return {key for key, is_used in zip(values, used, strict=True) if is_used}


@every_case
def test_every_key_has_one_use(name: str, kind: str) -> None:
    """Each is folded, or split, or drawn from, and the latter two once only."""
    with pytest.MonkeyPatch.context() as patch:
        recorder, orthogonal = Recorder(patch), jax.nn.initializers.orthogonal

        def noted(*options: Any) -> Any:
            return recorder._recorded("drawn", orthogonal(*options))

        patch.setattr(jax.nn.initializers, "orthogonal", noted)
        rehearse(name, kind, settings_of(name, **SMALL), rehearsal=KeyRehearsal)
        uses = recorder.taken()
    kinds: dict[tuple[int, ...], set[str]] = {}
    for use, key in uses:
        kinds.setdefault(key, set()).add(use)
    assert {frozenset(k) for k in kinds.values()} == {frozenset([u]) for u in ("folded", "split", "drawn")}
    assert max(Counter(key for use, key in uses if use != "folded").values()) == 1


@every_algorithm
def test_actions_of_a_kind_it_does_not_take_are_refused(name: str) -> None:
    """With the names of all those that do take them, and no other."""
    algorithm = registry.algorithm(name)
    for kind, space in ACTIONS.items():
        spec = spec_of(VECTOR, space)
        if kind in algorithm.actions:
            refuse_unfit(algorithm, spec)
            continue
        with pytest.raises(ConfigError) as error:
            refuse_unfit(algorithm, spec)
        before, _, able = str(error.value).partition(": use ")
        assert before == f"{name} does not take {kind} actions"
        assert able.split(" or ") == [other for other, of in CASES if of == kind]


# Runs ----------------------------------------------------------------------------------------------------------------

LEARNING = dict(
    gamma=0.9, learning_rate=1e-2, tau=0.1, hidden_sizes=(16,), activation="tanh", batch_size=32, buffer_size=400,
    learning_starts=40, temperature=0.02, exploration_noise=0.5, target_update_interval=1, rollout_length=16, epochs=8,
    normalize_observations=True,
)  # fmt: skip
STEPS, YOUNG = 600, 64
FRESH = """
import json, sys
import numpy as np
from maxent.run import policy
obs, found = json.loads(sys.argv[1]), []
for path in sys.argv[2:]:
    one = policy.load(path, member=1)
    obs_now = {name: np.array(x, one.programs.spec.obs[name].dtype)[None] for name, x in obs.items()}
    carry, starts, root = one.programs.initial_carry((1, 2)), np.ones((1, 2), bool), policy.streams.roots([0])
    found.append(one.programs.act(one.view, carry, obs_now, starts, root, np.uint32(0), explore=False)[0][0].tolist())
print(json.dumps(found))
"""
"""What the second member of each of the runs does where it sees these observations."""


class Run:
    """A run of two members that has learned, was saved and has gone on."""

    def __init__(self, name: str, kind: str, path: Path) -> None:
        self.kind, self.path, self.settings = kind, path, settings_of(name, **LEARNING)
        every = dict(log_every=STEPS, eval_every=0, eval_episodes=1, checkpoint_every=0)
        config = TrainConfig("probes:Lease", name, STEPS, SEEDS[0], len(SEEDS), ENVS, **every)  # type: ignore[arg-type]
        self.driver = driver.start(config, self.settings, {"actions": kind}, str(path))
        self.programs, loop = self.driver.programs, self.driver.loop
        self.rows: list[Any] = []
        assert self.driver.learn(STEPS, [lambda progress: self.rows.extend(progress.rows)])
        self.traces = dict(self.programs.traces)
        seen = jax.tree.map(lambda x: np.broadcast_to(x, (len(SEEDS), *x.shape)), both_sorts(self.programs.spec))
        starts = np.ones((len(SEEDS), 2), bool)
        action, _, _ = self.programs.act(loop.view, loop.carry, seen, starts, loop.roots, np.uint32(0), explore=False)
        self.taken = np.asarray(action)
        loop.resume(loop.moment, loop.ring)
        self.continued = after(loop, STEPS + YOUNG)

    def young(self, seeds: Sequence[int], compiled: Programs | None = None) -> list[np.ndarray]:
        """All arrays of a loop of other members after a few updates."""
        envs = HostEnvs(partial(probes.Lease, self.kind), seeds, ENVS)
        return after(HostLoop(compiled or self.programs, envs, seeds, {}), YOUNG)


def both_sorts(spec: Spec) -> Any:
    """What `Lease` shows: first where a time limit cuts, then where staying ends."""
    obs = empty_batch(spec.obs, (2,))
    for sort in (0, 1):
        write_observation(probes.Lease.observation_space, probes.Lease.seen(sort), obs, (sort,))
    return obs


def after(loop: HostLoop, steps: int) -> list[np.ndarray]:
    """All arrays of the loop after the step of that number, the member axis in front."""
    updates = loop.updates
    for _ in loop.run(steps, steps):
        pass
    assert loop.step == steps and loop.updates > updates
    state, rows = jax.device_get((loop.learned.state, loop.ring._replace(written=())))
    rows = jax.tree.map(lambda x: np.ascontiguousarray(np.moveaxis(x, 1, 0)), rows)
    return jax.tree.leaves((state, rows, loop.stepped.obs))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Run]]:
    """(name, kind) → its run."""
    path = tmp_path_factory.mktemp("runs")
    compiled: dict[tuple[str, str], Programs] = {}

    def programs(algorithm: Algorithm, config: Any, spec: Spec, mesh: None) -> Programs:
        return compiled.setdefault((algorithm.name, str(spec)), Programs(algorithm, config, spec))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "Programs", programs)
        yield cache(lambda name, kind: Run(name, kind, path / f"{name}-{kind}"))


@every_case
def test_a_time_limit_is_no_end_and_an_end_is_one(name: str, kind: str, run_of: Any) -> None:
    """Every member stays where a time limit cuts, and takes what it can where staying ends."""
    assert_array_equal(run_of(name, kind).taken[..., 0] > 0, [[True, False]] * len(SEEDS))


@every_case
def test_what_is_learned_and_reported_is_finite(name: str, kind: str, run_of: Any) -> None:
    """By functions that know none of the config's swept numbers."""
    run = run_of(name, kind)
    assert all(np.isfinite(x).all() for x in run.continued)
    assert len(run.rows) == len(SEEDS)
    for row in run.rows:
        assert all(np.isfinite(row[metric]) for metric in registry.algorithm(name).metrics(run.settings))


@every_case
def test_nothing_is_traced_twice(name: str, kind: str, run_of: Any) -> None:
    """Each program once, but for acting where it is a program by itself: in training, and in the evaluation at its end.

    Nor does going on trace more.
    """
    run = run_of(name, kind)
    assert run.traces == dict.fromkeys(run.traces, 1) | {"act": 1 if "turns" in run.traces else 2}
    assert run.programs.traces["add"] == 1 and {"learn", "learn_rollout", "turns"} & run.traces.keys()


@every_case
def test_a_member_learns_the_same_bits_in_any_place(name: str, kind: str, run_of: Any) -> None:
    """A seed decides everything, and another seed everything else."""
    young = run_of(name, kind).young
    one, other = young([7, 8]), young([8, 7])
    for a, b in zip(one, other, strict=True):
        assert a.tobytes() == np.ascontiguousarray(b[::-1]).tobytes()
    assert sum(not np.array_equal(a[0], a[1]) for a in one) > len(one) / 3


@every_case
def test_a_saved_run_goes_on_as_if_it_had_not_been(name: str, kind: str, run_of: Any) -> None:
    """From the folder, every array is after some more updates what it is without saving and loading."""
    run = run_of(name, kind)
    for a, b in zip(after(driver.reopen(run.path).loop, STEPS + YOUNG), run.continued, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_a_saved_policy_acts_the_same_in_another_process(run_of: Any) -> None:
    """It needs the folder and nothing else."""
    found = [run_of(*case) for case in CASES]
    obs = json.dumps({key: x.tolist() for key, x in both_sorts(found[0].programs.spec).items()})
    command = [sys.executable, "-c", FRESH, obs, *(str(run.path) for run in found)]
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {"PYTHONPATH": places, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    acted = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    for run, action in zip(found, acted, strict=True):
        assert_allclose(action, run.taken[1], atol=1e-5)


@pytest.mark.slow
@every_case
def test_alone_a_member_learns_the_same(name: str, kind: str, run_of: Any) -> None:
    """Up to rounding."""
    run = run_of(name, kind)
    alone = run.young([8], Programs(registry.algorithm(name), run.settings, run.programs.spec))
    for a, b in zip(run.young([7, 8]), alone, strict=True):
        assert_allclose(a[1:], b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@every_case
def test_compiled_or_not_the_same_is_computed(name: str, kind: str) -> None:
    """Up to rounding: from the first state to actions, with and without exploring, and an update."""
    programs = Programs(registry.algorithm(name), settings_of(name, **SMALL), spec_of(VECTOR, ACTIONS[kind]))
    algorithm, config, spec, rng = programs.algorithm, programs.pure.static, programs.spec, np.random.default_rng(0)
    lead = (6,) if algorithm.feed == "replay" else (4, 2)
    obs, next_obs = rng.standard_normal((2, *lead, 3)).astype(np.float32)
    reward, ones = rng.standard_normal(lead).astype(np.float32), np.ones(lead, np.float32)

    def life(key: Array) -> Any:
        keys, flat, count = jax.random.split(key, 4), obs.reshape(-1, 3), obs[..., 0].size
        state = algorithm.init(programs.config, spec, keys[0])
        view, carry = algorithm.view(state), algorithm.initial_carry(config, spec, (count,))
        best = algorithm.act(config, spec, view, carry, flat, keys[1], False)
        action, carry, extras = algorithm.act(config, spec, view, carry, flat, keys[2], True)
        action, extras = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), (action, extras))
        batch = Transition(obs, action, reward, ones, next_obs, ones < 1, ones > 0, extras)
        return best, action, extras, carry, algorithm.update(config, spec, state, batch, keys[3], jnp.uint32(1))

    key = jax.random.key(0, impl=HASH)
    for a, b in zip(jax.tree.leaves(life(key)), jax.tree.leaves(jax.jit(life)(key)), strict=True):
        assert_allclose(a, b, rtol=1e-3, atol=1e-4)
