"""Exact maximum-entropy control of finite problems given as arrays, in float64: the oracle of the tests.

`docs/theory.md` derives each equation beside the function that computes it.
"""

from maxent.tabular.builders import MOVES, TWO_PASSAGES, chain, gridworld, random_mdp, two_passages
from maxent.tabular.constrained import (
    Constrained,
    Dual,
    discounted_dual,
    entropy_constrained,
    entropy_constrained_finite_horizon,
    finite_horizon_dual,
)
from maxent.tabular.gradients import policy_gradient, soft_q_gradient, value_gradient
from maxent.tabular.mdp import MDP
from maxent.tabular.soft import (
    Solution,
    boltzmann_policy,
    entropy,
    expected_return,
    infinite_temperature,
    log_partition,
    q_with_entropy,
    soft_backup,
    soft_policy_evaluation,
    soft_policy_evaluation_iterates,
    soft_policy_improvement,
    soft_policy_iterates,
    soft_policy_iteration,
    soft_value,
    soft_value_iterates,
    soft_value_iteration,
    state_occupancy,
    uniform_policy,
    zero_temperature,
)

__all__ = [
    "MDP",
    "MOVES",
    "TWO_PASSAGES",
    "Constrained",
    "Dual",
    "Solution",
    "boltzmann_policy",
    "chain",
    "discounted_dual",
    "entropy",
    "entropy_constrained",
    "entropy_constrained_finite_horizon",
    "expected_return",
    "finite_horizon_dual",
    "gridworld",
    "infinite_temperature",
    "log_partition",
    "policy_gradient",
    "q_with_entropy",
    "random_mdp",
    "soft_backup",
    "soft_policy_evaluation",
    "soft_policy_evaluation_iterates",
    "soft_policy_improvement",
    "soft_policy_iterates",
    "soft_policy_iteration",
    "soft_q_gradient",
    "soft_value",
    "soft_value_iterates",
    "soft_value_iteration",
    "state_occupancy",
    "two_passages",
    "uniform_policy",
    "value_gradient",
    "zero_temperature",
]
