"""The library's own device environments: five tasks that Gymnasium has too, equation by equation.

Spaces, time limits and arguments are the twin's. An equation that differed from it would show: the tests compare each
step with Gymnasium's in float64.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium
from jax import Array

from maxent.envs import tasks
from maxent.envs.device.classic import CartPole, MountainCarContinuous, Pendulum
from maxent.envs.device.env import DeviceEnv, check_arguments, environment_action
from maxent.envs.device.plane import MultiGoal, TwoPassage
from maxent.envs.spaces import spec_of
from maxent.settings import build
from maxent.types import Tree


class Task(Protocol):
    """A task: its fields are its arguments. A state is a vector, and all is computed in its dtype."""

    def begin(self, key: Array) -> Array:
        """The first state of an episode."""

    def observe(self, state: Array) -> Array:
        """What is seen of a state."""

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """(state, action within its bounds) → (state, reward, whether the episode terminated)."""


TASKS: dict[str, tuple[type[Task], str]] = {
    "Pendulum-v1": (Pendulum, "Pendulum-v1"),
    "CartPole-v1": (CartPole, "CartPole-v1"),
    "MountainCarContinuous-v0": (MountainCarContinuous, "MountainCarContinuous-v0"),
    "MultiGoal-v0": (MultiGoal, "maxent/MultiGoal-v0"),
    "TwoPassage-v0": (TwoPassage, "maxent/TwoPassage-v0"),
}
"""Name → the task, and its twin."""


def names() -> list[str]:
    """What may stand after `jax/`."""
    return list(TASKS)


def make(name: str, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """The environment of that name.

    Raises:
        ConfigError: where an argument is unknown or of the wrong type.
    """
    kind, twin = TASKS[name]
    where = f"jax/{name}"
    check_arguments(where, kwargs, inspect.signature(kind).parameters)
    task: Task = build(kind, kwargs, where)
    tasks.register()
    host = gymnasium.make(twin, disable_env_checker=True, **kwargs)
    spec, take = spec_of(host.observation_space, host.action_space), environment_action(host.action_space)

    def reset(key: Array) -> tuple[Tree, Tree]:
        state = task.begin(key)
        return state, task.observe(state).astype(spec.obs.dtype)

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Tree, Array, Array]:
        state, reward, terminated = task.move(state, take(action, state.dtype))
        return state, task.observe(state).astype(spec.obs.dtype), reward.astype(state.dtype), terminated

    assert host.spec is not None
    success = getattr(task, "succeeded", None)  # only a task with a goal has it
    return DeviceEnv(spec, reset, step, host.spec.max_episode_steps or 0, twin, success)
