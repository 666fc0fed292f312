"""Soft Actor-Critic with a value network in NumPy float64, written from arXiv 1801.01290, gradients derived by hand.

It shares no line with the library. Random numbers are arguments.
"""

from dataclasses import dataclass, field

import numpy as np

from reference.sac_numpy import (
    Adam,
    Arrays,
    backward,
    critic_loss,
    features,
    forward,
    policy_head,
    squash,
    values,
)
from reference.sac_numpy import policy_loss as sac_policy_loss


@dataclass(frozen=True)
class Setting:
    """The numbers that the paper leaves to the user."""

    policy_rate: float
    critic_rate: float
    value_rate: float
    tau: float
    reward_scale: float
    regularization: float = 0.0
    target_interval: int = 1
    critics: int = 2
    activation: str = "relu"
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    max_grad_norm: float = 0.0
    decay_updates: int = 0
    normalize: bool = False


@dataclass
class Learner:
    """A policy, critics ("1/weight0", …), a value network and its target."""

    policy: Adam
    critics: Adam
    value: Adam
    target: Arrays
    seen: list[np.ndarray] = field(default_factory=list)


def value_loss(setting: Setting, value: Arrays, x: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray, Arrays]:
    """J_V = mean ½(V - wanted)² (eq. 5), V, and the gradient (eq. 6): ∇V (V - wanted) / n."""
    out, tape = forward(value, x, setting.activation)
    error = out[:, 0] - wanted
    gradient, _ = backward(value, tape, error[:, None] / len(x))
    return float(0.5 * (error**2).mean()), out[:, 0], gradient


def policy_loss(
    setting: Setting, policy: Arrays, critics: Arrays, x: np.ndarray, noise: np.ndarray
) -> tuple[float, np.ndarray, Arrays]:
    """J_π = mean(log π - min_i Q_i) (eq. 12) and the authors' penalty mean ½(μ² + log² σ); log π; the gradient."""
    loss, log_prob, gradient = sac_policy_loss(setting, policy, critics, 1.0, x, noise)
    mean, log_std, free, tape = policy_head(setting, policy, x)
    loss += setting.regularization * 0.5 * float((mean**2).mean() + (log_std**2).mean())
    d_out = setting.regularization * np.hstack([mean, free * log_std]) / mean.size
    penalty, _ = backward(policy, tape, d_out)
    return loss, log_prob, {name: g + penalty[name] for name, g in gradient.items()}


def update(
    setting: Setting, learner: Learner, batch: Arrays, noises: tuple[np.ndarray, np.ndarray], index: int
) -> tuple[dict[str, float], dict[str, Arrays]]:
    """V, Q, π, target of V (algorithm 1): changes the learner; metrics and gradients."""
    decay = max(1 - index / setting.decay_updates, 0) if setting.decay_updates else 1.0
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])

    mean, log_std, _, _ = policy_head(setting, learner.policy.params, x)
    action, log_prob = squash(mean, log_std, noises[0])
    wanted = values(setting, learner.critics.params, x, action)[0].min(0) - log_prob
    loss_value, v, value_gradient = value_loss(setting, learner.value.params, x, wanted)
    learner.value.descend(value_gradient, decay * setting.value_rate, setting.max_grad_norm)

    next_value = forward(learner.target, next_x, setting.activation)[0][:, 0]
    y = setting.reward_scale * batch["reward"] + batch["discount"] * next_value
    critic_losses, q, critic_gradient = critic_loss(setting, learner.critics.params, x, batch["action"], y)
    learner.critics.descend(critic_gradient, decay * setting.critic_rate, setting.max_grad_norm)

    actor_loss, log_prob, policy_gradient = policy_loss(
        setting, learner.policy.params, learner.critics.params, x, noises[1]
    )
    learner.policy.descend(policy_gradient, decay * setting.policy_rate, setting.max_grad_norm)

    if (index + 1) % setting.target_interval == 0:
        for name, online in learner.value.params.items():
            learner.target[name] = (1 - setting.tau) * learner.target[name] + setting.tau * online
    metrics = {
        "critic_loss": critic_losses.sum(),
        "value_loss": loss_value,
        "actor_loss": actor_loss,
        "entropy": -log_prob.mean(),
        "q_mean": q.mean(),
        "q_std": q.std(),
        "target_q_mean": y.mean(),
        "value_mean": v.mean(),
    } | {f"critic_loss_{i}": loss for i, loss in enumerate(critic_losses)}
    return metrics, {"value": value_gradient, "critics": critic_gradient, "policy": policy_gradient}
