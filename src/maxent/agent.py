"""The object most people use: `SAC("Pendulum-v1").learn(20_000)`.

It is a face of the same driver as the command, with the method names that Stable-Baselines3's users know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium
import jax
import numpy as np

from maxent import registry
from maxent.config import MOST_STEPS, TrainConfig
from maxent.envs import spaces
from maxent.envs.device.env import DeviceEnv
from maxent.envs.make import Factory
from maxent.envs.vector import VectorEnvs
from maxent.errors import CheckpointError, ConfigError
from maxent.loops.evaluate import Evaluation
from maxent.run import folder
from maxent.run.driver import Callback, Driver
from maxent.settings import build, without_numbers

VECTOR_KWARGS = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers")
"""What `gymnasium.make_vec` adds to the arguments of one environment."""
AnyEnv = str | gymnasium.Env | gymnasium.vector.VectorEnv | Callable[..., gymnasium.Env] | DeviceEnv


class Agent:
    """A policy that learns on an environment. Use a subclass: `maxent.SAC`, for one.

    Args:
        env: A Gymnasium id, `module:Name`, a class or factory, an environment, a Gymnasium vector environment, or one
            written in JAX: `jax/…` and the like, or a `DeviceEnv`.
        seed: Everything random follows from it.
        seeds: Members, trained side by side with the seeds seed, seed + 1, …
        envs: Environments of each member; a vector environment brings its own number.
        env_kwargs: Arguments of the environment's constructor.
        max_episode_steps: Time limit of an episode; 0 keeps the environment's own.
        out: A run folder to write while learning: curves, evaluations, checkpoints. Without, nothing is written.
        settings: The algorithm's numbers, as in its config class, and the run's, as in `maxent.config.TrainConfig`.

    Raises:
        ConfigError: where a setting is unknown or out of range, or does not fit the environment.
    """

    algorithm: ClassVar[str]

    def __init__(
        self,
        env: AnyEnv,
        *,
        seed: int = 0,
        seeds: int = 1,
        envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        max_episode_steps: int = 0,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        name = type(self).__name__
        run = {f.name: settings.pop(f.name) for f in fields(TrainConfig) if f.name in settings}
        run |= {"env": "", "algo": self.algorithm, "seed": seed, "seeds": seeds, "envs": envs}
        config = build(TrainConfig, run | {"max_episode_steps": max_episode_steps}, name)
        if not isinstance(env_kwargs, Mapping | None):
            raise ConfigError(f"{name}.env_kwargs is {env_kwargs!r}: it must be a dictionary of arguments")
        if isinstance(env, gymnasium.vector.VectorEnv):
            for given, value in {"env_kwargs": env_kwargs, "max_episode_steps": max_episode_steps}.items():
                if value:
                    raise ConfigError(f"{name}.{given} is {value}, and the vector environment is made: leave it out")
        self._env_kwargs = dict(env_kwargs or {})
        names = [*(f.name for f in fields(TrainConfig)), "out", "env_kwargs"]
        self._open(env, config, build(registry.entry(self.algorithm).config, settings, name, names), out)

    def _open(self, env: AnyEnv, config: TrainConfig, settings: Any, out: str | Path | None) -> None:
        vector = None
        if isinstance(env, gymnasium.vector.VectorEnv):
            if config.seeds > 1 or config.sweep:
                raise ConfigError(
                    "a vector environment serves one member, and seeds or a sweep ask for more: pass its id instead"
                )
            config = replace(config, envs=env.num_envs, max_episode_steps=0)
            vector, (env, self._env_kwargs) = env, _single(env)
        factory = Factory(env, self._env_kwargs, config.max_episode_steps)
        self._env_kwargs = factory.kwargs
        config = replace(
            config,
            env=factory.name if factory.remakeable else "",
            max_episode_steps=factory.max_episode_steps,
        )
        path = None if out is None else folder.choose(config, str(out))
        envs = None if vector is None else VectorEnvs(vector, config.seed)
        self._driver = Driver(config, settings, factory, envs, path)
        self._predictions = 0
        programs = self._driver.programs
        if programs.algorithm.q is not None:
            self._q = jax.jit(partial(programs.algorithm.q, without_numbers(programs.config), programs.spec))
        if path is not None:
            folder.create(path, config, settings, self._env_kwargs)

    @property
    def config(self) -> Any:
        """The algorithm's settings."""
        return self._driver.settings

    @property
    def observation_space(self) -> gymnasium.Space:
        """Of one environment."""
        return self._driver.loop.spaces[0]

    @property
    def action_space(self) -> gymnasium.Space:
        """Of one environment."""
        return self._driver.loop.spaces[1]

    @property
    def num_timesteps(self) -> int:
        """Environment steps of each member so far."""
        return self._driver.loop.step

    def learn(
        self, total_timesteps: int, callback: Callback | Sequence[Callback] | None = None, progress_bar: bool = False
    ) -> Self:
        """Learn for that many more environment steps of each member; the agent itself.

        A callback is called at every report (each 1,000 steps) with a `Progress` and stops the training by returning
        False.
        """
        _refuse_unless_within("total_timesteps", total_timesteps, 1, MOST_STEPS - self.num_timesteps)
        total = self._driver.loop.step + total_timesteps
        callbacks = [callback] if callable(callback) else list(callback or ())
        if not progress_bar:
            self._driver.learn(total, callbacks)
            return self
        from maxent.run.progress import ProgressBar

        with ProgressBar(total, self._driver.loop.step) as bar:
            self._driver.learn(total, [*callbacks, bar])
        return self

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        member: int = 0,
    ) -> tuple[Any, Any]:
        """The action for one observation or a batch of them, in the environment's own form, and the state passed in.

        A batch has one more leading axis than the observation space, in every array of a dictionary. Without
        `deterministic` the action is a sample, from a stream of its own. `state` and `episode_start` are those of
        policies with a memory, which this one is not.

        Raises:
            ConfigError: where the observation does not fit the observation space.
        """
        _refuse_unless_within("member", member, 0, len(self._driver.seeds) - 1)
        driver, programs = self._driver, self._driver.programs.of_one_device()
        try:
            singles, batch = spaces.singles(self.observation_space, observation)
            obs = spaces.empty_batch(programs.spec.obs, (1, len(singles)))
            for i, single in enumerate(singles):
                spaces.write_observation(self.observation_space, single, obs, (0, i))
        except ValueError as error:
            raise ConfigError(f"predict: {error}") from None
        view, roots = jax.tree.map(lambda x: x[member : member + 1], (driver.loop.view, driver.loop.roots))
        if programs is not driver.programs:
            view, roots = jax.device_put((view, roots), jax.devices()[0])
        shape = (1, len(singles))
        action, _, _ = programs.act(
            view, programs.initial_carry(shape), obs, np.ones(shape, bool), roots, np.uint32(self._predictions),
            explore=not deterministic, name="predict",
        )  # fmt: skip
        self._predictions += 1
        taken = spaces.environment_action(self.action_space)
        actions = [taken(a) for a in np.asarray(action)[0]]
        return (np.stack(actions) if batch else actions[0]), state

    def q(self, observation: Any, action: Any, *, member: int = 0) -> np.ndarray:
        """What the critics believe of each action [batch, …], in the environment's own form, on one observation.

        Returns:
            Float32 [batch]: the smallest critic's value, in units of reward.

        Raises:
            ConfigError: where the algorithm has no such critics, or the observation or the actions do not fit.
        """
        driver, programs = self._driver, self._driver.programs
        if programs.algorithm.q is None:
            raise ConfigError(f"{programs.algorithm.name} has no critics of actions")
        _refuse_unless_within("member", member, 0, len(driver.seeds) - 1)
        try:
            actions = spaces.canonical_actions(self.action_space, action)
            obs = spaces.empty_batch(programs.spec.obs, (len(actions),))
            for i in range(len(actions)):
                spaces.write_observation(self.observation_space, observation, obs, (i,))
        except ValueError as error:
            raise ConfigError(f"q: {error}") from None
        return np.asarray(self._q(jax.tree.map(lambda x: x[member], driver.loop.learned.state), obs, actions))

    def evaluate(
        self, n_episodes: int = 10, *, deterministic: bool = True, seed: int | None = None, member: int = 0
    ) -> Evaluation:
        """Play that many episodes in environments of their own; learning does not notice."""
        _refuse_unless_within("n_episodes", n_episodes, 1)
        _refuse_unless_within("member", member, 0, len(self._driver.seeds) - 1)
        return Evaluation.of(self._driver.evaluate(n_episodes, seed, explore=not deterministic)[member])

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the whole agent, replay included, into a folder of its own, which `maxent resume` continues too.

        Args:
            path: The folder, new or empty.
            overwrite: Let it take the place of an agent or a run that is there, and of all in its folder, once it is
                written.

        Raises:
            ConfigError: where the folder holds anything else, or anything at all without `overwrite`.
            CheckpointError: where it cannot be written.
            TrainingFault: where an interrupt left half a step.
        """
        self._driver.refuse_half_a_step()
        try:
            whole, own = Path(path).resolve(), self._driver.path
            if own is not None and own.resolve() == whole:
                raise ConfigError(f"{path} is the run that this agent writes by itself: save it elsewhere")
            if not str(path) or (overwrite and Path.cwd().is_relative_to(whole)):
                raise ConfigError(f"save cannot write over {path!r}: it needs a folder that nobody works in")
            config = replace(self._driver.config, steps=max(self.num_timesteps, 1))
            with folder.replacing(whole) if overwrite else nullcontext(whole) as new:
                target = folder.choose(config, str(new), otherwise="replace its run, overwrite=True")
                folder.create(target, config, self._driver.settings, self._env_kwargs)
                self._driver.save(target)
        except (OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise CheckpointError(f"cannot save in {path!r}: {error}") from None


class SAC(Agent):
    """Soft Actor-Critic (arXiv 1812.05905); its settings are those of `maxent.config.SACConfig`."""

    algorithm = "sac"


class SACV1(Agent):
    """Soft Actor-Critic with a value network (arXiv 1801.01290); its settings: `maxent.config.SACV1Config`."""

    algorithm = "sac_v1"


class SACDeterministic(Agent):
    """Its deterministic ablation; its settings are those of `maxent.config.SACDeterministicConfig`."""

    algorithm = "sac_deterministic"


class SACDiscrete(Agent):
    """Soft Actor-Critic for discrete actions (arXiv 1910.07207); settings: `maxent.config.SACDiscreteConfig`."""

    algorithm = "sac_discrete"


class SQL(Agent):
    """Soft Q-learning (arXiv 1702.08165); its settings are those of `maxent.config.SQLConfig`."""

    algorithm = "sql"


class TD3(Agent):
    """Twin Delayed DDPG (arXiv 1802.09477); its settings are those of `maxent.config.TD3Config`."""

    algorithm = "td3"


class DDPG(Agent):
    """Deep Deterministic Policy Gradient (arXiv 1509.02971); its settings: `maxent.config.DDPGConfig`."""

    algorithm = "ddpg"


class PPO(Agent):
    """Proximal Policy Optimization (arXiv 1707.06347); its settings are those of `maxent.config.PPOConfig`."""

    algorithm = "ppo"


CLASSES: dict[str, type[Agent]] = {
    c.algorithm: c for c in (SAC, SACV1, SACDeterministic, SACDiscrete, SQL, TD3, DDPG, PPO)
}


def load(path: str | Path, env: AnyEnv | None = None, *, best: bool = False) -> Agent:
    """The agent of a run folder or of `Agent.save`, at its last or its best checkpoint.

    Args:
        path: The folder.
        env: The environment to go on with, where it is not to be made from the name in the run's config.
        best: Take the checkpoint of the best evaluation, which has no replay, instead of the last.

    Raises:
        ConfigError: where the folder is no run, or its environment cannot be made.
        CheckpointError: where its checkpoint is missing or damaged.
    """
    config, settings, env_kwargs = folder.read(path)
    if env is None:
        folder.refuse_own_code(path, config.env)
    agent = object.__new__(CLASSES[config.algo])
    agent._env_kwargs = {} if isinstance(env, gymnasium.Env) else env_kwargs
    agent._open(config.env if env is None else env, config, settings, None)
    agent._driver.keeper.restore(Path(path), best)
    return agent


def _single(vector: gymnasium.vector.VectorEnv) -> tuple[str | Callable[..., gymnasium.Env], dict[str, Any]]:
    """What makes one environment like those of a vector environment, and its arguments."""
    spec = None if isinstance(vector, gymnasium.vector.VectorWrapper) else vector.spec
    if spec is not None and not spec.kwargs.get("wrappers"):
        return spec.id, {name: value for name, value in spec.kwargs.items() if name not in VECTOR_KWARGS}

    def unknown(**kwargs: Any) -> gymnasium.Env:
        raise ConfigError("an evaluation needs one environment by itself: pass an id or a class instead of a vector")

    return unknown, {}


def _refuse_unless_within(name: str, value: Any, low: int, high: float = math.inf) -> None:
    """A ConfigError where an argument is no whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} is {value!r}: it must be a whole number")
    if not low <= value <= high:
        upper = f" and at most {high}" if high < math.inf else ""
        raise ConfigError(f"{name} is {value}: it must be at least {low}{upper}")
