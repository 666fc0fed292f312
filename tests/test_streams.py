"""Random keys: all of a run are distinct, each has one use, and a member draws what a run alone would draw."""

from collections import Counter
from itertools import product

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import tiny
from maxent import streams
from maxent.config import SACConfig
from maxent.envs.host import HostEnvs
from maxent.loops.evaluate import evaluate
from maxent.loops.host import HostLoop
from maxent.loops.programs import Programs

FOLDS, SPLITS = ("fold_in",), ("split", "clone")
DRAWS = (
    "ball", "bernoulli", "beta", "bits", "categorical", "cauchy", "choice", "dirichlet", "exponential", "gamma",
    "gumbel", "laplace", "logistic", "loggamma", "multivariate_normal", "normal", "orthogonal", "permutation",
    "poisson", "rademacher", "randint", "t", "truncated_normal", "uniform",
)  # fmt: skip


class Recorder:
    """Every use of a key while the functions of `jax.random` are replaced: (what it is used for, the key's bits)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uses: list[tuple[str, tuple[int, ...]]] = []
        for use, names in (("folded", FOLDS), ("split", SPLITS), ("drawn", DRAWS)):
            for name in names:
                monkeypatch.setattr(jax.random, name, self._recorded(use, getattr(jax.random, name)))

    def _recorded(self, use, function):
        def recorded(key, *args, **kwargs):
            jax.debug.callback(lambda bits: self._note(use, bits), jax.random.key_data(key))
            return function(key, *args, **kwargs)

        return recorded

    def _note(self, use, bits):
        self.uses.extend((use, tuple(key)) for key in np.asarray(bits).reshape(-1, 2).tolist())

    def taken(self) -> list[tuple[str, tuple[int, ...]]]:
        jax.effects_barrier()
        uses, self.uses = self.uses, []
        return uses


def clock_loop(settings: SACConfig, seeds: list[int], envs: int, length: int = 4) -> HostLoop:
    host = HostEnvs(lambda: tiny.Clock(length), seeds, envs)
    return HostLoop(Programs(tiny.SAC, settings, host.spec), host, seeds, {})


@pytest.fixture(scope="module")
def uses():
    """Of a short run: three members, two environments each, warm-up, two updates an iteration, both evaluations."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = Recorder(monkeypatch)
        settings = SACConfig(hidden_sizes=(4,), batch_size=4, buffer_size=100, learning_starts=10, n_step=2)
        seeds = [0, 1, 2]
        loop = clock_loop(settings, seeds, 2)
        for _ in loop.run(30, 10):
            pass
        training = recorder.taken()
        envs = HostEnvs(lambda: tiny.Clock(5), seeds, 2, stream="eval")
        evaluate(loop.programs, loop.view, envs, loop.roots, 3, explore=False)
        mean = recorder.taken()
        evaluate(loop.programs, loop.view, envs, loop.roots, 3, explore=True)
        return {"training": training, "mean": mean, "stochastic": recorder.taken()}


def test_a_key_is_folded_or_split_or_drawn_from(uses):
    kinds: dict[tuple[int, ...], set[str]] = {}
    for use, key in sum(uses.values(), []):
        kinds.setdefault(key, set()).add(use)
    assert {frozenset(kind) for kind in kinds.values()} == {frozenset([u]) for u in ("folded", "split", "drawn")}


def test_no_key_is_drawn_from_or_split_twice(uses):
    used = [key for use, key in uses["training"] + uses["stochastic"] if use != "folded"]
    assert max(Counter(used).values()) == 1
    counts = Counter(use for use, _ in uses["training"])
    members, iterations, updates = 3, 30 // 2, 20
    layers = 3 * 2  # of the policy and two critics, each split in two and drawn from twice
    assert counts["drawn"] == members * (iterations + updates * (1 + 2) + layers * 2)
    assert counts["split"] == members * (updates + layers + 3 + 2)


def test_evaluation_has_keys_of_its_own(uses):
    """And one with the mean action draws nothing at all."""
    assert "drawn" not in {use for use, _ in uses["mean"]}
    drawn = {name: {key for use, key in uses[name] if use == "drawn"} for name in ("training", "stochastic")}
    assert drawn["stochastic"] and not drawn["training"] & drawn["stochastic"]


def test_the_keys_of_a_stream_are_what_the_module_says():
    """Of every member, and of a further attempt at the same run."""
    seeds = [0, 7, 2**31 - 1, 2**31 + 5]
    keys = [jax.random.key(seed) for seed in seeds]
    again = [jax.random.fold_in(key, len(streams.STREAMS) + 2) for key in keys]
    for attempt, own in ((0, keys), (2, again)):
        for key, root in zip(own, streams.roots(seeds, attempt), strict=True):
            for number, name in enumerate(streams.STREAMS):
                expected = jax.random.fold_in(jax.random.fold_in(key, number), 123)
                assert streams.stream(root, name, np.uint32(123)) == expected


def test_every_stream_step_and_member_has_its_own_key():
    keys = [
        tuple(jax.random.key_data(streams.stream(root, name, step)).tolist())
        for root, name, step in product(streams.roots(range(4)), streams.STREAMS, (0, 1, 2, 2**31, 2**32 - 1))
        for step in [np.uint32(step)]
    ]
    assert len(set(keys)) == len(keys)


def test_every_episode_has_its_own_seed():
    """Over members, environments, episodes and streams; 31 bits, so that every environment takes them."""
    seeds = [
        streams.episode_seed(seed, env, episode, name)
        for seed, env, episode, name in product(range(5), range(8), range(50), ("env", "eval"))
    ]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0 and max(seeds) < 2**31 and max(seeds) > 2**30


# --- a member and a run alone -------------------------------------------------------------------------------


def run(seeds: list[int], envs: int, steps: int) -> tuple[list[list[tiny.Clock]], np.ndarray]:
    """The environments [member][env], and the actions in the replay [row, member, env, 1]."""
    settings = SACConfig(hidden_sizes=(4,), batch_size=4, buffer_size=100, learning_starts=1000)
    loop = clock_loop(settings, seeds, envs)
    for _ in loop.run(steps, steps):
        pass
    return loop.envs._envs, np.array(loop.ring.action)


def test_a_member_draws_what_a_run_alone_draws():
    """Its keys, warm-up actions and environment seeds depend on its seed, never on who trains beside it."""
    envs, actions = run([3, 4, 5], 2, 60)
    for member, seed in enumerate([3, 4, 5]):
        alone_envs, alone_actions = run([seed], 2, 60)
        assert_array_equal(actions[:, member], alone_actions[:, 0])
        for ours, theirs in zip(envs[member], alone_envs[0]):
            assert ours.seeds == theirs.seeds and len(ours.seeds) > 4
            assert_array_equal(ours.actions, theirs.actions)
        assert (streams.roots([3, 4, 5])[member] == streams.roots([seed])[0]).all()


def test_members_and_environments_draw_differently():
    envs, actions = run([0, 1], 2, 60)
    taken = actions[1:30].reshape(29, 4).T
    assert all(not np.array_equal(a, b) for i, a in enumerate(taken) for b in taken[:i])
    seeds = [seed for member in envs for env in member for seed in env.seeds]
    assert len(set(seeds)) == len(seeds)


def test_warm_up_actions_fill_the_box():
    _, actions = run([0], 2, 190)
    drawn = actions[1:95].ravel()
    assert drawn.min() < -0.9 and drawn.max() > 0.9 and abs(drawn.mean()) < 0.2 and np.abs(drawn).max() <= 1
