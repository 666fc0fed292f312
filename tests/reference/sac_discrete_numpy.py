"""SAC for discrete actions in NumPy float64, written from arXiv 1910.07207, with every gradient derived by hand.

It shares no line with the library. Actions are numbers; networks, Adam and features are those of `sac_numpy`.
"""

from dataclasses import dataclass

import numpy as np

from reference import sac_numpy
from reference.sac_numpy import Arrays, Learner, Tape, backward, features, forward, member


@dataclass(frozen=True)
class Setting(sac_numpy.Setting):
    """What the paper leaves to the user, and what later papers add."""

    entropy_in_target: bool = True
    average: bool = False
    q_clip: float = 0.0


def policy_head(setting: Setting, policy: Arrays, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tape]:
    """π(a|s) and log π(a|s), [batch, actions], and the tape."""
    out, tape = forward(policy, x, setting.activation)
    weight = np.exp(out - out.max(-1, keepdims=True))
    policy_ = weight / weight.sum(-1, keepdims=True)
    return policy_, np.log(policy_), tape


def values(setting: Setting, ensemble: Arrays, x: np.ndarray) -> tuple[np.ndarray, list[Tape]]:
    """Q_i(s, a), [critic, batch, actions], and the tapes."""
    passes = [forward(member(ensemble, i), x, setting.activation) for i in range(setting.critics)]
    return np.stack([out for out, _ in passes]), [tape for _, tape in passes]


def believed(setting: Setting, q: np.ndarray) -> np.ndarray:
    """The smallest of the critics' values, or their mean."""
    return q.mean(0) if setting.average else q.min(0)


def target_values(
    setting: Setting, learner: Learner, reward: np.ndarray, discount: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """y = r + γ (E_π[min_i Q̄_i(s', ·)] + α H(π(·|s'))) (eq. 10)."""
    policy, log_policy, _ = policy_head(setting, learner.policy.params, x)
    q = believed(setting, values(setting, learner.targets, x)[0])
    entropy = -(policy * log_policy).sum(-1)
    temperature = np.exp(learner.temperature.params["log"]) if setting.entropy_in_target else 0.0
    return reward + discount * ((policy * q).sum(-1) + temperature * entropy)


def critic_loss(
    setting: Setting, critics: Arrays, targets: Arrays, x: np.ndarray, action: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """Each J_Q, the values, and the gradient: dJ/dQ(s, a) = (Q(s, a) - y) / n at the action taken, else 0.

    With a clip c (arXiv 2209.10081, eq. 10) the larger of (Q - y)² and (Q̄ + clip(Q - Q̄, ±c) - y)²; the second has no
    slope where it is cut, and is the first elsewhere.
    """
    everything, tapes = values(setting, critics, x)
    rows = np.arange(len(y))
    q = everything[:, rows, action]
    errors, slopes = (q - y) ** 2, q - y
    if setting.q_clip:
        anchor = values(setting, targets, x)[0][:, rows, action]
        cut = anchor + np.clip(q - anchor, -setting.q_clip, setting.q_clip)
        cut_error = (cut - y) ** 2
        slopes = np.where(cut_error > errors, 0.0, slopes)
        errors = np.maximum(errors, cut_error)
    gradient: Arrays = {}
    for i, tape in enumerate(tapes):
        d_out = np.zeros_like(everything[i])
        d_out[rows, action] = slopes[i] / len(y)
        own, _ = backward(member(critics, i), tape, d_out)
        gradient |= {f"{i}/{name}": g for name, g in own.items()}
    return 0.5 * errors.mean(-1), q, gradient


def policy_loss(
    setting: Setting, policy: Arrays, critics: Arrays, temperature: float, x: np.ndarray
) -> tuple[float, np.ndarray, Arrays]:
    """J_π = mean Σ_a π (α log π - min_i Q_i) (eq. 12), the entropy [batch], and the gradient.

    With logits l: dJ/dl_b = π_b (α log π_b - Q_b - Σ_a π_a (α log π_a - Q_a)) / n, since Σ_a dπ_a/dl_b = 0.
    """
    pi, log_pi, tape = policy_head(setting, policy, x)
    cost = temperature * log_pi - believed(setting, values(setting, critics, x)[0])
    expected = (pi * cost).sum(-1, keepdims=True)
    gradient, _ = backward(policy, tape, pi * (cost - expected) / len(x))
    return float(expected.mean()), -(pi * log_pi).sum(-1), gradient


def temperature_loss(setting: Setting, log_temperature: float, entropy: np.ndarray) -> tuple[float, float]:
    """log α · mean(H - H̄) (eq. 11, stepped in log α), and its derivative."""
    slope = float((entropy - setting.target_entropy).mean())
    return log_temperature * slope, slope


def update(setting: Setting, learner: Learner, batch: Arrays, index: int) -> tuple[dict[str, float], dict[str, Arrays]]:
    """Critics, policy, temperature, target critics (algorithm 1): changes the learner; metrics and gradients."""
    decay = max(1 - index / setting.decay_updates, 0) if setting.decay_updates else 1.0
    temperature = float(np.exp(learner.temperature.params["log"]))
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])

    y = target_values(setting, learner, batch["reward"], batch["discount"], next_x)
    critic_losses, q, critic_gradient = critic_loss(
        setting, learner.critics.params, learner.targets, x, batch["action"].astype(int), y
    )
    learner.critics.descend(critic_gradient, decay * setting.critic_rate, setting.max_grad_norm)

    actor_loss, entropy, policy_gradient = policy_loss(
        setting, learner.policy.params, learner.critics.params, temperature, x
    )
    learner.policy.descend(policy_gradient, decay * setting.policy_rate, setting.max_grad_norm)

    gradients = {"critics": critic_gradient, "policy": policy_gradient}
    loss_temperature = 0.0
    if setting.learn_temperature:
        loss_temperature, slope = temperature_loss(setting, float(learner.temperature.params["log"]), entropy)
        gradients["temperature"] = {"log": np.array(slope)}
        learner.temperature.descend(gradients["temperature"], decay * setting.temperature_rate, setting.max_grad_norm)

    for name, online in learner.critics.params.items():
        learner.targets[name] = (1 - setting.tau) * learner.targets[name] + setting.tau * online
    metrics = {
        "critic_loss": critic_losses.sum(),
        "actor_loss": actor_loss,
        "temperature_loss": loss_temperature,
        "temperature": temperature,
        "entropy": entropy.mean(),
        "q_mean": q.mean(),
        "q_std": q.std(),
        "target_q_mean": y.mean(),
    } | {f"critic_loss_{i}": loss for i, loss in enumerate(critic_losses)}
    return metrics, gradients
