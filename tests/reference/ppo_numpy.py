"""Proximal Policy Optimization in NumPy float64, written from arXiv 1707.06347, with every gradient derived by hand.

It shares no line with the library. Random numbers are arguments.
"""

from dataclasses import dataclass, field

import numpy as np

from reference.sac_numpy import Adam, Arrays, Tape, backward, forward


@dataclass(frozen=True)
class Setting:
    """The numbers that the paper leaves to the user."""

    rate: float
    gamma: float
    gae_lambda: float
    clip_range: float
    value_coefficient: float
    entropy_coefficient: float
    batch_size: int
    categories: tuple[int, ...] = ()
    """Of each choice; empty where actions are numbers."""
    activation: str = "tanh"
    max_grad_norm: float = 0.5
    decay_updates: int = 0
    normalize: bool = True


@dataclass
class Learner:
    """A policy ("policy/weight0", …, with "policy/log_std" where actions are numbers) and a value network, as one."""

    networks: Adam
    seen: list[np.ndarray] = field(default_factory=list)
    """All observations learned from before, for their mean and variance."""
    returns: list[np.ndarray] = field(default_factory=list)
    """All returns, likewise."""


def gae(
    reward: np.ndarray, ended: np.ndarray, cut: np.ndarray, value: np.ndarray, next_value: np.ndarray,
    gamma: float, gae_lambda: float,
) -> np.ndarray:  # fmt: skip
    """Â_t = Σ_l (γλ)^l δ_{t+l} of arXiv 1506.02438, each sum by itself, [step, env]; up to where an episode is cut."""
    steps, envs = reward.shape
    advantage = np.zeros((steps, envs))
    for env in range(envs):
        for start in range(steps):
            for t in range(start, steps):
                bootstrap = 0.0 if ended[t, env] else gamma * next_value[t, env]
                delta = reward[t, env] + bootstrap - value[t, env]
                advantage[start, env] += (gamma * gae_lambda) ** (t - start) * delta
                if ended[t, env] or cut[t, env]:
                    break
    return advantage


def moments(blocks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of all rows; 0 and 1 of none."""
    if not blocks:
        return np.zeros(()), np.ones(())
    rows = np.concatenate(blocks)
    return rows.mean(0), rows.var(0)


def features(setting: Setting, learner: Learner, obs: np.ndarray) -> np.ndarray:
    if not setting.normalize:
        return obs
    mean, variance = moments(learner.seen)
    return np.clip((obs - mean) / np.sqrt(variance + 1e-8), -10, 10)


def predicted_return(setting: Setting, learner: Learner, x: np.ndarray) -> np.ndarray:
    """V in the units of the reward."""
    mean, variance = moments(learner.returns)
    out = forward(member_of(learner.networks.params, "value"), x, setting.activation)[0]
    return mean + np.sqrt(variance + 1e-8) * out[:, 0]


def member_of(params: Arrays, name: str) -> Arrays:
    return {key.partition("/")[2]: x for key, x in params.items() if key.startswith(f"{name}/")}


def normal(policy: Arrays, out: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, ...]:
    """log p of the sample and the entropy, [batch]; their derivatives by the mean and by log σ, [batch, d]."""
    log_std = np.broadcast_to(policy["log_std"], out.shape)
    z = (sample - out) / np.exp(log_std)
    log_prob = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    entropy = (0.5 * np.log(2 * np.pi * np.e) + log_std).sum(-1)
    return log_prob, entropy, np.hstack([z / np.exp(log_std), z**2 - 1]), np.hstack([0 * z, 0 * z + 1])


def categorical(categories: tuple[int, ...], out: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same for choices, the derivatives by the logits, [batch, Σ categories]."""
    log_prob, entropy = np.zeros(len(out)), np.zeros(len(out))
    d_log_prob, d_entropy = [], []
    for i, logits in enumerate(np.split(out, np.cumsum(categories)[:-1], axis=-1)):
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        taken = np.eye(categories[i])[sample.reshape(len(out), -1)[:, i].astype(int)]
        own = -(p * np.log(p)).sum(-1, keepdims=True)
        log_prob, entropy = log_prob + np.log((taken * p).sum(-1)), entropy + own[:, 0]
        d_log_prob.append(taken - p)
        d_entropy.append(-p * (np.log(p) + own))
    return log_prob, entropy, np.hstack(d_log_prob), np.hstack(d_entropy)


def loss(setting: Setting, params: Arrays, batch: Arrays) -> tuple[float, dict[str, float], Arrays]:
    """-(L^CLIP - c₁ L^VF + c₂ entropy) (eqs. 7 and 9), what is reported of it, and the gradient."""
    policy, value = member_of(params, "policy"), member_of(params, "value")
    share = batch["weight"] / max(batch["weight"].sum(), 1)
    centred = batch["advantage"] - (share * batch["advantage"]).sum()
    advantage = centred / np.sqrt((share * centred**2).sum() + 1e-8)

    out, tape = forward(policy, batch["features"], setting.activation)
    if setting.categories:
        found = categorical(setting.categories, out, batch["sample"])
    else:
        found = normal(policy, out, batch["sample"])
    log_prob, entropy, d_log_prob, d_entropy = found
    ratio = np.exp(log_prob - batch["log_prob"])
    low, high = 1 - setting.clip_range, 1 + setting.clip_range
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, low, high) * advantage)
    moves = np.where(advantage > 0, ratio < high, ratio > low)  # else the clipped one is smaller, and constant
    d_policy = -(share * moves * ratio * advantage)[:, None] * d_log_prob
    d_policy -= setting.entropy_coefficient * share[:, None] * d_entropy

    v, value_tape = forward(value, batch["features"], setting.activation)
    error = v[:, 0] - batch["target"]
    value_gradient, _ = backward(value, value_tape, (setting.value_coefficient * share * error)[:, None])
    reported = {
        "actor_loss": -(share * surrogate).sum(),
        "value_loss": (share * 0.5 * error**2).sum(),
        "entropy": (share * entropy).sum(),
        "approx_kl": (share * (ratio - 1 - np.log(ratio))).sum(),
        "clip_fraction": (share * (np.abs(ratio - 1) > setting.clip_range)).sum(),
    }
    total = reported["actor_loss"] + setting.value_coefficient * reported["value_loss"]
    total -= setting.entropy_coefficient * reported["entropy"]
    return total, reported, policy_gradient(policy, tape, d_policy) | prefixed("value", value_gradient)


def policy_gradient(policy: Arrays, tape: Tape, d_out: np.ndarray) -> Arrays:
    if "log_std" not in policy:
        return prefixed("policy", backward(policy, tape, d_out)[0])
    d_mean, d_log_std = np.split(d_out, 2, axis=-1)
    return prefixed("policy", backward(policy, tape, d_mean)[0] | {"log_std": d_log_std.sum(0)})


def prefixed(name: str, arrays: Arrays) -> Arrays:
    return {f"{name}/{key}": x for key, x in arrays.items()}


def update(setting: Setting, learner: Learner, rollout: Arrays, orders: np.ndarray, index: int) -> dict[str, float]:
    """All epochs over one rollout [step, env, …], in the given orders [epoch, step]; changes the learner; metrics."""
    decay = max(1 - index / setting.decay_updates, 0) if setting.decay_updates else 1.0
    shape, count = rollout["reward"].shape, rollout["reward"].size
    x, next_x = (features(setting, learner, rollout[name].reshape(count, -1)) for name in ("obs", "next_obs"))
    value, next_value = (predicted_return(setting, learner, one).reshape(shape) for one in (x, next_x))
    ended = rollout["discount"] == 0
    args = rollout["reward"], ended, rollout["boundary"], value, next_value, setting.gamma, setting.gae_lambda
    advantage = gae(*args)
    target, real = value + advantage, rollout["real"] > 0
    learner.returns.append(target[real])
    mean, variance = moments(learner.returns)
    batch = {
        "features": x,
        "sample": rollout["sample"].reshape(count, -1),
        "log_prob": rollout["log_prob"].ravel(),
        "advantage": advantage.ravel(),
        "target": (target.ravel() - mean) / np.sqrt(variance + 1e-8),
        "weight": real.ravel().astype(float),
    }
    size, reports = min(setting.batch_size, count), []
    for order in orders:
        for first in range(0, count - size + 1, size):
            minibatch = {name: rows[order[first : first + size]] for name, rows in batch.items()}
            _, reported, gradient = loss(setting, learner.networks.params, minibatch)
            reports.append(reported)
            learner.networks.descend(gradient, decay * setting.rate, setting.max_grad_norm)
    learner.seen.append(rollout["next_obs"].reshape(count, -1))
    means = {name: float(np.mean([reported[name] for reported in reports])) for name in reports[0]}
    explained = 1 - advantage[real].var() / (target[real].var() + 1e-8)
    return means | {"explained_variance": explained, "value_mean": value[real].mean()}
