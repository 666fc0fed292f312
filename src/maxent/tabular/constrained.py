"""The most return at no less than a given entropy: the temperature is the price of that constraint.

    max_π E[Σ_t γ^t r(s_t, a_t)]   subject to   E[Σ_t γ^t (H(π(·|s_t)) - H̄)] ≥ 0

With a multiplier α ≥ 0 the inner maximum is soft control with the reward r - α·H̄, so the dual function is
g(α) = E[V(s_0)] with V(s) = α log Σ_a exp(Q(s, a)/α) - α·H̄. It is convex; its slope is the left side of the
constraint under the soft-optimal policy; and where the slope is 0, at g's minimum, that policy is the
solution. Section 5 of arXiv 1812.05905 has a finite horizon, and a constraint, and so a temperature, for
each of its steps.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxent.errors import ConfigError, MaxentError
from maxent.tabular.mdp import MDP, Array, check_numbers, check_temperature, is_count, refuse
from maxent.tabular.soft import (
    boltzmann_policy,
    entropy,
    log_partition,
    soft_backup,
    soft_policy_iteration,
    state_occupancy,
)

COLDEST = 1e-6
"""The lowest temperature tried, in spreads of the rewards. A constraint that is still met there is slack."""


class Dual(NamedTuple):
    """The dual function at one choice of temperatures; a finite horizon adds a leading axis [steps]."""

    temperature: Array
    """α, [] or [steps], in units of reward per nat."""
    dual: float
    """g(α), in units of reward: no policy that meets the constraints has a higher return."""
    entropy: Array
    """The mean entropy of the soft-optimal policy in nats over the states it visits, [] or [steps]."""
    weight: Array
    """The discounted number of steps which that is the mean of, [] or [steps]."""
    gradient: Array
    """∂g/∂α = weight · (entropy - target), [] or [steps]."""
    curvature: Array
    """∂²g/∂α², [] or [steps, steps]; positive semidefinite."""
    policy: Array
    """The soft-optimal policy, [(steps,) states, actions]."""
    q: Array
    """Q = r + γ·E[V], [(steps,) states, actions]."""
    value: Array
    """V = α log Σ exp(Q/α) - α·H̄, [(steps,) states]; 0 at terminal states."""


class Constrained(NamedTuple):
    """The solution of an entropy-constrained problem."""

    optimum: Dual
    """Where the constraints hold. Its `dual` is the policy's return itself, unless a constraint is slack."""
    slack: NDArray[np.bool_]
    """Where the target is met even at the lowest temperature, which then stands for 0, [] or [steps]."""
    history: tuple[Dual, ...]
    """Every accepted step, the start first and the optimum last; `dual` goes down."""


def discounted_dual(mdp: MDP, temperature: float, target_entropy: float) -> Dual:
    """g(α) for a constraint on the mean entropy under the discounted state distribution.

    Raises `ConfigError` unless the temperature is positive and the target in [0, log(actions)).
    """
    alpha, target = check_temperature(temperature), check_target(mdp, target_entropy, ())
    alive = ~mdp.terminal
    priced = replace(mdp, reward=np.where(alive[:, None], mdp.reward - alpha * target, 0.0))
    found = soft_policy_iteration(priced, alpha)
    policy, visits = found.policy, state_occupancy(mdp, found.policy)
    moves = np.einsum("sa,sat->st", policy, mdp.continuation)
    surplus = np.where(alive, entropy(policy) - target, 0.0)
    slope = np.linalg.solve(np.eye(mdp.num_states) - moves, surplus)  # ∂V/∂α
    swing = mdp.continuation @ slope - found.q / alpha  # α·∂(Q/α)/∂α
    swing -= (policy * swing).sum(-1, keepdims=True)
    return Dual(
        temperature=np.asarray(alpha),
        dual=float(mdp.initial @ found.value),
        entropy=np.asarray(visits @ entropy(policy) / visits.sum()),
        weight=np.asarray(visits.sum()),
        gradient=np.asarray(mdp.initial @ slope),
        curvature=np.asarray(visits @ (policy * swing**2).sum(-1) / alpha),
        policy=policy,
        q=soft_backup(mdp, found.value),
        value=found.value,
    )


def finite_horizon_dual(
    mdp: MDP, temperature: ArrayLike, target_entropy: ArrayLike, discount: float | None = None
) -> Dual:
    """g(α_0, α_1, …) for a constraint on the mean entropy of each step, solved backward in time.

    `temperature` is [steps]; `target_entropy` is [steps] or one for all; with 0, this is finite-horizon soft
    control. `discount` is by default the MDP's; it may be 1 here, as in the paper, since every episode ends.
    Raises `ConfigError` as `discounted_dual` does.
    """
    alpha = check_numbers("temperature", temperature)
    if alpha.ndim != 1 or not alpha.size:
        raise ConfigError(f"temperature has shape {alpha.shape}; expected one for each step, [steps]")
    refuse("temperature", alpha, alpha <= 0, "it must be positive")
    steps, alive = len(alpha), ~mdp.terminal
    target = check_target(mdp, target_entropy, (steps,))
    gamma = float(check_numbers("discount", mdp.discount if discount is None else discount, ()))
    if not 0 < gamma <= 1:
        raise ConfigError(f"discount is {gamma:g}; a finite horizon takes one in (0, 1]")
    moves = gamma * mdp.transition * alive[:, None, None] * alive

    q, policy, swing = (np.zeros((*lead, *mdp.reward.shape)) for lead in ((steps,), (steps,), (steps, steps)))
    value, slope = np.zeros((steps + 1, mdp.num_states)), np.zeros((steps, mdp.num_states))
    for t in reversed(range(steps)):
        q[t] = mdp.reward + moves @ value[t + 1]
        policy[t] = boltzmann_policy(q[t], alpha[t])
        value[t] = np.where(alive, log_partition(q[t], alpha[t]) - alpha[t] * target[t], 0.0)
        swing[t] = np.tensordot(slope, moves, (1, 2))  # ∂Q_t/∂α_k, [k, states, actions]
        slope = (policy[t] * swing[t]).sum(-1)  # ∂V_t/∂α_k, [k, states], and α_t itself:
        slope[t] += np.where(alive, entropy(policy[t]) - target[t], 0.0)
        swing[t, t] -= q[t] / alpha[t]
        swing[t] -= (policy[t] * swing[t]).sum(-1, keepdims=True)

    visits = np.zeros((steps, mdp.num_states))
    visits[0] = mdp.initial
    for t in range(1, steps):
        visits[t] = np.einsum("s,sa,sat->t", visits[t - 1], policy[t - 1], moves)
    weight = visits.sum(-1)
    flat = swing.transpose(1, 0, 2, 3).reshape(steps, -1)
    share = (visits[:, :, None] * policy / alpha[:, None, None]).ravel()
    with np.errstate(invalid="ignore"):  # the entropy of a step that no episode reaches is nan
        mean = (visits * entropy(policy)).sum(-1) / weight
    return Dual(
        temperature=alpha,
        dual=float(mdp.initial @ value[0]),
        entropy=mean,
        weight=weight,
        gradient=slope @ mdp.initial,
        curvature=(flat * share) @ flat.T,
        policy=policy,
        q=q,
        value=value[:-1],
    )


def entropy_constrained(
    mdp: MDP, target_entropy: float, tolerance: float = 1e-9, max_iterations: int = 500
) -> Constrained:
    """The best return with at least `target_entropy` nats under the discounted state distribution.

    Dual ascent on the temperature, until the entropy is within `tolerance` of the target. Raises
    `ConfigError` for a target outside [0, log(actions)) and `MaxentError` where `max_iterations` do not get
    there.
    """
    target = check_target(mdp, target_entropy, ())
    return _ascend(
        mdp,
        lambda alpha: discounted_dual(mdp, float(alpha), float(target)),
        target,
        tolerance,
        max_iterations,
    )


def entropy_constrained_finite_horizon(
    mdp: MDP,
    steps: int,
    target_entropy: ArrayLike,
    discount: float | None = None,
    tolerance: float = 1e-9,
    max_iterations: int = 500,
) -> Constrained:
    """The best return of `steps` steps with at least `target_entropy` nats in each, [steps] or one for all.

    Eq. 11 of arXiv 1812.05905, which finds the temperatures from the last step to the first, each given the
    states that the earlier policies visit. As those in turn depend on the later temperatures, here all are
    found together: dual ascent, each step of which is a sweep backward in time. Raises as
    `entropy_constrained` does.
    """
    if not is_count(steps):
        raise ConfigError(f"steps is {steps!r}; a finite horizon has a whole number of them, at least 1")
    target = check_target(mdp, target_entropy, (steps,))
    return _ascend(
        mdp,
        lambda alpha: finite_horizon_dual(mdp, alpha, target, discount),
        target,
        tolerance,
        max_iterations,
    )


def check_target(mdp: MDP, target_entropy: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The target as an array of `shape`. Raises `ConfigError` outside [0, log(actions))."""
    target = check_numbers("target_entropy", target_entropy)
    if target.shape not in ((), shape):
        raise ConfigError(f"target_entropy has shape {target.shape}; expected one number or {shape}")
    most = float(np.log(mdp.num_actions))
    expected = f"it must be in [0, {most:.6g}), below the entropy of {mdp.num_actions} equally likely actions"
    refuse("target_entropy", target, (target < 0) | (target >= most), expected)
    return np.broadcast_to(target, shape)


def _ascend(
    mdp: MDP, dual: Callable[[Array], Dual], target: Array, tolerance: float, max_iterations: int
) -> Constrained:
    """Minimise the convex g over log α with damped Newton steps; the damping falls as steps succeed."""
    if not tolerance > 0 or max_iterations < 1:
        found = f"tolerance is {tolerance} and max_iterations {max_iterations}"
        raise ConfigError(f"{found}; both must be positive")
    paid = mdp.reward[~mdp.terminal]
    spread = float(np.ptp(paid) or np.abs(paid).max() or 1.0)
    coldest, damping = COLDEST * spread, 1.0
    point = dual(np.full(target.shape, spread))
    history = [point]
    for _ in range(max_iterations):
        alpha = point.temperature
        gap = np.where(point.weight > 0, point.entropy - target, 0.0)
        slack = (alpha <= coldest) & (gap >= -tolerance)
        gap = np.where(slack, 0.0, gap)
        if np.all(np.abs(gap) <= tolerance):
            return Constrained(point, slack, tuple(history))
        free = np.atleast_1d(~slack & (point.weight > 0))
        pull = np.atleast_1d(alpha * point.gradient)[free]  # ∂g/∂log α
        bend = np.atleast_2d(alpha * point.curvature * alpha[..., None])[np.ix_(free, free)]
        ridge = damping * np.abs(gap).max() * np.atleast_1d(alpha * point.weight)[free]
        step = np.zeros(free.shape)
        step[free] = np.clip(-np.linalg.solve(bend + np.diag(ridge), pull), -2, 2)
        tried = dual(np.maximum(alpha * np.exp(step.reshape(alpha.shape)), coldest))
        rounding = 1e-12 * (abs(point.dual) + spread * point.weight.sum())
        if tried.dual <= point.dual + rounding:
            point, damping = tried, damping / 4
            history.append(point)
        else:
            damping *= 4
    found = f"after {max_iterations} iterations an entropy is {np.abs(gap).max():.3g} from its target"
    raise MaxentError(f"{found}; raise max_iterations or the tolerance of {tolerance:g}")
