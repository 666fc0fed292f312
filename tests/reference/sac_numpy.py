"""Soft Actor-Critic in NumPy float64, written from arXiv 1812.05905, with every gradient derived by hand.

It shares no line with the library. A network is a dictionary of arrays, the log-probability is the plain change of
variables, and nothing is differentiated automatically. Random numbers are arguments.
"""

from dataclasses import dataclass, field

import numpy as np

Arrays = dict[str, np.ndarray]
Tape = list[tuple[np.ndarray, ...]]

EPSILON = 1e-5
"""Of layer normalisation."""


# Networks ------------------------------------------------------------------------------------------------------------


def activate(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An activation and its derivative."""
    if name == "relu":
        return np.maximum(x, 0), (x > 0).astype(float)
    if name == "tanh":
        return np.tanh(x), 1 - np.tanh(x) ** 2
    if name == "elu":
        return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1), np.exp(np.minimum(x, 0))
    if name == "silu":
        gate = 1 / (1 + np.exp(-x))
        return x * gate, gate * (1 + x * (1 - gate))
    if name == "gelu":  # its usual approximation by tanh
        c = np.sqrt(2 / np.pi)
        t = np.tanh(c * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2)
    raise ValueError(name)


def forward(net: Arrays, x: np.ndarray, activation: str) -> tuple[np.ndarray, Tape]:
    """The output of a perceptron, and what `backward` needs of each layer."""
    tape: Tape = []
    depth = sum(name.startswith("weight") for name in net)
    for i in range(depth):
        given, x = x, x @ net[f"weight{i}"] + net[f"bias{i}"]
        if i == depth - 1:
            tape.append((given,))
            break
        unit = inverse = np.ones(1)
        if f"scale{i}" in net:
            inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
            unit = (x - x.mean(-1, keepdims=True)) * inverse
            x = unit * net[f"scale{i}"] + net[f"offset{i}"]
        x, slope = activate(activation, x)
        tape.append((given, unit, inverse, slope))
    return x, tape


def backward(net: Arrays, tape: Tape, d_out: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """Gradients with respect to every array of the network and to its input."""
    gradient: Arrays = {}
    d = d_out
    for i in reversed(range(len(tape))):
        given = tape[i][0]
        if i < len(tape) - 1:
            _, unit, inverse, slope = tape[i]
            d = d * slope
            if f"scale{i}" in net:
                gradient[f"scale{i}"], gradient[f"offset{i}"] = (d * unit).sum(0), d.sum(0)
                d = d * net[f"scale{i}"]
                d = inverse * (d - d.mean(-1, keepdims=True) - unit * (d * unit).mean(-1, keepdims=True))
        gradient[f"weight{i}"], gradient[f"bias{i}"] = given.T @ d, d.sum(0)
        d = d @ net[f"weight{i}"].T
    return gradient, d


# The learner ---------------------------------------------------------------------------------------------------------


@dataclass
class Adam:
    """Algorithm 1 of arXiv 1412.6980 on a dictionary of arrays, which it changes."""

    params: Arrays
    epsilon: float = 1e-8
    steps: int = 0
    first: Arrays = field(default_factory=dict)
    second: Arrays = field(default_factory=dict)

    def descend(self, gradient: Arrays, rate: float, max_norm: float) -> None:
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        shrink = max_norm / norm if 0 < max_norm < norm else 1.0
        self.steps += 1
        for name, g in gradient.items():
            m = self.first[name] = 0.9 * self.first.get(name, 0) + 0.1 * shrink * g
            v = self.second[name] = 0.999 * self.second.get(name, 0) + 0.001 * (shrink * g) ** 2
            m_hat, v_hat = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
            self.params[name] = self.params[name] - rate * m_hat / (np.sqrt(v_hat) + self.epsilon)


@dataclass(frozen=True)
class Setting:
    """The numbers that the paper leaves to the user."""

    policy_rate: float
    critic_rate: float
    temperature_rate: float
    tau: float
    target_entropy: float
    learn_temperature: bool = True
    critics: int = 2
    activation: str = "relu"
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    max_grad_norm: float = 0.0
    decay_updates: int = 0
    normalize: bool = False


@dataclass
class Learner:
    """A policy (with an array `log_std` where σ is the same for all states), critics ("1/weight0", …), log α."""

    policy: Adam
    critics: Adam
    targets: Arrays
    temperature: Adam
    seen: list[np.ndarray] = field(default_factory=list)
    """All observations so far, for their mean and variance."""


def member(ensemble: Arrays, i: int) -> Arrays:
    """One critic of an ensemble."""
    return {name.partition("/")[2]: x for name, x in ensemble.items() if name.startswith(f"{i}/")}


def features(setting: Setting, learner: Learner, obs: np.ndarray) -> np.ndarray:
    """What the networks see of an observation."""
    if not (setting.normalize and learner.seen):
        return obs
    seen = np.concatenate(learner.seen)
    return np.clip((obs - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-8), -10, 10)


def policy_head(setting: Setting, policy: Arrays, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tape]:
    """μ, log σ within its bounds, where those bounds leave it free, and the tape."""
    out, tape = forward(policy, x, setting.activation)
    if "log_std" in policy:
        mean, log_std = out, np.broadcast_to(policy["log_std"], out.shape)
    else:
        mean, log_std = np.split(out, 2, axis=-1)
    free = (setting.log_std_min < log_std) & (log_std < setting.log_std_max)
    return mean, np.clip(log_std, setting.log_std_min, setting.log_std_max), free, tape


def squash(mean: np.ndarray, log_std: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a = tanh(u), u = μ + σε, and log π(a) = log N(u; μ, σ) - Σ log(1 - a²) (appendix C); 1 - a² = 1 / cosh²u."""
    u = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), (log_normal + 2 * np.log(np.cosh(u))).sum(-1)


def values(setting: Setting, ensemble: Arrays, x: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, list[Tape]]:
    """Q_i(s, a), [critic, batch], and the tapes."""
    passes = [forward(member(ensemble, i), np.hstack([x, action]), setting.activation) for i in range(setting.critics)]
    return np.stack([out[:, 0] for out, _ in passes]), [tape for _, tape in passes]


def target_values(
    setting: Setting, learner: Learner, reward: np.ndarray, discount: np.ndarray, x: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """y = r + γ (min_i Q̄_i(s', a') - α log π(a'|s')), a' ~ π(s') (eqs. 3 and 5)."""
    mean, log_std, _, _ = policy_head(setting, learner.policy.params, x)
    action, log_prob = squash(mean, log_std, noise)
    q, _ = values(setting, learner.targets, x, action)
    return reward + discount * (q.min(0) - np.exp(learner.temperature.params["log"]) * log_prob)


def critic_loss(
    setting: Setting, critics: Arrays, x: np.ndarray, action: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """Each J_Q = mean ½(Q - y)², the values, and the gradient: dJ/dQ = (Q - y) / n."""
    q, tapes = values(setting, critics, x, action)
    gradient: Arrays = {}
    for i, tape in enumerate(tapes):
        own, _ = backward(member(critics, i), tape, ((q[i] - y) / len(y))[:, None])
        gradient |= {f"{i}/{name}": g for name, g in own.items()}
    return 0.5 * ((q - y) ** 2).mean(-1), q, gradient


def policy_loss(
    setting: Setting, policy: Arrays, critics: Arrays, temperature: float, x: np.ndarray, noise: np.ndarray
) -> tuple[float, np.ndarray, Arrays]:
    """J_π = mean(α log π - min_i Q_i), log π, and the gradient.

    With a = tanh(u), u = μ + σε: da/du = 1 - a², d log π/dμ = 2a and d log π/d log σ = -1 + 2aσε.
    """
    mean, log_std, free, tape = policy_head(setting, policy, x)
    action, log_prob = squash(mean, log_std, noise)
    q, tapes = values(setting, critics, x, action)
    d_action = np.zeros_like(action)
    for i, critic_tape in enumerate(tapes):
        smallest = (q.argmin(0) == i).astype(float)[:, None]
        d_action += backward(member(critics, i), critic_tape, smallest)[1][:, x.shape[1] :]
    d_pre = d_action * (1 - action**2)
    spread = np.exp(log_std) * noise
    d_mean = (temperature * 2 * action - d_pre) / len(x)
    d_log_std = free * (temperature * (2 * action * spread - 1) - d_pre * spread) / len(x)
    if "log_std" in policy:
        gradient, _ = backward(policy, tape, d_mean)
        gradient["log_std"] = d_log_std.sum(0)
    else:
        gradient, _ = backward(policy, tape, np.hstack([d_mean, d_log_std]))
    return float((temperature * log_prob - q.min(0)).mean()), log_prob, gradient


def temperature_loss(setting: Setting, log_temperature: float, log_prob: np.ndarray) -> tuple[float, float]:
    """-log α · mean(log π + H̄) (eq. 18, stepped in log α), and its derivative."""
    slope = -float((log_prob + setting.target_entropy).mean())
    return float(log_temperature * slope), slope


def update(
    setting: Setting, learner: Learner, batch: Arrays, noises: tuple[np.ndarray, np.ndarray], index: int
) -> tuple[dict[str, float], dict[str, Arrays]]:
    """Critics, policy, temperature, target critics (algorithm 1): changes the learner; metrics and gradients."""
    decay = max(1 - index / setting.decay_updates, 0) if setting.decay_updates else 1.0
    temperature = float(np.exp(learner.temperature.params["log"]))
    x, next_x = features(setting, learner, batch["obs"]), features(setting, learner, batch["next_obs"])

    y = target_values(setting, learner, batch["reward"], batch["discount"], next_x, noises[0])
    critic_losses, q, critic_gradient = critic_loss(setting, learner.critics.params, x, batch["action"], y)
    learner.critics.descend(critic_gradient, decay * setting.critic_rate, setting.max_grad_norm)

    actor_loss, log_prob, policy_gradient = policy_loss(
        setting, learner.policy.params, learner.critics.params, temperature, x, noises[1]
    )
    learner.policy.descend(policy_gradient, decay * setting.policy_rate, setting.max_grad_norm)

    gradients = {"critics": critic_gradient, "policy": policy_gradient}
    loss_temperature = 0.0
    if setting.learn_temperature:
        loss_temperature, slope = temperature_loss(setting, float(learner.temperature.params["log"]), log_prob)
        gradients["temperature"] = {"log": np.array(slope)}
        learner.temperature.descend(gradients["temperature"], decay * setting.temperature_rate, setting.max_grad_norm)

    for name, online in learner.critics.params.items():
        learner.targets[name] = (1 - setting.tau) * learner.targets[name] + setting.tau * online
    metrics = {
        "critic_loss": critic_losses.sum(),
        "actor_loss": actor_loss,
        "temperature_loss": loss_temperature,
        "temperature": temperature,
        "entropy": -log_prob.mean(),
        "q_mean": q.mean(),
        "q_std": q.std(),
        "target_q_mean": y.mean(),
    } | {f"critic_loss_{i}": loss for i, loss in enumerate(critic_losses)}
    return metrics, gradients
