"""On environments whose values are known, the whole loop finds them: adapter, replay, targets and learner together.

Two members learn side by side in two environments each; unless a test says otherwise the first maximises reward alone
and the second at a temperature of 0.5, where each step is worth α·H more. With nothing to gain from the action the best
policy has the highest entropy that a tanh-squashed Gaussian can have, 0.68 nats of the box's log 2 = 0.69.
"""

from collections.abc import Iterator
from functools import cache

import jax
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from numpy.testing import assert_allclose

from maxent import networks
from maxent.algorithms.sac import SAC
from maxent.config import SACConfig
from maxent.envs.host import HostEnvs
from maxent.envs.spaces import spec_of
from maxent.loops.host import HostLoop
from maxent.loops.loop import Report
from maxent.loops.programs import Programs
from probes import LONG, Alternating, Constant, Delayed, OneStep, Probe, Target, Terminating, one_hot

CONFIG = SACConfig(
    gamma=0.7, learning_rate=5e-3, tau=0.1, temperature=0.0, hidden_sizes=(32,), activation="tanh", batch_size=64,
    buffer_size=1500, learning_starts=100, utd=1.0,
)  # fmt: skip
GAMMA = CONFIG.gamma
TEMPERATURES = np.array([0.0, 0.5], np.float32)
ENTROPY = 0.68
ACTIONS = np.linspace(-0.9, 0.9, 7, dtype=np.float32)
TOLERANCE = 0.06


@pytest.fixture(autouse=True)
def quick_keys() -> Iterator[None]:
    """Random keys of the kind whose draws compile fast; nothing here depends on which numbers are drawn."""
    with jax.default_prng_impl("unsafe_rbg"):
        yield


@cache
def programs(**options: object) -> Programs:
    """Compiled once for all probes with the same settings; numbers that differ live in the state."""
    config = SACConfig(**{**vars(CONFIG), **options})
    return Programs(SAC, config, spec_of(Probe.observation_space, Probe.action_space))


def train(
    probe: type[Probe], limit: int = LONG, steps: int = 1600, seeds: int = 2, envs: int = 2,
    swept: dict[str, np.ndarray] | None = None, **options: object,
) -> tuple[HostLoop, Report]:  # fmt: skip
    """The loop after its last step, and the report of its last quarter."""
    swept = {"temperature": TEMPERATURES[:seeds]} if swept is None else swept
    compiled = programs(**options)
    loop = HostLoop(compiled, HostEnvs(lambda: TimeLimit(probe(), limit), range(seeds), envs), range(seeds), swept)
    *_, report = loop.run(steps, steps // 4)
    return loop, report


def values(loop: HostLoop, state: int, actions: np.ndarray = ACTIONS) -> np.ndarray:
    """Every critic's value of the actions in a state: [member, critic, action]."""
    obs = np.repeat(one_hot(state)[None], len(actions), 0)
    critics = loop.learned.state.critics
    return np.stack(
        [
            networks.ensemble_q(jax.tree.map(lambda x, m=m: x[m], critics), obs, actions[:, None], CONFIG.activation)
            for m in range(loop.envs.shape[0])
        ]
    )


def assert_values(loop: HostLoop, state: int, expected: list[float]) -> None:
    """What each member should know, for any action and by every critic."""
    for found, value in zip(values(loop, state), expected, strict=True):
        assert_allclose(found, value, atol=TOLERANCE * max(1, value))


def bonus(steps: float) -> np.ndarray:
    """What entropy adds over so many (discounted) later steps, for each member."""
    return TEMPERATURES * ENTROPY * steps


def test_a_constant_reward_is_worth_its_geometric_sum() -> None:
    """Q = 1 / (1 - γ), and α H γ / (1 - γ) more: an episode's limit of twenty steps is not in it."""
    loop, _ = train(Constant)
    assert_values(loop, 0, 1 / (1 - GAMMA) + bonus(GAMMA / (1 - GAMMA)))


def test_one_step_is_worth_its_reward() -> None:
    """Nothing follows an end, entropy neither."""
    loop, _ = train(OneStep, steps=800)
    assert_values(loop, 0, [1.0, 1.0])


@pytest.mark.parametrize("n_step", [1, 2])
def test_a_time_limit_does_not_end_the_value(n_step: int) -> None:
    """Cut after every third step, states are worth what they are without a limit: the true successor follows."""
    loop, _ = train(Alternating, limit=3, n_step=n_step, swept={})
    assert_values(loop, 0, [1 / (1 - GAMMA**2)] * 2)
    assert_values(loop, 1, [GAMMA / (1 - GAMMA**2)] * 2)


@pytest.mark.parametrize("n_step", [1, 2])
def test_an_end_ends_the_value(n_step: int) -> None:
    """States before it are worth the rewards up to it, whatever the window."""
    loop, _ = train(Terminating, n_step=n_step, swept={})
    for state, value in enumerate([1 + GAMMA + GAMMA**2, 1 + GAMMA, 1]):
        assert_values(loop, state, [value] * 2)


def test_entropy_is_earned_until_the_end() -> None:
    """Each state is worth the entropy of the states after it, none at the end."""
    loop, _ = train(Terminating)
    assert_values(loop, 0, 1 + GAMMA + GAMMA**2 + bonus(GAMMA + GAMMA**2))
    assert_values(loop, 1, 1 + GAMMA + bonus(GAMMA))
    assert_values(loop, 2, [1.0, 1.0])


def test_two_step_returns_see_two_steps_without_bootstrapping() -> None:
    """With target critics frozen at their random start, a reward two steps away is known exactly all the same."""
    frozen = {"tau": np.zeros(2, np.float32)}
    loop, _ = train(Delayed, n_step=2, steps=1000, swept=frozen)
    assert_values(loop, 0, [GAMMA, GAMMA])
    assert_values(loop, 1, [1.0, 1.0])
    blind, _ = train(Delayed, n_step=1, steps=1000, swept=frozen)
    assert (np.abs(values(blind, 0) - GAMMA) > 2 * TOLERANCE).all()


def test_members_learn_for_discounts_of_their_own() -> None:
    """One program, two discounts: in the target of one step and within the window of two."""
    gammas = np.array([0.0, 0.6], np.float32)
    for n_step in (1, 2):
        loop, _ = train(Alternating, limit=3, n_step=n_step, swept={"gamma": gammas})
        assert_values(loop, 0, 1 / (1 - gammas**2))
        assert_values(loop, 1, gammas / (1 - gammas**2))


def test_one_member_in_one_environment_learns_the_same_value() -> None:
    """K = 1 and one environment are not a special case."""
    loop, _ = train(Constant, seeds=1, envs=1, steps=1000)
    assert_values(loop, 0, [1 / (1 - GAMMA)])


def test_the_best_action_is_found() -> None:
    """Critics know the rewards near the best action, and the mean of the policy is that action."""
    loop, _ = train(Target, swept={"temperature": np.array([0.0, 0.02], np.float32)})
    near = ACTIONS[np.abs(ACTIONS - Target.best) < 0.8]
    for member in values(loop, 0, near):
        assert_allclose(member, [1 - (near - Target.best) ** 2] * 2, atol=TOLERANCE)
    assert_allclose(mean_action(loop), Target.best, atol=0.1)


def test_a_learned_temperature_meets_the_target_entropy() -> None:
    """Where reward and entropy disagree, α settles where the policy's entropy is what was asked for, in each member."""
    wanted = np.array([-0.5, 0.2], np.float32)
    loop, report = train(
        Target, steps=2400, temperature="auto", initial_temperature=0.1, temperature_learning_rate=2e-2,
        swept={"target_entropy": wanted},
    )  # fmt: skip
    assert_allclose(report.metrics["entropy"], wanted, atol=0.1)
    low, high = report.metrics["temperature"]
    assert 0 < low < high
    assert_allclose(mean_action(loop), Target.best, atol=0.2)


def mean_action(loop: HostLoop) -> np.ndarray:
    """What the policy takes in the first state when it does not explore, [member]."""
    members, envs = loop.envs.shape
    obs = np.broadcast_to(one_hot(0), (members, envs, len(one_hot(0))))
    action, _, _ = loop.programs.act(
        loop.view, loop.carry, obs, loop.stepped.starts, loop.roots, np.uint32(0), explore=False
    )
    return np.asarray(action)[:, 0, 0]
