"""What is wrong with an environment, in plain words, before anything trains on it.

A few episodes of random actions are played (`maxent.envs.trial`), and each check is a small function that reads them.
Where a fault stops an episode, only those before it are read.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit

from maxent.envs.make import Factory
from maxent.envs.spaces import spec_of
from maxent.envs.trial import Evidence, difference, entry_name, gather, leaves, raised
from maxent.errors import ConfigError

Severity = Literal["fault", "warning", "fine"]
"""Training cannot work; it can, but something is likely to be wrong; nothing is."""
Results = Iterator[tuple[Any, ...]]
"""What a check gives: the fields of a `Finding` that follow its name."""

FAR, NEAR = 100.0, 0.01
"""Largest magnitude above, or below, which an entry of the observations is far off [-1, 1]."""
LARGE_REWARD, SMALL_REWARD = 1e3, 1e-3
"""The same of rewards."""
OVERFLOWS = 1e17
"""Magnitude from which the square of a hundred times the number leaves float32."""
SHAM_BOUND = 1e6
"""Magnitude from which the bound of an action is hardly its true one."""
LARGE_OBSERVATION = 8_000
"""Inputs, or bytes: a replay of a million takes 8 GB."""
REFUSALS = (TypeError, ValueError, AttributeError, AssertionError)
"""What a constructor raises at arguments that it does not take; anything else is a fault of its own."""


class Finding(NamedTuple):
    """What one check has found."""

    check: str
    severity: Severity
    found: str
    advice: str = ""
    """What to do about it, in one sentence; empty where all is well."""
    entries: dict[str, tuple[float, float, float]] = {}
    """Lowest, highest and mean value of every number, where the check is about them."""


def check(
    env: str | gymnasium.Env | Callable[..., gymnasium.Env],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int = 0,
    episodes: int = 3,
    steps: int = 1000,
) -> list[Finding]:
    """All findings, faults first. The environment is whatever an agent takes; two of it are made.

    At least so many `episodes` are played, each left after so many `steps` where it has not ended.

    Raises:
        ConfigError: where there is no such environment, or it cannot be made.
    """
    factory, made = Factory(env, env_kwargs, max_episode_steps), list[gymnasium.Env]()
    findings = _functions(factory)
    if findings:
        return findings
    try:
        made += [factory(), factory()]
    except ConfigError as error:
        if not isinstance(error.__cause__, Exception) or isinstance(error.__cause__, REFUSALS):
            raise
        found = raised("the constructor", error.__cause__)
        return [Finding("spaces", "fault", found, "Mend it; nothing else was checked.")]
    try:
        findings = _findings(made[0], made[1], episodes, steps)
    finally:
        for own in made[isinstance(env, gymnasium.Env) :]:  # the caller's stays open
            with contextlib.suppress(Exception):
                own.close()
    return sorted(findings, key=lambda f: ("fault", "warning", "fine").index(f.severity))


def _functions(factory: Factory) -> list[Finding]:
    """Of an environment on the device: a fault of its functions, or, without a twin to be played, that they fit."""
    written_in_jax = factory.on_device()
    if written_in_jax is None:
        return []
    from maxent.envs.device.env import refuse_unfit

    try:
        refuse_unfit(factory.name or "the environment", written_in_jax)
    except ConfigError as error:
        return [Finding("functions", "fault", str(error), "Mend it; nothing else was checked.")]
    if written_in_jax.twin:
        return []
    found = "reset and step give what the spec says; nothing was played, since it has no twin on the host"
    return [Finding("functions", "fine", found)]


def _findings(env: gymnasium.Env, second: gymnasium.Env, episodes: int, steps: int) -> list[Finding]:
    findings = [Finding("spaces", *result) for result in _spaces(env, second)]
    if any(f.severity == "fault" for f in findings):
        return findings
    seen = gather(env, second, episodes, steps)
    findings += [Finding(name, "fault", found, advice) for name, (found, advice) in seen.faults.items()]
    for name, results in CHECKS.items() if seen.episodes else ():
        findings += [Finding(name, *result) for result in results(seen)]
    return findings


def _spaces(env: gymnasium.Env, second: gymnasium.Env) -> Results:
    """What can be said before anything is played."""
    for name, check_space in (("observation_space", _observation_space), ("action_space", _action_space)):
        space, again = getattr(env, name, None), getattr(second, name, None)
        if not isinstance(space, gymnasium.Space):
            yield "fault", f"{name} is {space!r}", f"Set self.{name} to a gymnasium.spaces.Box or the like."
            continue
        try:
            yield from check_space(space)
        except ConfigError as error:
            found, _, advice = str(error).rpartition(": ")
            yield "fault", found, f"{advice[:1].upper()}{advice[1:]}."
            continue
        if space != again:
            advice = "Declare the same for all: one network serves every environment."
            yield "fault", f"{name} is {_short(space)}, and {_short(again)} in a second environment", advice
        yield "fine", f"{name} is {_short(space)}"


def _observation_space(space: gymnasium.Space) -> Results:
    described = [leaf for _, _, leaf in leaves(space, spec_of(space, Discrete(1)).obs)]
    inputs = sum(sum(leaf.categories) or math.prod(leaf.shape) for leaf in described)
    size = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in described)
    if not inputs:
        yield "fault", "the observation space is empty", "Show at least one number: a policy needs something to act on."
    if max(inputs, size) > LARGE_OBSERVATION:
        found = f"an observation is {inputs:,} inputs of a network, and a million of them take {size / 1e3:.3g} GB"
        advice = "Make it smaller (images: ResizeObservation, GrayscaleObservation), and set a smaller buffer_size."
        yield "warning", found, advice


def _action_space(space: gymnasium.Space) -> Results:
    if 0 in spec_of(Discrete(1), space).action.shape:
        yield "fault", "the action space is empty", "Take at least one number or choice: there is nothing to learn."
    for i, bounds in enumerate(zip(space.low.ravel(), space.high.ravel()) if isinstance(space, Box) else ()):
        if max(map(abs, bounds)) > SHAM_BOUND:
            found = f"the action space has the bounds [{bounds[0]:g}, {bounds[1]:g}] in entry {i}"
            yield "warning", found, "Give it its true bounds: actions are spread over all that lies between them."
            return


def _unchanged(seen: Evidence) -> Results:
    for name, declared in (("observation_space", seen.declared.observation), ("action_space", seen.declared.action)):
        now = getattr(seen.env, name)
        if now != declared:
            found = f"{name} was {_short(declared)} and is {_short(now)} after some episodes"
            yield "fault", found, "Set it once, in __init__: a network cannot change its shape."


def _flaw(name: str, fine: str, advice: str) -> Callable[[Evidence], Results]:
    """The check of what was noted at each step."""

    def results(seen: Evidence) -> Results:
        found = [e.flaws[name] for e in seen.episodes if name in e.flaws]
        yield ("warning", found[0], advice) if found else ("fine", fine)

    return results


def _scale(seen: Evidence) -> Results:
    entries, changes = dict[str, tuple[float, float, float]](), False
    for name, _, leaf in leaves(seen.declared.observation, seen.declared.spec.obs):
        x = np.stack([obs[name] for e in seen.episodes for obs in e.obs])
        changes = changes or bool((x != x[0]).any())
        bytes_ = leaf.dtype == "uint8"  # shown to the networks as [0, 1], and all alike
        shape, rows, unit = ((), x.size, 255) if bytes_ else (leaf.shape, len(x), 1)
        x = x.reshape(rows, math.prod(shape))
        columns = np.stack([x.min(0), x.max(0), x.mean(0, dtype=float)]).T / unit
        if not leaf.categories:
            entries |= {entry_name(name, i): tuple(column) for i, column in zip(np.ndindex(shape), columns.tolist())}
    top = {name: max(-low, high) for name, (low, high, _) in entries.items()}
    off = [name for name, (low, high, _) in entries.items() if top[name] > FAR or (low < high and top[name] < NEAR)]
    if not changes:
        yield "warning", "the observation is always the same", "Show what the reward depends on.", entries
    elif off:
        off.sort(key=lambda name: -abs(math.log(top[name])))
        worst = "; ".join("{} from {:.4g} to {:.4g}, mean {:.4g}".format(name, *entries[name]) for name in off[:3])
        found = f"{len(off)} of {len(entries)} numbers are far off [-1, 1]: {worst}{'; …' * (len(off) > 3)}"
        if max(top.values()) > OVERFLOWS:
            yield "fault", found, "Scale to about [-1, 1]: their squares leave float32.", entries
        else:
            yield "warning", found, "Scale to about [-1, 1], or train with normalize_observations true.", entries
    elif entries:
        lows, highs, _ = zip(*entries.values())
        constant = sum(low == high for low, high in zip(lows, highs))
        still = f"; {constant} of {len(entries)} never change" if constant else ""
        yield "fine", f"observations reach from {min(lows):.4g} to {max(highs):.4g}{still}", "", entries
    else:
        yield "fine", "observations are choices, shown as 0 and 1"


def _rewards(seen: Evidence) -> Results:
    r = np.concatenate([e.rewards for e in seen.episodes])
    low, high, mean, top = (float(x) for x in (r.min(), r.max(), r.mean(), np.abs(r).max()))
    found, entries = f"from {low:.4g} to {high:.4g}, mean {mean:.4g}", {"reward": (low, high, mean)}
    if top > LARGE_REWARD:
        factor = 10.0 ** math.floor(math.log10(top))
        why = "losses grow with their square" + (", which leaves float32" if top > OVERFLOWS else "")
        advice = f"Divide them by about {factor:g} (gymnasium.wrappers.TransformReward): {why}."
        yield "fault" if top > OVERFLOWS else "warning", f"rewards are huge, {found}", advice, entries
    elif 0 < top < SMALL_REWARD:
        factor = 10.0 ** -math.floor(math.log10(top))
        advice = (
            f"Multiply them by about {factor:g} (gymnasium.wrappers.TransformReward), or they drown in the entropy."
        )
        yield "warning", f"rewards are tiny, {found}", advice, entries
    elif low == high and (low == 0 or len({(e.ending, len(e.rewards)) for e in seen.episodes}) == 1):
        found = f"the reward was {low:g} in all {len(r):,} steps" + (", and all episodes as long" if low else "")
        advice = "Unless the goal is only hard to find, pay for what should be done, or for coming nearer to it."
        yield "warning", found, advice, entries
    else:
        yield "fine", f"rewards reach {found}" if low < high else f"the reward is always {low:g}", "", entries


def _endings(seen: Evidence) -> Results:
    endings, lengths = [e.ending for e in seen.episodes], [len(e.rewards) for e in seen.episodes]
    limit, shortest, longest = _time_limit(seen.env), min(lengths), max(lengths)
    left = endings.count("left")
    if left and (limit is None or limit <= seen.steps):
        few = "no episode" if left == len(endings) else f"only {len(endings) - left} of {len(endings)} episodes"
        advice = "Set a time limit, max_episode_steps: without an end there is no return, and no evaluation ends."
        yield "warning", f"{few} ended within {seen.steps:,} steps", advice
    elif longest == 1 and seen.steps > 1:
        advice = "Unless each decision stands alone, let terminated be False until the task is over."
        yield "warning", f"every episode is over after its first step, {endings[0]}", advice
    elif set(endings) == {"terminated"} and shortest == longest and len(lengths) > 2:
        advice = "If that is a time limit, return truncated instead: terminated says that nothing would have followed."
        yield "warning", f"every episode terminated after exactly {longest} steps", advice
    else:
        counts = ", ".join(f"{n:,} {ending}" for ending, n in Counter(endings).items())
        span = f"{shortest:,} to {longest:,}" if shortest < longest else f"{longest:,}"
        yield "fine", f"{counts} after {span} steps" + (f"; the time limit is {limit:,}" if limit else "")


def _repeats(seen: Evidence) -> Results:
    if any(again.fault for again in seen.replays.values()):
        return
    found = [f"on {w}: {d}" for w, again in seen.replays.items() if (d := difference(seen.episodes[0], again))]
    if found:
        advice = "Draw from self.np_random alone and set all state in reset: else no run repeats or resumes exactly."
        yield "warning", f"the same seed and actions give another episode {found[0]}", advice
    else:
        yield "fine", "a seed and actions repeat an episode, in a second environment too"


def _effect(seen: Evidence) -> Results:
    pairs = list(zip(seen.episodes, seen.others))
    if any(difference(seen.episodes[0], again) for again in seen.replays.values()):
        return  # chance hides what actions do
    if any(difference(*pair) for pair in pairs):
        yield "fine", "other actions give another episode"
    else:
        found = f"other actions give the same episode, {sum(len(e.rewards) for e, _ in pairs):,} steps long"
        yield "fault", found, "Use the action in step: as it is, there is nothing to learn."


def _speed(seen: Evidence) -> Results:
    rate = sum(len(e.rewards) for e in seen.episodes) / sum(e.seconds for e in seen.episodes)
    minutes = 1e6 / rate / 60
    span = f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:,.0f} hours"
    yield "fine", f"{rate:,.0f} steps/s with resets: {span} for a million"


CHECKS: dict[str, Callable[[Evidence], Results]] = {
    "spaces": _unchanged,
    "types": _flaw(
        "types", "observations have the declared types",
        "Return them as declared, obs.astype(np.float32): they are converted here, but other tools refuse them.",
    ),
    "bounds": _flaw(
        "bounds", "observations keep within the declared bounds",
        "Declare the true bounds, or infinite ones: nothing here depends on them, but a wrong unit may show like this.",
    ),
    "scale": _scale,
    "rewards": _rewards,
    "endings": _endings,
    "flags": _flaw("flags", "terminated and truncated are True or False", "Return bool(terminated), bool(truncated)."),
    "repeats": _repeats,
    "effect": _effect,
    "copies": _flaw(
        "copies", "observations stay as they were returned",
        "Return a copy, self.state.copy(): training copies at once, but whoever else keeps one sees it change.",
    ),
    "actions": _flaw(
        "actions", "actions stay as they were given",
        "Begin step with action = action.copy(): whoever acts may want to know what it did.",
    ),
    "speed": _speed,
}  # fmt: skip
"""Every check of what was played, in the order of the report."""


def _time_limit(env: gymnasium.Env) -> int | None:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None


def _short(space: Any) -> str:
    """A space in a few words."""
    text = " ".join(str(space).split())
    if len(text) < 80:
        return text
    return f"Box of shape {space.shape}, {space.dtype}" if isinstance(space, Box) else f"{text[:77]}…"
