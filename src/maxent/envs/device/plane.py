"""The tasks of `maxent.envs.tasks`, a point in the plane, with the numbers that stand there. A state is a position."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maxent.envs.tasks import multigoal, plane, two_passage


@dataclass(frozen=True)
class MultiGoal:
    """Four goals, all equally good."""

    def begin(self, key: Array) -> Array:
        """Normal around the centre."""
        return _begin(multigoal.MultiGoal, key)

    def observe(self, state: Array) -> Array:
        """The position."""
        return state

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """-30‖a‖² - min_g ‖s' - g‖² + 10·[reached]; reached is the end."""
        task = multigoal.MultiGoal
        state = _within(task, state + action)
        reached, squared = self.succeeded(state), self._squared_distance(state)
        return state, -task.action_cost * jnp.square(action).sum() - squared + task.goal_reward * reached, reached

    def succeeded(self, state: Array) -> Array:
        """Whether a goal is reached."""
        return self._squared_distance(state) < multigoal.MultiGoal.goal_radius**2

    def _squared_distance(self, state: Array) -> Array:
        return jnp.square(state - multigoal.MultiGoal.goals).sum(-1).min()


@dataclass(frozen=True)
class TwoPassage:
    """A wall with two passages."""

    blocked: bool = False
    """Close the upper passage."""

    def begin(self, key: Array) -> Array:
        """Normal around the start."""
        return _begin(two_passage.TwoPassage, key)

    def observe(self, state: Array) -> Array:
        """The position."""
        return state

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """Half the action, first along x, then along y; -0.1‖s' - goal‖ + 10·[reached], and reached is the end."""
        task = two_passage.TwoPassage
        low, high = np.array(task.open_passages(self.blocked)).T
        (left, right), inside = task.wall, 1e-6
        (x, y), (dx, dy) = state, task.speed * action
        passage = (low < y) & (y < high)
        solid = ~passage.any()
        begin, end = jnp.where(solid & (x >= right), right, -jnp.inf), jnp.where(solid & (x <= left), left, jnp.inf)
        x = jnp.clip(x + dx, begin, end)
        passage &= (left < x) & (x < right)
        floor, roof = jnp.where(passage, low + inside, -jnp.inf).max(), jnp.where(passage, high - inside, jnp.inf).min()
        state = _within(task, jnp.stack([x, jnp.clip(y + dy, floor, roof)]))
        reached = self.succeeded(state)
        return state, -task.distance_cost * self._distance(state) + task.goal_reward * reached, reached

    def succeeded(self, state: Array) -> Array:
        """Whether the goal is reached."""
        return self._distance(state) < two_passage.TwoPassage.goal_radius

    def _distance(self, state: Array) -> Array:
        return jnp.linalg.norm(state - two_passage.TwoPassage.goal)


def _begin(task: type[plane.Plane], key: Array) -> Array:
    return _within(task, jnp.array(task.start) + plane.START_STD * jax.random.normal(key, (2,)))


def _within(task: type[plane.Plane], position: Array) -> Array:
    return jnp.clip(position, -task.half_width, task.half_width)
