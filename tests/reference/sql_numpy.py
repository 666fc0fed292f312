"""Soft Q-learning in NumPy float64, written from arXiv 1702.08165, with every gradient derived by hand.

It shares no line with the library; perceptrons, their derivatives and Adam are those of `sac_numpy`. Random numbers are
arguments. Loops run over states and particles, one at a time.
"""

from dataclasses import dataclass, field

import numpy as np

from reference.sac_numpy import Adam, Arrays, backward, forward, member


@dataclass(frozen=True)
class Setting:
    """The numbers that the paper leaves to the user."""

    sampler_rate: float
    critic_rate: float
    temperature: float
    tau: float
    interval: int
    updated: int
    kernel_scale: float
    space: str
    proposal_after: float
    critics: int = 1
    activation: str = "relu"
    max_grad_norm: float = 0.0
    decay_updates: int = 0
    steps: tuple[int, ...] = ()
    factor: float = 1.0
    normalize: bool = False


@dataclass
class Learner:
    """A sampler, critics ("1/weight0", …) and their targets."""

    sampler: Adam
    critics: Adam
    targets: Arrays
    seen: list[np.ndarray] = field(default_factory=list)
    """All observations so far, for their mean and variance."""


@dataclass(frozen=True)
class Draws:
    """One update's random numbers: [batch, particle, d] each."""

    uniform: np.ndarray
    proposal: np.ndarray
    sampler: np.ndarray


def features(setting: Setting, learner: Learner, obs: np.ndarray) -> np.ndarray:
    """What the networks see of an observation."""
    if not (setting.normalize and learner.seen):
        return obs
    seen = np.concatenate(learner.seen)
    return np.clip((obs - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-8), -10, 10)


def q_and_slope(setting: Setting, critics: Arrays, x: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """min_i Q_i(s, a) for one state and its actions [particle, d], and its derivative with respect to the actions."""
    given = np.hstack([np.tile(x, (len(action), 1)), action])
    passes = [forward(member(critics, i), given, setting.activation) for i in range(setting.critics)]
    q = np.stack([out[:, 0] for out, _ in passes])
    slope = np.zeros_like(action)
    for i, (_, tape) in enumerate(passes):
        smallest = (q.argmin(0) == i).astype(float)[:, None]
        slope += backward(member(critics, i), tape, smallest)[1][:, len(x) :]
    return q.min(0), slope


def sampler_density(setting: Setting, sampler: Arrays, x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, float]:
    """a = tanh(f(s, ξ)) and log p(ξ) - log|det ∂a/∂ξ| for one state and one ξ (appendix C.2)."""
    d = len(noise)
    out, tape = forward(sampler, np.hstack([x, noise])[None], setting.activation)
    action = np.tanh(out[0])
    rows = [backward(sampler, tape, np.eye(d)[j : j + 1])[1][0, len(x) :] for j in range(d)]
    jacobian = (1 - action**2)[:, None] * np.array(rows)
    log_det = max(np.log(max(abs(np.linalg.det(jacobian)), 1e-300)), -20.0)
    return action, -0.5 * noise @ noise - 0.5 * d * np.log(2 * np.pi) - log_det


def soft_value(setting: Setting, q: np.ndarray, log_density: np.ndarray) -> tuple[float, float]:
    """V = α log mean(exp(Q/α)/q) (eq. 10), and (Σw)² / (K Σw²)."""
    weight = np.exp(q / setting.temperature - log_density)
    return setting.temperature * np.log(weight.mean()), weight.sum() ** 2 / (len(q) * (weight**2).sum())


def stein_direction(fixed: np.ndarray, score: np.ndarray, at: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Δ at every point, one pair at a time, and the bandwidth (eq. 13 over α, appendices C.1 and D)."""
    count = len(fixed)
    squares = [((fixed[i] - fixed[j]) ** 2).sum() for i in range(count) for j in range(i)]
    h = max(scale * np.median(squares) / np.log(count + 1), 1e-3)
    delta = np.zeros_like(at)
    for j, y in enumerate(at):
        for x, s in zip(fixed, score):
            kernel = np.exp(-((x - y) ** 2).sum() / h)
            delta[j] += (kernel * s - 2 * (x - y) / h * kernel) / count
    return delta, h


def sampler_step(
    setting: Setting, sampler: Arrays, critics: Arrays, x: np.ndarray, noise: np.ndarray
) -> tuple[Arrays, dict[str, float]]:
    """The gradient of -mean(Δ·u) with Δ held fixed (eq. 14), and what is reported of it."""
    size, count, d = noise.shape
    tiled = np.concatenate([np.repeat(x[:, None], count, 1), noise], -1).reshape(size * count, -1)
    out, tape = forward(sampler, tiled, setting.activation)
    u = out.reshape(size, count, d)
    d_out, norms, widths, spreads = np.zeros_like(u), [], [], []
    for b in range(size):
        updated, fixed = np.split(u[b], [setting.updated])
        action = np.tanh(fixed)
        _, slope = q_and_slope(setting, critics, x[b], action)
        if setting.space == "action":
            score = slope / setting.temperature - 2 * action / (1 - action**2 + 1e-6)
            delta, h = stein_direction(action, score, np.tanh(updated), setting.kernel_scale)
            d_out[b, : setting.updated] = -delta * (1 - np.tanh(updated) ** 2)
        else:
            score = slope * (1 - action**2) / setting.temperature - 2 * action
            delta, h = stein_direction(fixed, score, updated, setting.kernel_scale)
            d_out[b, : setting.updated] = -delta
        norms += list(np.sqrt((delta**2).sum(-1)))
        widths.append(h)
        spreads.append(action.std(0).mean())
    gradient, _ = backward(sampler, tape, d_out.reshape(size * count, d) / (size * setting.updated))
    report = {"svgd_norm": np.mean(norms), "bandwidth": np.mean(widths), "action_std": np.mean(spreads)}
    return gradient, report


def update(
    setting: Setting, learner: Learner, batch: Arrays, draws: Draws, index: int
) -> tuple[dict[str, float], dict[str, Arrays]]:
    """Critics, sampler, targets (algorithm 1): changes the learner; metrics and gradients."""
    decay = max(1 - index / setting.decay_updates, 0) if setting.decay_updates else 1.0
    decay *= setting.factor ** sum(index >= step for step in setting.steps)
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])
    size, d = batch["action"].shape

    y, efficiency = np.zeros(size), np.zeros(size)
    for b in range(size):
        if index < setting.proposal_after:
            action, log_density = draws.uniform[b], np.full(draws.uniform.shape[1], -d * np.log(2))
        else:
            drawn = [sampler_density(setting, learner.sampler.params, next_x[b], noise) for noise in draws.proposal[b]]
            action, log_density = np.array([a for a, _ in drawn]), np.array([q for _, q in drawn])
        q, _ = q_and_slope(setting, learner.targets, next_x[b], action)
        value, efficiency[b] = soft_value(setting, q, log_density)
        y[b] = batch["reward"][b] + batch["discount"][b] * value

    passes = [
        forward(member(learner.critics.params, i), np.hstack([x, batch["action"]]), setting.activation)
        for i in range(setting.critics)
    ]
    q = np.stack([out[:, 0] for out, _ in passes])
    losses = 0.5 * ((q - y) ** 2).mean(-1)
    critic_gradient: Arrays = {}
    for i, (_, tape) in enumerate(passes):
        own, _ = backward(member(learner.critics.params, i), tape, ((q[i] - y) / size)[:, None])
        critic_gradient |= {f"{i}/{name}": g for name, g in own.items()}
    learner.critics.descend(critic_gradient, decay * setting.critic_rate, setting.max_grad_norm)

    gradient, report = sampler_step(setting, learner.sampler.params, learner.critics.params, x, draws.sampler)
    learner.sampler.descend(gradient, decay * setting.sampler_rate, setting.max_grad_norm)

    if (index + 1) % setting.interval == 0:
        for name, online in learner.critics.params.items():
            learner.targets[name] = (1 - setting.tau) * learner.targets[name] + setting.tau * online
    metrics = report | {
        "critic_loss": losses.sum(),
        "q_mean": q.mean(),
        "q_std": q.std(),
        "target_q_mean": y.mean(),
        "value_efficiency": efficiency.mean(),
        "temperature": setting.temperature,
    }
    metrics |= {f"critic_loss_{i}": loss for i, loss in enumerate(losses)}
    return metrics, {"critics": critic_gradient, "sampler": gradient}
