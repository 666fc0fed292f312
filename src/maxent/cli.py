"""The command `maxent`: what stands on the command line, and what each command does.

JAX and Gymnasium are imported within the commands, so that help and most errors are instant. How words become
options is in `maxent.command.arguments`.
"""

import contextlib
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagConversionOff, Positional, arg

from maxent import registry
from maxent.command import arguments, startup
from maxent.config import MOST_STEPS, Auto, TrainConfig
from maxent.errors import ConfigError, MaxentError
from maxent.run import folder
from maxent.settings import build, read_toml, setting, suggestion

if TYPE_CHECKING:
    from maxent.run.policy import Policy

SUMMARY = "Maximum-entropy reinforcement learning in JAX. `maxent COMMAND --help` explains every option."
BAD_INPUT = 2
"""The exit code of every error that names its cause, and of a fault that `check` found."""

RunFolder = Annotated[Positional[str], arg(metavar="RUN")]
EnvArguments = Annotated[dict, arg(name="env.KEY", metavar="VALUE", help_behavior_hint="")]


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a policy. Everything about it is kept in a run folder: settings, curves, checkpoints."""

    env: Annotated[Positional[str], arg(metavar="ENV", help_behavior_hint="")] = ""
    """Gymnasium id, or module:Name of your own class, factory or registered id."""
    config: str = ""
    """TOML file as any run's config.toml: tables [train], [env], and one named after the algorithm. The command line
    goes over it."""
    out: str = ""
    """Run folder, empty or absent; else the next free one under runs/."""
    env_kwargs: EnvArguments = field(default_factory=dict)
    """Argument of the environment's constructor; as many as there are, such as --env.hardcore true."""

    def __call__(self) -> int:
        """Train from the beginning."""
        config = build(TrainConfig, {f.name: getattr(self, f.name) for f in fields(TrainConfig)}, "train")
        settings = build(registry.entry(self.algo).config, vars(getattr(self, self.algo)), self.algo)
        if not self.env:
            raise ConfigError("train needs an environment: maxent train ENV; `maxent list envs` shows those there are")
        use_compilation_cache()
        from maxent.command import console
        from maxent.run import driver

        if config.video:
            from maxent.envs.make import Factory
            from maxent.run import video

            video.rendering(Factory(config.env, self.env_kwargs), "rgb_array").close()
        return console.train(driver.start(config, settings, self.env_kwargs, self.out), config.steps)


@dataclass(frozen=True)
class Resume:
    """Continue a run from its last checkpoint, with its curves."""

    run: RunFolder
    """Run folder."""
    steps: int = setting(0, low=0, high=MOST_STEPS)
    """Environment steps of each member in total, those that are done included; 0 for the run's own."""

    def __call__(self) -> int:
        """Train on."""
        config, settings, env_kwargs = folder.read(self.run)
        total = self.steps or config.steps
        use_compilation_cache()
        from maxent.command import console
        from maxent.run import driver

        driver.refuse_too_many(config, settings, total)
        folder.refuse_trained(Path(self.run))
        run = driver.reopen(self.run, warn=console.warn)
        if total <= run.loop.step and not run.history.evaluation_due:
            raise ConfigError(f"{self.run} has done {run.loop.step} steps of {total}: give a larger total with --steps")
        with folder.locked(Path(self.run)):
            if total > config.steps:
                folder.write_config(Path(self.run), dataclasses.replace(config, steps=total), settings, env_kwargs)
            folder.record_command(Path(self.run))
        return console.train(run, total)


@dataclass(frozen=True)
class Check:
    """Find what is wrong with an environment before anything trains on it. Exit code 2 where training cannot work."""

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """Gymnasium id, or module:Name of your own class, factory or registered id."""
    episodes: int = setting(3, low=1)
    """Episodes of random actions to play; more where they are short."""
    steps: int = setting(1000, low=1)
    """Steps after which an episode is left that has not ended."""
    max_episode_steps: int = setting(0, low=0, high=2**31 - 1)
    """Time limit of an episode, as of train; 0 keeps the environment's own."""
    json: bool = False
    """Print JSON: env, fault, findings (each with check, severity, found, advice, entries)."""
    env_kwargs: EnvArguments = field(default_factory=dict)
    """Argument of the environment's constructor."""

    def __call__(self) -> int:
        """Check and print; the exit code."""
        from maxent.command import findings
        from maxent.envs.check import check

        startup.ends()
        with contextlib.redirect_stdout(sys.stderr):  # what the environment itself may print
            found = check(
                self.env,
                env_kwargs=self.env_kwargs,
                max_episode_steps=self.max_episode_steps,
                episodes=self.episodes,
                steps=self.steps,
            )
        fault = any(f.severity == "fault" for f in found)
        if self.json:
            print(json.dumps({"env": self.env, "fault": fault, "findings": [f._asdict() for f in found]}))
        else:
            findings.show(found)
        return BAD_INPUT if fault else 0


@dataclass(frozen=True)
class Acting:
    """What the commands share that let a trained policy act."""

    run: RunFolder
    """Run folder."""
    best: bool = False
    """Take the checkpoint of the best evaluation, of all members together, not the last one."""
    episodes: int = setting(1, low=1)
    """Episodes to play."""
    member: int = setting(0, low=0)
    """Which policy of a run with several seeds, counted from 0."""
    seed: int | Auto = setting("auto", low=0, high=2**31 - 1)
    """Seed of the episodes; "auto" plays those that the run's own evaluations play."""
    env_kwargs: EnvArguments = field(default_factory=dict)
    """Argument of the environment's constructor, over the run's own."""

    @property
    def episode_seed(self) -> int | None:
        """The seed as `Policy.play` takes it."""
        return None if isinstance(self.seed, str) else self.seed

    def policy(self) -> "Policy":
        """The policy that is asked for."""
        folder.read(self.run)
        use_compilation_cache()
        from maxent.command import console
        from maxent.run import policy

        loaded = policy.load(self.run, self.best, self.member, self.env_kwargs, console.warn)
        startup.ends()
        return loaded


@dataclass(frozen=True)
class Eval(Acting):
    """Play episodes with a trained policy's mean action and print the mean return ± its standard deviation."""

    episodes: int = setting(10, low=1)
    """Episodes to play."""
    stochastic: bool = False
    """Draw actions from the policy, as in training, in place of the mean action."""
    json: bool = False
    """Print JSON: run, step, member, seed, mean_return, std_return, returns, lengths, success_rate; also a sweep's
    setting."""

    def __call__(self) -> int:
        """Evaluate and print."""
        policy = self.policy()
        from maxent.loops.evaluate import Evaluation

        result = Evaluation.of(policy.play(self.episodes, self.episode_seed, self.stochastic))
        if self.json:
            told = {"run": self.run, "step": policy.step, "member": self.member} | policy.member.columns()
            print(json.dumps(told | result._asdict()))
        else:
            range_ = f"{min(result.returns):.1f} to {max(result.returns):.1f}"
            print(f"return {result.mean_return:.1f} ± {result.std_return:.1f} ({range_})")
            print(f"length {sum(result.lengths) / self.episodes:.1f}")
            if result.success_rate is not None:
                print(f"success {result.success_rate:.0%}")
            print(f"in {self.episodes} episodes after {policy.step:,} steps with {policy.member}")
        return 0


@dataclass(frozen=True)
class Record(Acting):
    """Record a video of a trained policy; no screen is needed."""

    out: str = ""
    """File to write, .mp4 or .gif; else one in the run's videos/: MP4, or GIF where ffmpeg is missing."""

    def __call__(self) -> int:
        """Record and say where."""
        policy = self.policy()
        from maxent.run import video

        out = Path(self.out) if self.out else video.default_path(self.run, policy, self.best)
        for episode in video.record(policy, out, self.episodes, self.episode_seed):
            print(f"return {episode.total_reward:.1f}, length {episode.length}")
        print(f"video   {out}")
        return 0


@dataclass(frozen=True)
class Play(Acting):
    """Watch a trained policy in a window."""

    def __call__(self) -> int:
        """Show it."""
        policy = self.policy()
        from maxent.run import video

        for episode in video.show(policy, self.episodes, self.episode_seed):
            print(f"return {episode.total_reward:.1f}, length {episode.length}")
        return 0


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of one or more runs into one picture."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN…")]
    """Run folders."""
    out: str = ""
    """File to write, its ending says the format; else curve.png in the run, or curves.png here for several."""

    def __call__(self) -> int:
        """Draw and say where."""
        if not self.runs:
            raise ConfigError("plot needs at least one run: maxent plot RUN…; `maxent list runs` shows those there are")
        for run in self.runs:
            folder.read(run)
        from maxent.study import curves

        out = self.out or (Path(self.runs[0]) / folder.CURVE if len(self.runs) == 1 else "curves.png")
        curves.draw(self.runs, out)
        print(f"curve   {out}")
        return 0


@dataclass(frozen=True)
class List:
    """List the environments that are registered, the algorithms, or the runs in a folder."""

    what: Annotated[Positional[Literal["envs", "algorithms", "runs"]], arg(metavar="envs|algorithms|runs")]
    """What to list."""
    root: str = "runs"
    """Where to look for runs."""

    def __call__(self) -> int:
        """Print a line each."""
        from maxent.command import listing

        for line in listing.lines(self.what, Path(self.root)):
            print(line)
        return 0


COMMANDS: dict[str, type] = {
    "train": Train, "resume": Resume, "eval": Eval, "record": Record, "play": Play, "plot": Plot, "list": List,
    "check": Check,
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's own log
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        try:
            return int(parse(sys.argv[1:] if words is None else words)())
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # such as `maxent list envs | head`
            return 0
        except (MaxentError, OSError) as error:
            print(f"maxent: error: {' '.join(str(error).split())}", file=sys.stderr)
            return BAD_INPUT
        except KeyboardInterrupt:
            print("maxent: interrupted", file=sys.stderr)
            return startup.INTERRUPTED


def parse(words: Sequence[str]) -> Any:
    """The command that the words name: an object of one of the classes above, checked and ready to be called.

    Raises:
        ConfigError: in one line, on anything that cannot be understood.
        SystemExit: after help.
    """
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        tyro.extras.subcommand_cli_from_dict({**COMMANDS}, prog="maxent", description=SUMMARY, args=["--help"])
    if name == "--version":
        print(f"maxent {folder.versions().get('maxent-rl', 'from a source tree')}")
        raise SystemExit(0)
    if name not in COMMANDS:
        raise ConfigError(f"there is no command {name!r}{suggestion(name, COMMANDS)}")
    cls, default, extra = COMMANDS[name], None, {}
    if any(f.name == "env_kwargs" for f in fields(cls)):
        rest, env_kwargs = arguments.take_table(rest, "env")
        if cls is Train:
            cls, default = _with_algorithm(rest)
            env_kwargs = default.env_kwargs | env_kwargs
        extra = {"env_kwargs": env_kwargs}
    return arguments.read(cls, rest, name, default, extra)


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, so that the second one starts at once; JAX's own variables go first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maxent" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _with_algorithm(words: Sequence[str]) -> tuple[type, Train]:
    """`Train` with the options of the algorithm that is asked for, and its defaults, which a config file may set."""
    file, algo = arguments.option(words, "config"), arguments.option(words, "algo")
    tables = read_toml(file) if file else {}
    own = tables.get("train", {})
    if isinstance(own, dict):
        tables["train"] = {"env": ""} | own | ({"algo": algo} if algo else {})
        if arguments.option(words, "sweep"):
            tables["train"]["sweep"] = []  # else the command line's would be added to the file's
    train, settings, env_kwargs = folder.from_tables(tables, file)
    parameters = FlagConversionOff[type(settings)]  # type: ignore[misc, valid-type]
    cls = dataclasses.make_dataclass("Train", [(train.algo, parameters, settings)], bases=(Train,), frozen=True)
    cls.__doc__ = Train.__doc__
    return cls, cls(**vars(train), config=file, env_kwargs=env_kwargs)
