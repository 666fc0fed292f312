"""TD3, DDPG and the deterministic ablation of SAC in NumPy float64, each written from its paper by itself.

They share no line with the library: three updates, where it has one with settings. Gradients are derived by hand.
Random numbers are arguments.
"""

from dataclasses import dataclass, field

import numpy as np

from reference.sac_numpy import Adam, Arrays, backward, critic_loss, features, forward, member, values


@dataclass(frozen=True)
class Setting:
    """The numbers that the papers leave to the user."""

    policy_rate: float
    critic_rate: float
    tau: float
    critics: int
    activation: str = "relu"
    policy_delay: int = 2
    target_interval: int = 2
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    max_grad_norm: float = 0.0
    decay_updates: int = 0
    normalize: bool = False


@dataclass
class Learner:
    """A policy, critics ("1/weight0", …) and the targets of both."""

    policy: Adam
    critics: Adam
    target_policy: Arrays
    targets: Arrays
    seen: list[np.ndarray] = field(default_factory=list)
    actor_loss: float = 0.0
    """Of the policy's last update."""


def act(setting: Setting, policy: Arrays, x: np.ndarray) -> np.ndarray:
    """π(s) = tanh of the network."""
    return np.tanh(forward(policy, x, setting.activation)[0])


def policy_loss(
    setting: Setting, policy: Arrays, critics: Arrays, x: np.ndarray, smallest: bool
) -> tuple[float, Arrays]:
    """-mean Q(s, π(s)), Q the first critic or the smallest, and ∇_φ = ∇_a Q ∇_φ π (eq. 6 of arXiv 1509.02971)."""
    out, tape = forward(policy, x, setting.activation)
    action = np.tanh(out)
    q, tapes = values(setting, critics, x, action)
    chosen = q.argmin(0) if smallest else np.zeros(len(x), int)
    d_action = np.zeros_like(action)
    for i, critic_tape in enumerate(tapes):
        share = (chosen == i).astype(float)[:, None]
        d_action += backward(member(critics, i), critic_tape, share)[1][:, x.shape[1] :]
    gradient, _ = backward(policy, tape, -d_action * (1 - action**2) / len(x))
    return -float(q[chosen, np.arange(len(x))].mean()), gradient


def smooth(setting: Setting, action: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Noise of the given standard deviation, cut, and the sum cut to the box (algorithm 1 of arXiv 1802.09477)."""
    cut = np.minimum(np.maximum(setting.target_noise * noise, -setting.target_noise_clip), setting.target_noise_clip)
    return np.minimum(np.maximum(action + cut, -1), 1)


def move(target: Arrays, online: Arrays, tau: float) -> None:
    for name, x in online.items():
        target[name] = (1 - tau) * target[name] + tau * x


def td3(setting: Setting, learner: Learner, batch: Arrays, noise: np.ndarray, index: int) -> tuple[dict, dict]:
    """Algorithm 1 of arXiv 1802.09477; index counts from 0, the paper's t from 1."""
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])
    next_action = smooth(setting, act(setting, learner.target_policy, next_x), noise)
    next_value = values(setting, learner.targets, next_x, next_action)[0].min(0)
    metrics, gradients = descend_critics(setting, learner, batch, x, next_value, index)
    if (index + 1) % setting.policy_delay == 0:
        gradients["policy"] = descend_policy(setting, learner, x, False, index)
        move(learner.targets, learner.critics.params, setting.tau)
        move(learner.target_policy, learner.policy.params, setting.tau)
    return metrics | {"actor_loss": learner.actor_loss}, gradients


def ddpg(setting: Setting, learner: Learner, batch: Arrays, noise: np.ndarray, index: int) -> tuple[dict, dict]:
    """Algorithm 1 of arXiv 1509.02971: one critic."""
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])
    next_action = act(setting, learner.target_policy, next_x)
    next_value = values(setting, learner.targets, next_x, next_action)[0][0]
    metrics, gradients = descend_critics(setting, learner, batch, x, next_value, index)
    gradients["policy"] = descend_policy(setting, learner, x, False, index)
    move(learner.targets, learner.critics.params, setting.tau)
    move(learner.target_policy, learner.policy.params, setting.tau)
    return metrics | {"actor_loss": learner.actor_loss}, gradients


def ablation(setting: Setting, learner: Learner, batch: Arrays, noise: np.ndarray, index: int) -> tuple[dict, dict]:
    """Section 5.2 of arXiv 1801.01290: no target policy, the smallest critic for both, targets move now and then."""
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])
    next_action = act(setting, learner.policy.params, next_x)
    next_value = values(setting, learner.targets, next_x, next_action)[0].min(0)
    metrics, gradients = descend_critics(setting, learner, batch, x, next_value, index)
    gradients["policy"] = descend_policy(setting, learner, x, True, index)
    if (index + 1) % setting.target_interval == 0:
        move(learner.targets, learner.critics.params, setting.tau)
    return metrics | {"actor_loss": learner.actor_loss}, gradients


def descend_critics(
    setting: Setting, learner: Learner, batch: Arrays, x: np.ndarray, next_value: np.ndarray, index: int
) -> tuple[dict, dict]:
    """Towards y = r + γ·next_value; metrics and the gradient."""
    y = batch["reward"] + batch["discount"] * next_value
    losses, q, gradient = critic_loss(setting, learner.critics.params, x, batch["action"], y)
    learner.critics.descend(gradient, decay(setting, index) * setting.critic_rate, setting.max_grad_norm)
    metrics = {"critic_loss": losses.sum(), "q_mean": q.mean(), "q_std": q.std(), "target_q_mean": y.mean()}
    return metrics | {f"critic_loss_{i}": loss for i, loss in enumerate(losses)}, {"critics": gradient}


def descend_policy(setting: Setting, learner: Learner, x: np.ndarray, smallest: bool, index: int) -> Arrays:
    """Up the critics that were just updated; the gradient."""
    loss, gradient = policy_loss(setting, learner.policy.params, learner.critics.params, x, smallest)
    learner.actor_loss = loss
    learner.policy.descend(gradient, decay(setting, index) * setting.policy_rate, setting.max_grad_norm)
    return gradient


def decay(setting: Setting, index: int) -> float:
    return max(1 - index / setting.decay_updates, 0) if setting.decay_updates else 1.0
