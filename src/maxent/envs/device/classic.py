"""Three of Gymnasium's classic control tasks. Units are SI where the task has any."""

from dataclasses import dataclass
from math import pi, radians

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Pendulum:
    """A rod to be swung up and held, with a torque too weak to lift it: θ̈ = 3g/2l · sin θ + 3/ml² · u; θ is 0 upright.

    A state is [θ, θ̇].
    """

    g: float = 10.0
    """Gravity."""

    def begin(self, key: Array) -> Array:
        """Any angle, and a speed of at most 1."""
        high = jnp.array([pi, 1.0])
        return jax.random.uniform(key, (2,), high.dtype, -high, high)

    def observe(self, state: Array) -> Array:
        """[cos θ, sin θ, θ̇]."""
        angle, speed = state
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed])

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """-(θ² + 0.1·θ̇² + 0.001·u²), of the state before; it never ends."""
        dt, mass, length, max_speed = 0.05, 1.0, 1.0, 8.0
        (angle, speed), torque = state, action[0]
        from_upright = (angle + pi) % (2 * pi) - pi
        reward = -(from_upright**2 + 0.1 * speed**2 + 0.001 * torque**2)
        acceleration = 3 * self.g / (2 * length) * jnp.sin(angle) + 3 / (mass * length**2) * torque
        speed = jnp.clip(speed + acceleration * dt, -max_speed, max_speed)
        return jnp.stack([angle + speed * dt, speed]), reward, jnp.array(False)


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart that is pushed to the left or to the right (Barto, Sutton and Anderson 1983).

    A state is [x, ẋ, θ, θ̇], and all of it is observed; the pole stands at θ = 0.
    """

    sutton_barto_reward: bool = False
    """Pay 0 a step and -1 for the fall, instead of 1 a step."""

    def begin(self, key: Array) -> Array:
        """Nearly at rest, nearly upright."""
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def observe(self, state: Array) -> Array:
        """All of it."""
        return state

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """One step of Euler's method; the end is where the pole leans by 12° or the cart has left."""
        dt, gravity, push = 0.02, 9.8, 10.0
        cart_mass, pole_mass, half_length = 1.0, 0.1, 0.5
        max_x, max_angle = 2.4, radians(12)
        x, speed, angle, turn = state
        force, mass = jnp.where(action == 1, push, -push), cart_mass + pole_mass
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        pushed = (force + pole_mass * half_length * turn**2 * sin) / mass
        angular = (gravity * sin - cos * pushed) / (half_length * (4 / 3 - pole_mass * cos**2 / mass))
        linear = pushed - pole_mass * half_length * angular * cos / mass
        state = jnp.stack([x + dt * speed, speed + dt * linear, angle + dt * turn, turn + dt * angular])
        fallen = (jnp.abs(state[0]) > max_x) | (jnp.abs(state[2]) > max_angle)
        reward = jnp.where(fallen, -1.0, 0.0) if self.sutton_barto_reward else jnp.array(1.0)
        return state, reward, fallen


@dataclass(frozen=True)
class MountainCarContinuous:
    """A car between two hills, too weak for the right one unless it takes a run-up on the left (Moore 1990).

    A state is [x, ẋ], and all of it is observed.
    """

    goal_velocity: float = 0.0
    """The speed with which the car has to arrive at least."""

    def begin(self, key: Array) -> Array:
        """At rest near the bottom."""
        x = jax.random.uniform(key, minval=-0.6, maxval=-0.4)
        return jnp.stack([x, jnp.zeros_like(x)])

    def observe(self, state: Array) -> Array:
        """All of it."""
        return state

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """100 for the goal, where the episode ends, and -0.1·u² a step."""
        power, slope, max_speed = 0.0015, 0.0025, 0.07
        left, right, goal = -1.2, 0.6, 0.45
        (x, speed), force = state, action[0]
        speed = jnp.clip(speed + force * power - slope * jnp.cos(3 * x), -max_speed, max_speed)
        x = jnp.clip(x + speed, left, right)
        speed = jnp.where((x <= left) & (speed < 0), 0.0, speed)
        reached = (x >= goal) & (speed >= self.goal_velocity)
        return jnp.stack([x, speed]), 100.0 * reached - 0.1 * force**2, reached
