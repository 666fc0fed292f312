"""Exact maximum-entropy control: values known by hand, bounds that hold, and two paths to each result."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, minimize
from scipy.special import logsumexp, softmax

import maxent.tabular as tabular
from maxent.errors import ConfigError, MaxentError
from maxent.tabular import MDP


def random_terminal_mdp(seed: int, states: int = 5, actions: int = 3, discount: float = 1.0) -> MDP:
    """Every action may end the episode, so a discount of 1 is allowed; rewards of different sizes."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), (states, actions)) * 0.9
    transition[:, :, -1] += 0.1
    transition[-1] = np.eye(states)[-1]
    reward = rng.standard_normal((states, actions))
    reward[-1] = 0
    return MDP(transition, reward, discount, np.eye(states)[0], np.arange(states) == states - 1)


def random_policy(mdp: MDP, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(mdp.num_actions), mdp.num_states)


PROBLEMS = {
    "random": tabular.random_mdp(7, 3, seed=1),
    "far-sighted": tabular.random_mdp(5, 4, discount=0.99, seed=2),
    "ends, undiscounted": random_terminal_mdp(3),
    "chain": tabular.chain(6, slip=0.1),
    "two passages": tabular.two_passages(slip=0.1),
}
TEMPERATURES = (0.01, 0.3, 5.0)
problems = pytest.mark.parametrize("mdp", PROBLEMS.values(), ids=PROBLEMS)
temperatures = pytest.mark.parametrize("temperature", TEMPERATURES)


# --- the equations, against values known by hand ------------------------------------------------------------


def test_one_state_one_step() -> None:
    """Q = r; with r = (1, 0) and α = 1 the policy is the logistic function of 1 and V = log(1 + e)."""
    mdp = MDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.0, [1.0])
    found = tabular.soft_value_iteration(mdp, 1.0)
    assert_allclose(found.q, [[1, 0]], rtol=0, atol=0)
    assert_allclose(found.value, np.log(1 + np.e), rtol=1e-15)
    assert_allclose(found.policy[0, 0], 1 / (1 + np.exp(-1)), rtol=1e-15)


def test_one_state_for_ever() -> None:
    """V = α log Σ exp(r/α) + γ·V, so V is the one-step value over 1 - γ."""
    mdp = MDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0])
    value = 2 * np.log(np.exp(0.5) + 1) / (1 - 0.9)
    assert_allclose(tabular.soft_policy_iteration(mdp, 2.0).value, value, rtol=1e-12)


def test_chain_of_one_step() -> None:
    """At state 0 of a chain of two, V = α log(exp(1/α) + exp(γ·V/α)): solved here by bisection."""
    alpha, gamma = 0.7, 0.9
    value = brentq(lambda v: v - alpha * np.log(np.exp(1 / alpha) + np.exp(gamma * v / alpha)), 0, 100, xtol=1e-13)
    found = tabular.soft_value_iteration(tabular.chain(2, gamma), alpha)
    assert_allclose(found.value, [value, 0], atol=1e-9)
    assert_allclose(found.q[0], [gamma * value, 1], atol=1e-9)


def test_undiscounted_entropy_is_counted_until_the_end_and_not_after_it() -> None:
    """Two free choices, then the end: V = 2·α·log 2, then α·log 2, then 0."""
    moves = np.eye(3)[[1, 2, 2]]
    mdp = MDP(np.stack([moves, moves], 1), np.zeros((3, 2)), 1.0, [1, 0, 0], np.array([False, False, True]))
    for solve in (tabular.soft_value_iteration, tabular.soft_policy_iteration):
        assert_allclose(solve(mdp, 3.0).value, [6 * np.log(2), 3 * np.log(2), 0], atol=1e-12)
    assert_allclose(mdp.horizon, [2, 1, 0])


def test_small_functions_at_extreme_temperatures() -> None:
    q = np.array([1e5, 0.0, 1e5])
    assert_allclose(tabular.log_partition(q, 1e-300), 1e5)
    assert_array_equal(tabular.boltzmann_policy(q, 1e-300), [0.5, 0, 0.5])
    assert_allclose(tabular.boltzmann_policy(q, 1e300), 1 / 3)
    assert_allclose(tabular.entropy([[1.0, 0.0], [0.5, 0.5]]), [0, np.log(2)])


@given(
    q=st.lists(st.floats(-100, 100), min_size=1, max_size=6),
    temperature=st.floats(0.01, 100),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_the_boltzmann_policy_is_the_best_for_one_step(q: list[float], temperature: float, seed: int) -> None:
    """α log Σ exp(Q/α) = max_π E_π[Q] + α·H(π), and what another policy lacks is α·KL(π ‖ Boltzmann)."""
    best = tabular.log_partition(q, temperature)
    other = np.random.default_rng(seed).dirichlet(np.ones(len(q)))
    policy = tabular.boltzmann_policy(q, temperature)
    assert_allclose(tabular.soft_value(q, policy, temperature), best, rtol=1e-9, atol=1e-9)
    assert tabular.soft_value(q, other, temperature) <= best + 1e-9
    divergence = np.sum(other * (np.log(np.maximum(other, 1e-300)) - (np.array(q) - best) / temperature))
    assert_allclose(best - tabular.soft_value(q, other, temperature), temperature * divergence, atol=1e-7)


# --- solving ------------------------------------------------------------------------------------------------


@problems
@temperatures
def test_value_and_policy_iteration_agree(mdp: MDP, temperature: float) -> None:
    by_value = tabular.soft_value_iteration(mdp, temperature, tolerance=1e-9)
    by_policy = tabular.soft_policy_iteration(mdp, temperature, tolerance=1e-9)
    assert_allclose(by_value.q, by_policy.q, rtol=0, atol=1e-8)
    assert_allclose(by_value.value, by_policy.value, rtol=0, atol=1e-8)
    assert_allclose(by_value.policy, by_policy.policy, rtol=0, atol=1e-8 / temperature)


@problems
@temperatures
def test_the_solution_satisfies_the_soft_bellman_equations(mdp: MDP, temperature: float) -> None:
    found, alive = tabular.soft_policy_iteration(mdp, temperature), ~mdp.terminal
    expected = mdp.reward + mdp.discount * np.einsum("sat,t->sa", mdp.transition, np.where(alive, found.value, 0))
    assert_allclose(found.q, expected, atol=1e-9)
    partition = temperature * logsumexp(found.q / temperature, axis=1)
    assert_allclose(found.value[alive], partition[alive], atol=1e-9)
    assert_allclose(found.policy[alive], softmax(found.q / temperature, axis=1)[alive], atol=1e-8)
    assert_array_equal(found.value[mdp.terminal], 0)


@problems
@temperatures
def test_the_error_bound_bounds_the_error(mdp: MDP, temperature: float) -> None:
    """Of every iterate of all three iterations, from a start far off; and it gets small."""
    optimum = tabular.soft_policy_iteration(mdp, temperature, tolerance=1e-12)
    policy = random_policy(mdp, 0)
    own = tabular.soft_policy_evaluation(mdp, policy, temperature)
    start = np.random.default_rng(1).normal(0, 100, mdp.num_states)
    for limit, iterates in (
        (optimum, tabular.soft_value_iterates(mdp, temperature, start)),
        (optimum, tabular.soft_policy_iterates(mdp, temperature, policy)),
        (own, tabular.soft_policy_evaluation_iterates(mdp, policy, temperature, start)),
    ):
        for found in islice(iterates, 60):
            error = max(np.abs(found.value - limit.value).max(), np.abs(found.q - limit.q).max())
            assert error <= found.error_bound + 1e-9
    assert (
        found.error_bound
        < 0.9999 * next(iter(tabular.soft_policy_evaluation_iterates(mdp, policy, temperature, start))).error_bound
    )


def test_the_error_bound_is_attained() -> None:
    """Where all states are alike the error is γ/(1 - γ) times the last change: no smaller bound holds."""
    mdp = replace(tabular.random_mdp(4, 2, discount=0.9), reward=np.ones((4, 2)))
    value = (1 + np.log(2)) / (1 - 0.9)
    for found in islice(tabular.soft_value_iterates(mdp, 1.0), 30):
        assert_allclose(found.error_bound, value - found.value[0], rtol=1e-9)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.01, 100), ends=st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_soft_backup_contracts_and_keeps_order(seed: int, temperature: float, ends: bool) -> None:
    """‖T V - T W‖ ≤ (1 - 1/max h)·‖V - W‖ in the norm of the horizon h; and V ≤ W gives T V ≤ T W."""
    mdp = random_terminal_mdp(seed) if ends else tabular.random_mdp(5, 3, seed=seed)
    rng, alive = np.random.default_rng(seed), ~mdp.terminal
    v, w = rng.normal(0, 10, (2, mdp.num_states))

    def backed_up(value: np.ndarray) -> np.ndarray:
        return tabular.log_partition(tabular.soft_backup(mdp, value), temperature)[alive]

    def norm(difference: np.ndarray) -> float:
        return np.abs(difference / mdp.horizon[alive]).max()

    modulus = 1 - 1 / mdp.horizon.max()
    assert modulus < 1
    assert norm(backed_up(v) - backed_up(w)) <= modulus * norm((v - w)[alive]) + 1e-9
    assert np.all(backed_up(np.minimum(v, w)) <= backed_up(v) + 1e-12)


def test_the_horizon_is_the_longest_that_any_policy_makes() -> None:
    mdp = tabular.chain(5, discount=0.9, slip=0.2)
    stay_left = np.tile([1.0, 0.0], (5, 1))
    assert_allclose(tabular.state_occupancy(mdp, stay_left).sum(), mdp.horizon[0], rtol=1e-12)
    for seed in range(20):
        assert tabular.state_occupancy(mdp, random_policy(mdp, seed)).sum() < mdp.horizon[0]
    assert_allclose(tabular.random_mdp(3, 2, discount=0.75).horizon, 4)


@problems
@temperatures
def test_policy_iteration_improves_monotonically_and_faster_than_value_iteration(mdp: MDP, temperature: float) -> None:
    iterates = list(islice(tabular.soft_policy_iterates(mdp, temperature, random_policy(mdp, 4)), 12))
    scale = np.abs(iterates[-1].value).max()
    for before, after in zip(iterates, iterates[1:], strict=False):
        assert np.all(after.value >= before.value - 1e-11 * scale)
    assert np.all(iterates[1].value >= iterates[0].value) and np.any(iterates[1].value > iterates[0].value)
    assert iterates[-1].error_bound < 1e-6 * scale


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.05, 20))
@settings(deadline=None, max_examples=40)
def test_no_state_is_worse_after_soft_policy_improvement(seed: int, temperature: float) -> None:
    """Lemma 2 of arXiv 1801.01290, and no policy is better than the soft-optimal one in any state."""
    mdp = tabular.random_mdp(4, 3, discount=0.9, seed=seed)
    policy = random_policy(mdp, seed)
    before = tabular.soft_policy_evaluation(mdp, policy, temperature)
    improved = tabular.soft_policy_improvement(mdp, policy, temperature)
    after = tabular.soft_policy_evaluation(mdp, improved, temperature)
    best = tabular.soft_policy_iteration(mdp, temperature)
    assert np.all(after.value >= before.value - 1e-9) and np.all(after.q >= before.q - 1e-9)
    assert np.all(best.value >= after.value - 1e-9)


@problems
def test_iterative_evaluation_reaches_the_exact_one(mdp: MDP) -> None:
    policy = random_policy(mdp, 5)
    exact = tabular.soft_policy_evaluation(mdp, policy, 0.4)
    for found in tabular.soft_policy_evaluation_iterates(mdp, policy, 0.4):
        if found.error_bound < 1e-9:
            break
    assert_allclose(found.value, exact.value, rtol=0, atol=2e-9)
    assert_allclose(found.q, exact.q, rtol=0, atol=2e-9)
    assert exact.error_bound < 1e-8


@problems
def test_soft_value_is_return_and_price_of_entropy(mdp: MDP) -> None:
    """E[V(s_0)] = E[Σ γ^t r] + α·E[Σ γ^t H], the discounted visits summed forward in time."""
    policy, temperature = random_policy(mdp, 6), 0.6
    value = tabular.soft_policy_evaluation(mdp, policy, temperature).value
    states, visits, alive = mdp.initial, np.zeros(mdp.num_states), ~mdp.terminal
    while states.max() > 1e-15:
        visits = visits + states
        states = mdp.discount * np.einsum("s,sa,sat->t", states, policy, mdp.transition) * alive
    assert_allclose(tabular.state_occupancy(mdp, policy), visits, atol=1e-9)
    assert_allclose(tabular.expected_return(mdp, policy), visits @ (policy * mdp.reward).sum(1), atol=1e-9)
    expected = tabular.expected_return(mdp, policy) + temperature * visits @ tabular.entropy(policy)
    assert_allclose(mdp.initial @ value, expected, atol=1e-8)


@problems
def test_entropy_is_an_intrinsic_reward(mdp: MDP) -> None:
    """Ordinary evaluation of r(s, a) + α·H(π(·|s)) gives Q + α·H(π(·|s)), and its mean is the soft V."""
    policy, temperature, alive = random_policy(mdp, 7), 0.8, ~mdp.terminal
    soft = tabular.soft_policy_evaluation(mdp, policy, temperature)
    reward = (mdp.reward + temperature * tabular.entropy(policy)[:, None]) * alive[:, None]
    moves = mdp.discount * mdp.transition * alive  # [states, actions, states]; solved over state-action pairs
    pairs = np.einsum("sat,tb->satb", moves, policy).reshape(reward.size, reward.size)
    ordinary = np.linalg.solve(np.eye(reward.size) - pairs, reward.ravel()).reshape(reward.shape)
    shifted = tabular.q_with_entropy(soft.q, policy, temperature)
    assert_allclose(shifted[alive], ordinary[alive], atol=1e-8)
    assert_allclose((policy * shifted).sum(1)[alive], soft.value[alive], atol=1e-8)
    assert_allclose(
        tabular.boltzmann_policy(shifted, temperature),
        tabular.boltzmann_policy(soft.q, temperature),
        atol=1e-8,
    )


# --- limits -------------------------------------------------------------------------------------------------


@problems
@pytest.mark.parametrize("temperature", [1e-8, 1e-3, 0.1, 2.0])
def test_low_temperature_is_ordinary_control_up_to_a_known_error(mdp: MDP, temperature: float) -> None:
    """0 ≤ V*_α - V* ≤ α·log(actions)·h."""
    ordinary = tabular.zero_temperature(mdp)
    gain = tabular.soft_policy_iteration(mdp, temperature).value - ordinary.value
    assert np.all(gain >= -1e-9)
    assert np.all(gain <= temperature * np.log(mdp.num_actions) * mdp.horizon + 1e-9)
    assert_allclose(tabular.expected_return(mdp, ordinary.policy), mdp.initial @ ordinary.value, atol=1e-8)


@problems
@pytest.mark.parametrize("temperature", [1.0, 100.0, 1e6])
def test_high_temperature_is_pure_entropy_up_to_a_known_error(mdp: MDP, temperature: float) -> None:
    """|V*_α/α - V_∞| ≤ max|r|·h/α."""
    limit = tabular.infinite_temperature(mdp)
    found = tabular.soft_policy_iteration(mdp, temperature)
    bound = np.abs(mdp.reward).max() * mdp.horizon / temperature
    assert np.all(np.abs(found.value / temperature - limit.value) <= bound + 1e-8)


def test_the_limit_policies() -> None:
    """Greedy at α → 0; at α → ∞ uniform where nothing ends, and shy of the end where episodes do."""
    mdp = tabular.random_mdp(6, 3, seed=8)
    greedy = tabular.zero_temperature(mdp).policy
    assert_allclose(tabular.soft_policy_iteration(mdp, 1e-6).policy, greedy, atol=1e-12)
    assert_allclose(tabular.soft_policy_iteration(mdp, 1e9).policy, 1 / 3, atol=1e-8)
    assert_allclose(tabular.infinite_temperature(mdp).policy, 1 / 3, atol=1e-9)
    before_the_end = tabular.infinite_temperature(tabular.chain(4)).policy[2]
    assert before_the_end[0] > 0.8  # away from the goal; the share of going on is e^(γ·V) of e^(γ·V) + 1
    assert_allclose(tabular.soft_policy_iteration(tabular.chain(4), 1e9).policy[2], before_the_end, atol=1e-7)


# --- the entropy constraint ---------------------------------------------------------------------------------


def difference(f: Callable[[Any], Any], x: np.ndarray, step: float) -> np.ndarray:
    """The central difference of f at x, [..., *shape of x]."""
    columns = []
    for i in range(x.size):
        e = np.zeros(x.size)
        e[i] = step
        e = e.reshape(x.shape)
        columns.append((np.asarray(f(x + e)) - np.asarray(f(x - e))) / (2 * step))
    return np.stack(columns, -1).reshape(*np.shape(columns[0]), *x.shape)


@problems
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_the_constrained_optimum_has_the_target_entropy_and_no_duality_gap(mdp: MDP, share: float) -> None:
    target = share * np.log(mdp.num_actions)
    found = tabular.entropy_constrained(mdp, target)
    best = found.optimum
    visits = tabular.state_occupancy(mdp, best.policy)
    assert_allclose(visits @ tabular.entropy(best.policy) / visits.sum(), target, atol=1e-8)
    assert_allclose(best.entropy, target, atol=1e-8)
    assert best.temperature > 0 and not found.slack
    assert_allclose(tabular.expected_return(mdp, best.policy), best.dual, atol=1e-6)
    for step in found.history:  # weak duality, and the slope's sign says which way the optimum lies
        assert step.dual >= best.dual - 1e-7
        if abs(step.entropy - target) > 1e-8:
            assert (step.entropy > target) == (step.temperature > best.temperature)
            assert np.sign(step.gradient) == np.sign(step.temperature - best.temperature)


@problems
@temperatures
def test_slope_and_curvature_of_the_dual(mdp: MDP, temperature: float) -> None:
    point = tabular.discounted_dual(mdp, temperature, 0.5)
    step, x = 1e-4 * temperature, np.array([temperature])
    slope = difference(lambda x: tabular.discounted_dual(mdp, x[0], 0.5).dual, x, step)
    curvature = difference(lambda x: tabular.discounted_dual(mdp, x[0], 0.5).gradient, x, step)
    assert_allclose(point.gradient, slope[0], rtol=1e-5, atol=1e-5)
    assert_allclose(point.curvature, curvature[0], rtol=1e-5, atol=1e-5)
    assert_allclose(point.gradient, point.weight * (point.entropy - 0.5), rtol=1e-9, atol=1e-9)


def test_no_policy_that_meets_the_constraint_returns_more() -> None:
    """A general optimiser over all policies of a problem that ends finds the same return."""
    mdp = random_terminal_mdp(0, states=3, actions=2, discount=0.9)
    target = 0.5

    def policy_of(x: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-x))
        return np.stack([np.append(p, 0.5), np.append(1 - p, 0.5)], 1)

    def surplus(x: np.ndarray) -> float:
        visits = tabular.state_occupancy(mdp, policy_of(x))
        return float(visits @ (tabular.entropy(policy_of(x)) - target))

    found = minimize(
        lambda x: -tabular.expected_return(mdp, policy_of(x)),
        np.zeros(2),
        constraints={"type": "ineq", "fun": surplus},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    optimum = tabular.entropy_constrained(mdp, target).optimum
    assert_allclose(tabular.expected_return(mdp, optimum.policy), -found.fun, atol=1e-7)
    assert_allclose(optimum.policy[:2], policy_of(found.x)[:2], atol=1e-4)


def test_a_constraint_that_costs_nothing_is_slack() -> None:
    mdp = replace(tabular.random_mdp(4, 3), reward=np.ones((4, 3)))  # every policy is as good
    found = tabular.entropy_constrained(mdp, 0.7)
    assert found.slack and found.optimum.entropy > 0.7
    assert_allclose(found.optimum.temperature, 1e-6)
    assert_allclose(tabular.expected_return(mdp, found.optimum.policy), 1 / (1 - 0.95))
    mdp = tabular.random_mdp(4, 3)  # and no entropy asked for is ordinary control
    found = tabular.entropy_constrained(mdp, 0.0)
    assert_allclose(found.optimum.dual, mdp.initial @ tabular.zero_temperature(mdp).value, atol=1e-7)


def finite_return(mdp: MDP, policy: np.ndarray, discount: float) -> tuple[float, np.ndarray]:
    """The return and the entropy of each step of a policy [steps, states, actions], forward in time."""
    states, total, entropies = mdp.initial, 0.0, []
    for t, now in enumerate(policy):
        total += discount**t * states @ (now * mdp.reward).sum(1)
        entropies.append(states @ tabular.entropy(now) / states.sum())
        states = np.einsum("s,sa,sat->t", states, now, mdp.transition) * ~mdp.terminal
    return float(total), np.array(entropies)


@pytest.mark.parametrize("seed", range(2))
def test_the_finite_horizon_against_brute_force(seed: int) -> None:
    """Every policy of three steps, two states and two actions, by a general optimiser."""
    mdp, target, discount = tabular.random_mdp(2, 2, seed=seed), np.array([0.3, 0.6, 0.45]), 1.0

    def policy_of(x: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-x.reshape(3, 2)))
        return np.stack([p, 1 - p], -1)

    searches = [
        minimize(
            lambda x: -finite_return(mdp, policy_of(x), discount)[0],
            np.random.default_rng(start).normal(0, 0.3, 6),
            constraints={
                "type": "ineq",
                "fun": lambda x: finite_return(mdp, policy_of(x), discount)[1] - target,
            },
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 200},
        )
        for start in range(2)
    ]
    best = min((search for search in searches if search.success), key=lambda search: search.fun)
    found = tabular.entropy_constrained_finite_horizon(mdp, 3, target, discount)
    total, entropies = finite_return(mdp, found.optimum.policy, discount)
    assert_allclose(total, -best.fun, atol=1e-6)
    assert_allclose(entropies, target, atol=1e-8)
    assert_allclose(found.optimum.entropy, target, atol=1e-8)
    assert_allclose(found.optimum.dual, total, atol=1e-8)
    assert found.optimum.temperature.shape == (3,) and np.ptp(found.optimum.temperature) > 0.01


def test_the_finite_horizon_where_late_temperatures_decide_where_early_policies_go() -> None:
    """A first choice, almost greedy, between a state where entropy is free and one where it is dear.

    Finding each step's temperature for the states visited before would jump between the two for ever.
    """
    moves = np.zeros((4, 2, 4))
    moves[0, 0, 1] = moves[0, 1, 2] = moves[1, :, 3] = moves[2, :, 3] = moves[3, :, 3] = 1
    reward = np.array([[0, 0], [0, 0], [0.35, -5], [0, 0]])
    mdp = MDP(moves, reward, 1.0, [1, 0, 0, 0], np.arange(4) == 3)
    found = tabular.entropy_constrained_finite_horizon(mdp, 2, [0.05, 0.4])
    total, entropies = finite_return(mdp, found.optimum.policy, 1.0)
    assert found.slack.tolist() == [
        True,
        False,
    ]  # the second step pays for the first
    assert 0.05 < entropies[0] < np.log(2)
    assert_allclose(entropies[1], 0.4, atol=1e-8)
    assert_allclose(total, found.optimum.dual, atol=1e-5)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_slope_and_curvature_of_the_finite_dual(discount: float) -> None:
    mdp, alpha = random_terminal_mdp(5), np.array([0.3, 1.0, 0.1, 0.6])
    target = np.array([0.2, 0.5, 0.9, 0.0])
    point = tabular.finite_horizon_dual(mdp, alpha, target, discount)
    slope = difference(lambda x: tabular.finite_horizon_dual(mdp, x, target, discount).dual, alpha, 1e-5)
    curvature = difference(lambda x: tabular.finite_horizon_dual(mdp, x, target, discount).gradient, alpha, 1e-5)
    assert_allclose(point.gradient, slope, atol=1e-8)
    assert_allclose(point.curvature, curvature, atol=1e-7)
    assert_allclose(point.gradient, point.weight * (point.entropy - target), atol=1e-12)
    assert np.linalg.eigvalsh(point.curvature).min() > -1e-12
    assert_allclose(finite_return(mdp, point.policy, discount)[1], point.entropy, atol=1e-12)


def test_a_long_horizon_is_the_discounted_problem() -> None:
    mdp, steps = tabular.random_mdp(4, 3, discount=0.8, seed=3), 120
    finite = tabular.finite_horizon_dual(mdp, np.full(steps, 0.5), 0.0)
    stationary = tabular.soft_policy_iteration(mdp, 0.5)
    assert_allclose(finite.value[0], stationary.value, atol=1e-9)
    assert_allclose(finite.policy[0], stationary.policy, atol=1e-9)


def test_steps_that_no_episode_reaches_have_no_entropy() -> None:
    moves = np.eye(3)[[1, 2, 2]]
    mdp = MDP(np.stack([moves, moves], 1), [[1, 0], [0, 2], [0, 0]], 1.0, [1, 0, 0], np.arange(3) == 2)
    found = tabular.entropy_constrained_finite_horizon(mdp, 4, 0.5).optimum
    assert_allclose(found.entropy[:2], 0.5, atol=1e-8)
    assert np.isnan(found.entropy[2:]).all() and not found.weight[2:].any()


# --- soft Q-learning is policy gradient ---------------------------------------------------------------------


@pytest.fixture
def learner() -> tuple[MDP, np.ndarray, np.ndarray, float]:
    """A problem, a Q table that is not a solution, targets that are not its own, a temperature."""
    mdp, rng = tabular.random_mdp(4, 3, seed=9), np.random.default_rng(9)
    return mdp, rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), 0.7


def test_the_gradient_of_soft_q_learning_is_a_policy_gradient(learner: Any) -> None:
    """arXiv 1704.06440: ∇L_Q = -α·∇J + ∇L_V, for any targets and weights."""
    mdp, q, target, temperature = learner
    weight = tabular.state_occupancy(mdp, tabular.boltzmann_policy(q, temperature))
    of_q = tabular.soft_q_gradient(q, target, weight, temperature)
    of_policy = tabular.policy_gradient(q, target, weight, temperature)
    of_value = tabular.value_gradient(q, target, weight, temperature)
    assert_allclose(of_q, -temperature * of_policy + of_value, atol=1e-13)
    assert min(np.abs(of_policy).max(), np.abs(of_value).max()) > 0.1  # neither term is idle


def test_each_gradient_is_that_of_its_loss(learner: Any) -> None:
    mdp, q, target, temperature = learner
    weight = np.array([0.4, 1.0, 2.0, 0.1])
    held = tabular.boltzmann_policy(q, temperature)
    goal = (held * target).sum(1) + temperature * tabular.entropy(held)

    def soft_q_loss(q: np.ndarray) -> float:
        return float(weight @ (held * 0.5 * (q - target) ** 2).sum(1))

    def objective(q: np.ndarray) -> float:
        policy = tabular.boltzmann_policy(q, temperature)
        return float(weight @ ((policy * target).sum(1) + temperature * tabular.entropy(policy)))

    def value_loss(q: np.ndarray) -> float:
        return float(weight @ (0.5 * (tabular.log_partition(q, temperature) - goal) ** 2))

    for gradient, loss in (
        (tabular.soft_q_gradient, soft_q_loss),
        (tabular.policy_gradient, objective),
        (tabular.value_gradient, value_loss),
    ):
        assert_allclose(gradient(q, target, weight, temperature), difference(loss, q, 1e-5), atol=1e-8)


def test_the_policy_gradient_is_that_of_the_soft_return(learner: Any) -> None:
    """With the policy's own soft Q as target and its visits as weights: the policy gradient theorem."""
    mdp, q, _, temperature = learner
    policy = tabular.boltzmann_policy(q, temperature)
    own = tabular.soft_policy_evaluation(mdp, policy, temperature)

    def soft_return(q: np.ndarray) -> float:
        policy = tabular.boltzmann_policy(q, temperature)
        return float(mdp.initial @ tabular.soft_policy_evaluation(mdp, policy, temperature).value)

    found = tabular.policy_gradient(q, own.q, tabular.state_occupancy(mdp, policy), temperature)
    assert_allclose(found, difference(soft_return, q, 1e-5), atol=1e-7)
    best = tabular.soft_policy_iteration(mdp, temperature)
    at_best = tabular.policy_gradient(best.q, best.q, tabular.state_occupancy(mdp, best.policy), temperature)
    assert_allclose(at_best, 0, atol=1e-8)


# --- builders -----------------------------------------------------------------------------------------------


def test_two_passages() -> None:
    """12 steps through the upper passage, 14 if it is blocked; a warm policy uses both."""
    start, upper, lower = 3 * 9, 1 * 9 + 4, 6 * 9 + 4
    for blocked, steps in ((False, 12), (True, 14)):
        value = tabular.zero_temperature(tabular.two_passages(blocked=blocked)).value[start]
        assert_allclose(value, -(1 - 0.99**steps) / 0.01, atol=1e-9)
    mdp = tabular.two_passages()
    greedy = tabular.state_occupancy(mdp, tabular.zero_temperature(mdp).policy)
    warm = tabular.state_occupancy(mdp, tabular.soft_policy_iteration(mdp, 0.5).policy)
    assert greedy[upper] > 0.5 and greedy[lower] == 0
    assert warm[upper] > warm[lower] > 0.1
    closed = tabular.two_passages(blocked=True)
    assert tabular.state_occupancy(closed, tabular.uniform_policy(closed))[upper] == 0


def test_chain_and_slip() -> None:
    assert_allclose(tabular.zero_temperature(tabular.chain(5, 0.9)).value, [0.9**3, 0.9**2, 0.9, 1, 0], atol=1e-12)
    slipping = tabular.chain(3, slip=0.25)
    assert_allclose(
        slipping.transition[1],
        [
            [0.75, 0, 0.25],
            [0.25, 0, 0.75],
        ],
    )
    assert_allclose(slipping.reward, [[0, 0], [0.25, 0.75], [0, 0]])
    grid = tabular.gridworld(["S.G"], slip=0.3, goal_reward=10)
    assert_allclose(grid.transition[1, 1], [0.1, 0.2, 0.7])  # right; up and down bump into the edge
    assert_allclose(grid.reward[1, 1], -1 + 0.7 * 10)


def test_random_mdps_are_functions_of_their_seed() -> None:
    same, again, other = (tabular.random_mdp(3, 2, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(same.transition, again.transition)
    assert not np.array_equal(same.reward, other.reward)


def test_the_example_of_the_theory_page_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "theory.md").read_text(encoding="utf-8")
    code, printed = (page.split(fence)[1].split("```")[0] for fence in ("```python\n", "```text\n"))
    exec(code, {})
    assert capsys.readouterr().out == printed and "True" in printed


# --- bad input ----------------------------------------------------------------------------------------------


def test_arrays_are_copies_that_cannot_change() -> None:
    reward = np.zeros((1, 2))
    mdp = MDP(np.ones((1, 2, 1)), reward, 0.9, np.ones(1))
    reward[0, 0] = 5
    assert mdp.reward[0, 0] == 0
    for array in (mdp.transition, mdp.reward, mdp.initial, mdp.terminal):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


def test_single_precision_rows_are_taken_and_rescaled() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(50), (50, 2)).astype(np.float32)
    mdp = MDP(rows, np.zeros((50, 2)), 0.9, np.full(50, 0.02, np.float32))
    assert np.abs(rows.astype(np.float64).sum(-1) - 1).max() > 1e-9
    assert_allclose(mdp.transition.sum(-1), 1, rtol=1e-15)


def two_states(**changes: Any) -> dict[str, Any]:
    """State 1 is terminal; action 0 of state 0 stays, action 1 ends the episode."""
    good = {
        "transition": np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        "reward": np.array([[0.0, 1.0], [0.0, 0.0]]),
        "discount": 0.9,
        "initial": np.array([1.0, 0.0]),
        "terminal": np.array([False, True]),
    }
    for entry, value in changes.items():
        name, _, index = entry.partition("_at_")
        if index:
            good[name][tuple(map(int, index.split("_")))] = value
        else:
            good[name] = value
    return good


BAD_MDPS = [
    ({"transition_at_0_1_1": 0.9}, r"transition\[0, 1\] sums to 0.9"),
    ({"transition_at_0_0_1": -0.1}, r"transition\[0, 0, 1\] is -0.1"),
    ({"transition_at_0_0_1": np.nan}, r"transition\[0, 0, 1\] is nan"),
    ({"transition": np.ones((2, 2))}, r"transition has shape \(2, 2\)"),
    ({"transition": np.ones((2, 0, 2))}, r"transition has shape \(2, 0, 2\)"),
    ({"transition": [[[1.0, 0.0]], [[1.0]]]}, "transition is not an array of real numbers"),
    ({"reward_at_0_1": np.inf}, r"reward\[0, 1\] is inf"),
    ({"reward": np.zeros((2, 3))}, r"reward has shape \(2, 3\); expected \(2, 2\)"),
    ({"reward_at_1_0": 2.0}, r"reward\[1, 0\] is 2, but state 1 is terminal"),
    ({"transition_at_1_0": np.array([1.0, 0.0])}, r"transition\[1, 0, 1\] is 0, but state 1 is terminal"),
    ({"initial": np.array([0.5, 0.4])}, r"initial sums to 0.9"),
    ({"initial": np.array([0.5, 0.5])}, r"initial\[1\] is 0.5, but state 1 is terminal"),
    ({"initial": np.ones(1)}, r"initial has shape \(1,\)"),
    ({"terminal": np.array([0, 1])}, "terminal has dtype int64"),
    ({"terminal": np.array([True])}, r"terminal has dtype bool and shape \(1,\)"),
    ({"discount": 1.01}, "discount is 1.01"),
    ({"discount": -0.1}, "discount is -0.1"),
    ({"discount": np.nan}, "discount is nan"),
    ({"discount": "much"}, "discount is not an array of real numbers"),
    ({"discount": 1}, r"discount is 1, but from state 0 \(action 0\) an episode can go on for ever"),
    ({"discount": 1, "terminal": np.array([False, False])}, "discount is 1, but from state 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_MDPS, ids=[message for _, message in BAD_MDPS])
def test_a_bad_mdp_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    MDP(**two_states())
    with pytest.raises(ConfigError, match=message) as caught:
        MDP(**two_states(**changes))
    assert "\n" not in str(caught.value)


GOOD = tabular.random_mdp(3, 2)
BAD_CALLS: list[tuple[Callable[[], Any], str]] = [
    *(
        (lambda f=f, t=t: f(GOOD, t), f"temperature is {t}")
        for f in (tabular.soft_value_iterates, tabular.soft_policy_iterates, tabular.soft_value_iteration)
        for t in (0, -1, np.nan, np.inf)
    ),
    (lambda: tabular.log_partition([1.0, 2.0], 0.0), "temperature is 0.0"),
    (lambda: tabular.boltzmann_policy([1.0, np.nan], 1.0), r"q\[1\] is nan"),
    (lambda: tabular.soft_value_iteration(GOOD, [1.0, 2.0]), r"temperature has shape \(2,\)"),
    (lambda: tabular.soft_policy_evaluation(GOOD, np.ones((3, 2)), 1.0), r"policy\[0\] sums to 2"),
    (lambda: tabular.soft_policy_evaluation(GOOD, np.ones((2, 3)), 1.0), r"policy has shape \(2, 3\)"),
    (lambda: tabular.soft_policy_evaluation_iterates(GOOD, -np.ones((3, 2)), 1.0), r"policy\[0, 0\] is -1"),
    (lambda: tabular.soft_value_iterates(GOOD, 1.0, [0.0]), r"value has shape \(1,\)"),
    (lambda: tabular.soft_value_iteration(GOOD, 1.0, tolerance=0.0), "tolerance is 0.0"),
    (lambda: tabular.entropy_constrained(GOOD, np.log(2)), "target_entropy is 0.69"),
    (lambda: tabular.entropy_constrained(GOOD, -1.0), "target_entropy is -1.0"),
    (lambda: tabular.entropy_constrained_finite_horizon(GOOD, 2, [0.1, 0.9]), r"target_entropy\[1\] is 0.9"),
    (
        lambda: tabular.entropy_constrained_finite_horizon(GOOD, 2, [0.1] * 3),
        r"target_entropy has shape \(3,\)",
    ),
    (lambda: tabular.entropy_constrained_finite_horizon(GOOD, 0, 0.1), "steps is 0"),
    (lambda: tabular.finite_horizon_dual(GOOD, [0.1, -0.2], 0.1), r"temperature\[1\] is -0.2"),
    (lambda: tabular.finite_horizon_dual(GOOD, [0.1], 0.1, discount=2.0), "discount is 2"),
    (
        lambda: tabular.policy_gradient(np.ones((3, 2)), np.ones(2), np.ones(3), 1.0),
        r"target has shape \(2,\)",
    ),
    (lambda: tabular.chain(1), "length is 1"),
    (lambda: tabular.chain(3, slip=1.5), "slip is 1.5"),
    (lambda: tabular.random_mdp(0, 2), "0 states"),
    (lambda: tabular.gridworld(["S.", "G"]), "layout is empty or its rows differ"),
    (lambda: tabular.gridworld(["S?G"]), r"layout has the characters \['\?'\]"),
    (lambda: tabular.gridworld(["..G"]), "layout has no start"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS, ids=[f"{i} {m}" for i, (_, m) in enumerate(BAD_CALLS)])
def test_a_bad_argument_is_refused_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_is_not_reached_is_an_error_and_what_float64_cannot_resolve_is_not() -> None:
    with pytest.raises(MaxentError, match="after 3 iterations the error can still be"):
        tabular.soft_value_iteration(GOOD, 1.0, max_iterations=3)
    with pytest.raises(MaxentError, match="after 1 iterations an entropy is"):
        tabular.entropy_constrained(GOOD, 0.1, max_iterations=1)
    large = replace(GOOD, reward=1e9 * GOOD.reward)
    by_value, by_policy = tabular.soft_value_iteration(large, 1e8), tabular.soft_policy_iteration(large, 1e8)
    assert_allclose(by_value.value, by_policy.value, rtol=1e-12)
