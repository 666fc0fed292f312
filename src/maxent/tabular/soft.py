"""The soft Bellman equations, and the two classical ways to solve them.

With the temperature α, the entropy H(π(·|s)) = -Σ_a π(a|s) log π(a|s) in nats, and V = 0 at terminal states:

    Q(s, a) = r(s, a) + γ·E_s'[V(s')]                              soft_backup
    V^π(s)  = E_a~π[Q^π(s, a)] + α·H(π(·|s))                       soft_value
    V*(s)   = α log Σ_a exp(Q*(s, a)/α)                            log_partition
    π*(a|s) = exp((Q*(s, a) - V*(s))/α)                            boltzmann_policy

Q leaves out the entropy of the step it is about, as the papers do; `q_with_entropy` is the other convention.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from maxent.errors import ConfigError, MaxentError
from maxent.tabular.mdp import MDP, Array, check_distribution, check_numbers, check_temperature

ROUNDING = 16 * np.finfo(np.float64).eps
"""A change in V by this share of its largest entry is rounding: iterating would not make it smaller."""


class Solution(NamedTuple):
    """A policy with its soft values, and how far these can be from what is being computed."""

    policy: Array
    """π(a|s), [states, actions]; uniform at terminal states, where nobody acts."""
    q: Array
    """Q(s, a), [states, actions], in units of reward, without the entropy of the action itself."""
    value: Array
    """V(s), [states], in units of reward; 0 at terminal states."""
    error_bound: float
    """No entry of `q` or `value` is further than this from the limit of the iteration (but for rounding)."""


def entropy(policy: ArrayLike) -> Array:
    """H(π(·|s)) in nats, for probabilities along the last axis [..., actions] → [...]; 0·log 0 is 0."""
    p = check_distribution("policy", policy, np.shape(policy))
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), -1)


def log_partition(q: ArrayLike, temperature: float) -> Array:
    """α log Σ_a exp(Q(s, a)/α), [..., actions] → [...]: the soft-optimal V (arXiv 1702.08165, eq. 5)."""
    q, temperature = check_numbers("q", q), check_temperature(temperature)
    best = q.max(-1)
    with np.errstate(over="ignore"):  # a gap of more than 1e308 temperatures is an action never taken
        return best + temperature * np.log(np.exp((q - best[..., None]) / temperature).sum(-1))


def boltzmann_policy(q: ArrayLike, temperature: float) -> Array:
    """The energy-based policy π(a|s) ∝ exp(Q(s, a)/α), [..., actions] (arXiv 1702.08165, eq. 6)."""
    q, temperature = check_numbers("q", q), check_temperature(temperature)
    with np.errstate(over="ignore"):
        weight = np.exp((q - q.max(-1, keepdims=True)) / temperature)
    return weight / weight.sum(-1, keepdims=True)


def soft_backup(mdp: MDP, value: ArrayLike) -> Array:
    """r(s, a) + γ·E_s'[V(s')], [states, actions], with V = 0 at terminal states (arXiv 1702.08165, eq. 7)."""
    value = check_numbers("value", value, (mdp.num_states,))
    return mdp.reward + mdp.continuation @ value


def soft_value(q: ArrayLike, policy: ArrayLike, temperature: float) -> Array:
    """E_a~π[Q(s, a) - α log π(a|s)], [..., actions] → [...] (arXiv 1801.01290, eq. 3)."""
    q, p = check_numbers("q", q), np.asarray(policy, np.float64)
    return (p * q).sum(-1) + check_temperature(temperature) * entropy(p)


def q_with_entropy(q: ArrayLike, policy: ArrayLike, temperature: float) -> Array:
    """Q(s, a) + α·H(π(·|s)), [..., actions]: the ordinary Q-function of the reward r(s, a) + α·H(π(·|s)).

    The shift does not depend on the action, so both conventions have the same Boltzmann policy. It has no
    meaning at terminal states.
    """
    return check_numbers("q", q) + check_temperature(temperature) * entropy(policy)[..., None]


def uniform_policy(mdp: MDP) -> Array:
    """Every action equally likely, [states, actions]."""
    return np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)


def soft_value_iterates(mdp: MDP, temperature: float, value: ArrayLike | None = None) -> Iterator[Solution]:
    """Soft value iteration, step by step, without end: Q ← r + γ·E[V], V ← α log Σ exp(Q/α).

    It starts from `value` or 0. Theorem 3 of arXiv 1702.08165, "soft Q-iteration", for finite actions.
    `error_bound` is the distance to the optimum.
    """
    temperature = check_temperature(temperature)
    return _value_iterates(mdp, value, lambda q: (boltzmann_policy(q, temperature), log_partition(q, temperature)))


def soft_value_iteration(
    mdp: MDP, temperature: float, tolerance: float = 1e-10, max_iterations: int = 1_000_000
) -> Solution:
    """The soft-optimal policy and its values, by iterating the backup until `error_bound` says it is there.

    `tolerance` is in units of reward; one that float64 cannot resolve means as near as it can. Raises
    `MaxentError` where `max_iterations` do not get there.
    """
    return _until(mdp, soft_value_iterates(mdp, temperature), tolerance, max_iterations)


def soft_policy_evaluation(mdp: MDP, policy: ArrayLike, temperature: float) -> Solution:
    """The soft values of a policy [states, actions], from the linear system V = E_π[r] + α·H(π) + γ·P_π·V.

    The fixed point of eq. 2 of arXiv 1801.01290; `error_bound` comes from its residual.
    """
    policy = check_distribution("policy", policy, mdp.reward.shape)
    bonus = np.where(mdp.terminal, 0.0, soft_value(mdp.reward, policy, temperature))
    moves = np.einsum("sa,sat->st", policy, mdp.continuation)
    value = np.linalg.solve(np.eye(mdp.num_states) - moves, bonus)
    q = soft_backup(mdp, value)
    residual = np.where(mdp.terminal, 0.0, soft_value(q, policy, temperature)) - value
    return Solution(policy, q, value, _error_bound(mdp, residual))


def soft_policy_evaluation_iterates(
    mdp: MDP, policy: ArrayLike, temperature: float, value: ArrayLike | None = None
) -> Iterator[Solution]:
    """Iterative soft policy evaluation, without end: Q ← r + γ·E[V], V ← E_π[Q] + α·H(π).

    It starts from `value` or 0. Lemma 1 of arXiv 1801.01290; `error_bound` is the distance to what
    `soft_policy_evaluation` returns.
    """
    policy = check_distribution("policy", policy, mdp.reward.shape)
    temperature = check_temperature(temperature)
    return _value_iterates(mdp, value, lambda q: (policy, soft_value(q, policy, temperature)))


def soft_policy_improvement(mdp: MDP, policy: ArrayLike, temperature: float) -> Array:
    """argmin_π' KL(π'(·|s) ‖ exp(Q^π(s, ·)/α)/Z(s)) = the Boltzmann policy of Q^π, [states, actions].

    Eq. 4 of arXiv 1801.01290 with every policy allowed; no state's value is lower than before (its lemma 2).
    """
    return boltzmann_policy(soft_policy_evaluation(mdp, policy, temperature).q, temperature)


def soft_policy_iterates(mdp: MDP, temperature: float, policy: ArrayLike | None = None) -> Iterator[Solution]:
    """Soft policy iteration step by step, without end, from `policy` or the uniform one.

    Each item is a policy with its own soft values; the next one improves on it. `error_bound` is the distance
    of these values to the optimum's, from ‖T V^π - V^π‖ with T the optimal soft backup.
    """
    temperature = check_temperature(temperature)
    start = check_distribution("policy", uniform_policy(mdp) if policy is None else policy, mdp.reward.shape)

    def iterates(policy: Array) -> Iterator[Solution]:
        while True:
            solution = soft_policy_evaluation(mdp, policy, temperature)
            gain = np.where(mdp.terminal, 0.0, log_partition(solution.q, temperature)) - solution.value
            yield solution._replace(error_bound=_error_bound(mdp, gain))
            policy = boltzmann_policy(solution.q, temperature)

    return iterates(start)


def soft_policy_iteration(
    mdp: MDP, temperature: float, tolerance: float = 1e-10, max_iterations: int = 1000
) -> Solution:
    """The soft-optimal policy and its values, by evaluation and improvement in turn.

    Theorem 1 of arXiv 1801.01290. `tolerance` and errors as in `soft_value_iteration`, with which it agrees.
    """
    found = _until(mdp, soft_policy_iterates(mdp, temperature), tolerance, max_iterations)
    # The values' error is of second order in the policy's: one more step makes it as exact as they are.
    return next(soft_policy_iterates(mdp, temperature, boltzmann_policy(found.q, temperature)))


def zero_temperature(mdp: MDP, tolerance: float = 1e-10, max_iterations: int = 1_000_000) -> Solution:
    """The limit α → 0: ordinary value iteration and a greedy policy (of equally good actions the first).

    For every α > 0 and s, V*(s) ≤ V*_α(s) ≤ V*(s) + α·log(actions)·h(s), h being `mdp.horizon`.
    """
    actions = np.eye(mdp.num_actions)
    iterates = _value_iterates(mdp, None, lambda q: (actions[q.argmax(-1)], q.max(-1)))
    return _until(mdp, iterates, tolerance, max_iterations)


def infinite_temperature(mdp: MDP, tolerance: float = 1e-10, max_iterations: int = 1000) -> Solution:
    """The limit α → ∞: the policy of most discounted entropy; values are V/α and Q/α, in nats.

    It is the uniform policy where nothing is terminal. Where episodes end it prefers to go on, since an ended
    one earns no more entropy. For every α and s, |V*_α(s)/α - V_∞(s)| ≤ max|r|·h(s)/α.
    """
    unpaid = replace(mdp, reward=np.zeros_like(mdp.reward))
    return soft_policy_iteration(unpaid, 1.0, tolerance, max_iterations)


def state_occupancy(mdp: MDP, policy: ArrayLike) -> Array:
    """Σ_t γ^t·P(s_t = s, not ended), [states]. Its sum is the expected discounted number of steps.

    Divided by that sum it is the discounted state distribution.
    """
    policy = check_distribution("policy", policy, mdp.reward.shape)
    moves = np.einsum("sa,sat->st", policy, mdp.continuation)
    return np.linalg.solve(np.eye(mdp.num_states) - moves.T, mdp.initial)


def expected_return(mdp: MDP, policy: ArrayLike) -> float:
    """E[Σ_t γ^t r(s_t, a_t)] from the initial distribution: the ordinary return, without entropy."""
    return float(state_occupancy(mdp, policy) @ (np.asarray(policy) * mdp.reward).sum(-1))


def _value_iterates(
    mdp: MDP, value: ArrayLike | None, summarise: Callable[[Array], tuple[Array, Array]]
) -> Iterator[Solution]:
    start = check_numbers("value", np.zeros(mdp.num_states) if value is None else value, (mdp.num_states,))
    modulus = 1 - 1 / float(mdp.horizon.max())

    def iterates(value: Array) -> Iterator[Solution]:
        while True:
            q = soft_backup(mdp, value)
            policy, backed_up = summarise(q)
            backed_up = np.where(mdp.terminal, 0.0, backed_up)
            yield Solution(policy, q, backed_up, modulus * _error_bound(mdp, backed_up - value))
            value = backed_up

    return iterates(np.where(mdp.terminal, 0.0, start))


def _error_bound(mdp: MDP, residual: Array) -> float:
    """How far V can be from the fixed point of T, given residual = T V - V; T V is nearer by the modulus.

    ‖V - V*‖ ≤ ‖T V - V‖/(1 - modulus) in the norm of `MDP.horizon`, whose 1/(1 - modulus) is max(h).
    """
    alive = ~mdp.terminal
    return float(mdp.horizon.max() ** 2 * (np.abs(residual[alive]) / mdp.horizon[alive]).max())


def _until(mdp: MDP, iterates: Iterator[Solution], tolerance: float, max_iterations: int) -> Solution:
    if not tolerance > 0 or max_iterations < 1:
        found = f"tolerance is {tolerance} and max_iterations {max_iterations}"
        raise ConfigError(f"{found}; both must be positive")
    for solution in islice(iterates, max_iterations):
        resolution = ROUNDING * np.abs(solution.value).max() * np.ones(mdp.num_states)
        if solution.error_bound <= max(tolerance, _error_bound(mdp, resolution)):
            return solution
    found = f"after {max_iterations} iterations the error can still be {solution.error_bound:.3g}"
    raise MaxentError(f"{found}; raise max_iterations or the tolerance of {tolerance:g}")
