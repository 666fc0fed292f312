"""What the exact soft-optimal policy does in the two-passage maze, which no learner of it can exceed but by chance.

    python benchmarks/passage.py --temperatures 0.05 0.1 0.15 --discounts 0.95 0.99

Soft value iteration on a grid of positions and of actions, with both passages open. Values between the grid's points
are linear; so those inside the wall, where a point moves freely, leak into the passages' edges, by less than a cell. On
a grid twice as fine the figures are the same to a tenth of a per cent. Then its Boltzmann policy plays episodes of 50
steps from random first positions, with the upper passage open and closed. Results: benchmarks/results/passage.json.
"""

import argparse
import itertools
import json
import shlex
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates
from jax.scipy.special import logsumexp

from maxent.envs.device.plane import TwoPassage
from maxent.envs.tasks import two_passage
from maxent.run import folder

RESULTS = Path(__file__).parent / "results"
TIME_LIMIT, EPISODES = 50, 10_000
ERROR = 0.02
"""Of the soft value, at most, beside what the grid costs."""
VOLUME = 4.0
"""Of the box of actions: the soft value's integral is over it."""

move = jax.vmap(TwoPassage().move, (0, None))
"""(positions [n, 2], action [2]) → (next positions, rewards, whether the goal is reached)."""


def grid(points: int, half_width: float) -> Array:
    """All points of a square grid around the origin, [points², 2]."""
    line = np.linspace(-half_width, half_width, points)  # in 64 bits: a point on a wall's face stays there
    return jnp.array(np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2), jnp.float32)


def between(value: Array, positions: Array) -> Array:
    """The values [points, points] of a grid at positions [n, 2] between its points."""
    half_width = two_passage.TwoPassage.half_width
    indices = (positions.T + half_width) / (2 * half_width) * (len(value) - 1)
    return map_coordinates(value, indices, order=1, mode="nearest")


def soft_q(value: Array, gamma: Array, positions: Array, actions: Array) -> Array:
    """Q(s, a) = r + γ V(s'), [action, n]: V is 0 where the goal is reached."""

    def of(action: Array) -> Array:
        following, reward, reached = move(positions, action)
        return reward + gamma * jnp.where(reached, 0.0, between(value, following))

    return jax.lax.map(of, actions)


@partial(jax.jit, static_argnames=("points",))
def soft_value(temperature: Array, gamma: Array, actions: Array, *, points: int) -> Array:
    """The fixed point of V(s) = α log ∫ exp(Q(s, a)/α) da on a grid, [points, points]."""
    positions = grid(points, two_passage.TwoPassage.half_width)

    def backup(value: Array) -> Array:
        q = soft_q(value, gamma, positions, actions) / temperature
        return temperature * (logsumexp(q, axis=0) + jnp.log(VOLUME / len(actions))).reshape(points, points)

    def far(pair: tuple[Array, Array]) -> Array:
        return jnp.abs(pair[0] - pair[1]).max() > ERROR * (1 - gamma) / gamma

    first = jnp.zeros((points, points))
    return jax.lax.while_loop(far, lambda pair: (backup(pair[0]), pair[0]), (backup(first), first))[0]


@partial(jax.jit, static_argnames=("blocked",))
def arrivals(
    value: Array, temperature: Array, gamma: Array, actions: Array, key: Array, *, blocked: bool
) -> tuple[Array, Array]:
    """The shares of episodes that arrive, and that have been in the lower passage; the policy takes it for open."""
    task = TwoPassage(blocked)

    def step(carry: tuple[Array, Array, Array], key: Array) -> tuple[tuple[Array, Array, Array], None]:
        positions, arrived, lower = carry
        choice = jax.random.categorical(key, soft_q(value, gamma, positions, actions).T / temperature)
        following, _, reached = jax.vmap(task.move)(positions, actions[choice])
        positions = jnp.where(arrived[:, None], positions, following)
        inside = (jnp.abs(positions[:, 0]) < two_passage.TwoPassage.wall[1]) & (positions[:, 1] < 0)
        return (positions, arrived | reached, lower | inside), None

    first, key = jax.random.split(key)
    nowhere = jnp.zeros(EPISODES, bool)
    carry = jax.vmap(task.begin)(jax.random.split(first, EPISODES)), nowhere, nowhere
    (_, arrived, lower), _ = jax.lax.scan(step, carry, jax.random.split(key, TIME_LIMIT))
    return arrived.mean(), lower.mean()


def main() -> None:
    """Solve the maze at the discounts and temperatures that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
    parser.add_argument("--discounts", type=float, nargs="+", default=[0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99])
    parser.add_argument("--points", type=int, default=81, help="of the grid of positions, in each coordinate")
    parser.add_argument("--actions", type=int, default=9, help="in each coordinate")
    arguments = parser.parse_args()
    actions = grid(arguments.actions, 1.0)
    rows = []
    for gamma, temperature in itertools.product(arguments.discounts, arguments.temperatures):
        value = soft_value(jnp.float32(temperature), jnp.float32(gamma), actions, points=arguments.points)
        row = {"gamma": gamma, "temperature": temperature}
        for name, blocked in (("open", False), ("blocked", True)):
            shares = arrivals(
                value, jnp.float32(temperature), jnp.float32(gamma), actions, jax.random.key(0), blocked=blocked
            )
            row |= dict(zip((name, f"{name}, lower passage"), (round(float(share), 4) for share in shares)))
        rows.append(row)
        print(row, flush=True)
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": folder.versions(),
        "machine": folder.machine(),
        "git": folder.git_revision(),
        "grid": {"positions": arguments.points**2, "actions": len(actions)},
        "episodes": EPISODES,
        "policies": rows,
    }
    (RESULTS / "passage.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
