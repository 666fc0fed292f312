"""The gradient of soft Q-learning is that of a policy gradient method (arXiv 1704.06440), term by term.

A table Q parametrises both the policy π = exp((Q - V)/α) and its value V = α log Σ exp(Q/α). For any target
y(s, a) and weights w(s), and with actions drawn from π itself, which the left side does not differentiate
through,

    ∇ Σ_s w E_a~π[½(Q - y)²]  =  -α · ∇ Σ_s w (E_a~π[y] + α·H(π))  +  ∇ Σ_s w ½(V - V̂)²

where V̂ = E_a~π[y] + α·H(π), which the second term does not differentiate through. By the chain rule this
holds for every parametrisation of Q. All three functions take and give [..., actions], but weights [...].
"""

from numpy.typing import ArrayLike

from maxent.tabular.mdp import Array, check_numbers
from maxent.tabular.soft import boltzmann_policy, log_partition, soft_value


def soft_q_gradient(q: ArrayLike, target: ArrayLike, weight: ArrayLike, temperature: float) -> Array:
    """∇_Q Σ_s w(s) Σ_a π(a|s) ½(Q - y)², the sampling policy π held fixed: w·π·(Q - y)."""
    q, target, weight = _numbers(q, target, weight)
    return weight[..., None] * boltzmann_policy(q, temperature) * (q - target)


def policy_gradient(q: ArrayLike, target: ArrayLike, weight: ArrayLike, temperature: float) -> Array:
    """∇_Q Σ_s w(s) (E_a~π[y(s, a)] + α·H(π(·|s))) through the policy π = exp((Q - V)/α).

    With y the soft Q-function of π and w its `state_occupancy`, this is the gradient of π's soft return.
    """
    q, target, weight = _numbers(q, target, weight)
    policy = boltzmann_policy(q, temperature)
    log_policy = (q - log_partition(q, temperature)[..., None]) / temperature
    advantage = target - temperature * log_policy - soft_value(target, policy, temperature)[..., None]
    return weight[..., None] * policy * advantage / temperature


def value_gradient(q: ArrayLike, target: ArrayLike, weight: ArrayLike, temperature: float) -> Array:
    """∇_Q Σ_s w(s) ½(V(s) - V̂(s))² through V = α log Σ exp(Q/α), with V̂ = E_a~π[y] + α·H(π) held fixed."""
    q, target, weight = _numbers(q, target, weight)
    policy = boltzmann_policy(q, temperature)
    error = log_partition(q, temperature) - soft_value(target, policy, temperature)
    return (weight * error)[..., None] * policy


def _numbers(q: ArrayLike, target: ArrayLike, weight: ArrayLike) -> tuple[Array, Array, Array]:
    q = check_numbers("q", q)
    return q, check_numbers("target", target, q.shape), check_numbers("weight", weight, q.shape[:-1])
