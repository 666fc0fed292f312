"""A trained policy that only acts: no loop and no replay, so it loads at once and needs little memory."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp

from maxent import devices, registry, streams
from maxent.envs.contract import Episode
from maxent.envs.host import HostEnvs
from maxent.envs.make import Factory
from maxent.errors import ConfigError
from maxent.loops.evaluate import PARALLEL, Evaluator, evaluate
from maxent.loops.programs import Programs
from maxent.run import checkpoint, folder
from maxent.sweep import Member, members, with_numbers
from maxent.types import Tree


class Policy:
    """One member of a run as it was at a checkpoint."""

    def __init__(
        self, programs: Programs, view: Tree, factory: Factory, member: Member, step: int, name: str = ""
    ) -> None:
        self.programs, self.view, self.factory = programs, view, factory
        self.member, self.seed, self.step = member, member.seed, step
        self.name = name or f"seed-{member.seed}"
        """What tells its files from those of other members."""

    def play(
        self,
        episodes: int,
        seed: int | None = None,
        explore: bool = False,
        make: Callable[[], gymnasium.Env] | None = None,
        parallel: int = PARALLEL,
    ) -> list[Episode]:
        """So many episodes, a function of the seed alone; without one, those that the run's own evaluations play.

        `make` replaces the environments by others with the same spaces: such as show or record what happens.
        """
        seeds = [self.seed if seed is None else seed]
        device = self.factory.on_device()
        if device is not None and make is None:
            return Evaluator(self.programs, device).play(self.view, streams.roots(seeds), episodes, explore)[0]
        envs = HostEnvs(make or self.factory, seeds, min(episodes, parallel), stream="eval")
        try:
            return evaluate(self.programs, self.view, envs, streams.roots(seeds), episodes, explore)[0]
        finally:
            envs.close()


def load(
    path: str | Path,
    best: bool = False,
    member: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Policy:
    """A member's policy at the last or best checkpoint of a run, for its environment with other arguments if given.

    Raises:
        ConfigError: where the folder is no run, or has no such member.
        CheckpointError: where there is no checkpoint, or it is damaged or of another version.
    """
    config, settings, kwargs = folder.read(path)
    known = members(config, settings)
    if member >= len(known):
        raise ConfigError(f"{path} has no member {member}: its members are numbered from 0 to {len(known) - 1}")
    folder.refuse_own_code(path, config.env)
    # One member acts, wherever JAX puts it: the devices that its run learned on may not be here.
    devices.begin(replace(config, device="auto"), settings, 1, learning=False)
    factory = Factory(config.env, kwargs | dict(env_kwargs or {}), config.max_episode_steps)
    programs = Programs(registry.algorithm(config.algo), with_numbers(settings, known), factory.spec())
    template = programs.init_shapes(streams.roots([m.seed for m in known]), {})
    found, learned = checkpoint.first_whole(
        checkpoint.candidates(Path(path) / folder.CHECKPOINTS, best),
        lambda path: checkpoint.load_tree(path, "state", template),
        warn,
    )
    step = checkpoint.read_manifest(found)["step"]
    view = jax.tree.map(lambda x: jnp.array(x[member : member + 1]), programs.algorithm.view(learned.state))
    name = f"member-{member}" if config.sweep else ""
    return Policy(programs, view, factory, known[member], step, name)
