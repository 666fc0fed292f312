"""The driver: it alone consumes a loop's reports, and logs, evaluates, saves and stops.

The command and the Python object are two faces of it.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from maxent import devices, registry
from maxent.config import MOST_STEPS, TrainConfig
from maxent.envs.contract import Envs, Episode
from maxent.envs.device.env import refuse_unfit
from maxent.envs.host import HostEnvs
from maxent.envs.make import Factory
from maxent.envs.workers import Workers
from maxent.errors import CheckpointError, ConfigError, TrainingFault
from maxent.loops.device import DeviceLoop
from maxent.loops.evaluate import PARALLEL, Evaluator, evaluate
from maxent.loops.host import HostLoop
from maxent.loops.loop import Loop, Report
from maxent.loops.programs import Programs
from maxent.run import checkpoint, folder, guards
from maxent.run.history import EPISODES, PERIOD, History
from maxent.run.interrupts import Interrupts
from maxent.run.keeper import Keeper
from maxent.run.loggers import CSVLogger, Logger, Patient, Row, TensorBoardLogger, cut_back
from maxent.settings import check
from maxent.sweep import members, with_numbers
from maxent.types import Algorithm

FAR_OFF_SCALE = 100.0
"""An observation entry beyond this is worth a warning: networks start with unit scales in mind."""


class Progress(NamedTuple):
    """What callbacks are told at every report."""

    step: int
    total: int
    rows: Sequence[Row]
    """One a member: step, returns, losses, …; an empty text where there is no number yet."""


Callback = Callable[[Progress], bool | None]
"""Called at every report; False stops the training."""


class Driver:
    """One run of one algorithm: the loop, and everything that is done with its reports.

    Raises:
        ConfigError: where settings and environment do not fit each other; nothing is written by then.
    """

    def __init__(
        self, config: TrainConfig, settings: Any, factory: Factory, envs: Envs | None = None, path: Path | None = None
    ) -> None:
        check(config, "train")
        check(settings, config.algo)
        self.config, self.settings, self.factory, self.path = config, settings, factory, path
        self.members = members(config, settings)
        devices.begin(config, settings, len(self.members))
        self.seeds = [member.seed for member in self.members]
        algorithm = registry.algorithm(config.algo)
        self._make = Workers(factory, config.env_workers, config.step_timeout) if config.env_workers else factory
        self._evaluator: Evaluator | None = None
        self.loop = self._begin(algorithm, envs)
        self.programs = self.loop.programs
        self.history = History(self.members)
        self.keeper = Keeper(path or Path(), config, self.loop, self.history)
        self._warned = False
        self._last_rows: Sequence[Row] = []
        self._interrupts = Interrupts(self.loop)

    def _begin(self, algorithm: Algorithm, envs: Envs | None) -> Loop:
        """The loop over the user's environments, those of the device, or those that the host makes."""
        config, device = self.config, self.factory.on_device() if envs is None else None
        settings, numbers = with_numbers(self.settings, self.members), [member.numbers for member in self.members]
        swept = {name: jnp.array([own[name] for own in numbers], jnp.float32) for name in numbers[0]}
        mesh = devices.choose(config.device, len(self.members))
        if device is not None:
            for name in ("env_workers", "env_restarts"):
                if value := getattr(config, name):
                    raise ConfigError(f"train.{name} is {value}, and {config.env} runs on the device: leave it out")
            refuse_unfit(config.env or "the environment", device)
            programs = Programs(algorithm, settings, device.spec, mesh)
            self._evaluator = Evaluator(programs, device)
            return DeviceLoop(programs, device, config.envs, self.seeds, swept)
        envs = envs or HostEnvs(self._make, self.seeds, config.envs, restarts=config.env_restarts)
        return HostLoop(Programs(algorithm, settings, envs.spec, mesh), envs, self.seeds, swept)

    @property
    def warn(self) -> Callable[[str], None]:
        """What is told everything that a user should know and that stops nothing."""
        return self.keeper.warn

    @warn.setter
    def warn(self, warn: Callable[[str], None]) -> None:
        self.keeper.warn = warn

    def learn(self, total: int, callbacks: Sequence[Callback] = ()) -> bool:
        """Train until the step `total`; whether it got there. A run folder is kept up to date on the way.

        An interrupt (Ctrl-C) or SIGTERM saves before it goes on its way. An evaluation that it breaks off is played
        when the run goes on.

        Raises:
            TrainingFault: where training has gone wrong; the last checkpoint is then one from before.
            ConfigError: where another process trains in the same run folder, or the updates are too many.
        """
        refuse_too_many(self.config, self.settings, total)
        self.refuse_half_a_step()
        with self._interrupts.held():
            if self.path is None:
                return self._learn(total, callbacks, [])
            with folder.locked(self.path):
                while True:
                    try:
                        return self._learn_in_folder(self.path, total, callbacks)
                    except TrainingFault as fault:
                        if self.config.on_fault == "stop":
                            raise
                        self.keeper.go_back(fault)

    def _learn_in_folder(self, path: Path, total: int, callbacks: Sequence[Callback]) -> bool:
        """Train with the run's files open; but for a fault, the last moment is saved whatever happens."""
        members = range(len(self.seeds))
        tensorboard = [path / folder.TENSORBOARD / (f"member-{i}" if len(members) > 1 else "") for i in members]
        try:
            self.keeper.set_damaged_aside()
            step, columns = self.loop.step, self.history.columns
            cut_back(path / folder.PROGRESS, step, columns(PERIOD, self.programs.metrics))
            cut_back(path / folder.EVALUATIONS, step - self.history.evaluation_due, columns(EPISODES))
            for own in tensorboard:
                own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from None
        loggers = [Patient(CSVLogger(path / folder.PROGRESS, path / folder.EVALUATIONS), self.warn)]
        loggers += [Patient(TensorBoardLogger(tensorboard[i], i, self.loop.step), self.warn) for i in members]
        try:
            finished = self._learn(total, callbacks, loggers)
        except BaseException as error:
            try:
                self._leave(path, loggers, error if isinstance(error, TrainingFault) else None)
            except CheckpointError as unwritten:
                if not isinstance(error, Exception):
                    raise unwritten from None  # an interrupt must not be taken for one that saved
                self.warn(str(unwritten))
            raise
        self._leave(path, loggers)
        return finished

    def _leave(self, path: Path, loggers: Sequence[Logger], fault: TrainingFault | None = None) -> None:
        """Write what is left: rows, and this moment, or, where training has gone wrong, what was found.

        Raises:
            CheckpointError: where something cannot be written.
        """
        self.keeper.wait()
        left: list[Callable[[], Any]] = [logger.close for logger in loggers]
        if fault is not None:
            left.append(lambda: guards.write_report(path / folder.FAULT, fault, self._last_rows))
        elif self.loop.whole and self.loop.sound:
            left.append(self.keeper.write)
        errors = []
        for write in left:
            try:
                write()
            except OSError as error:
                errors.append(error)
        if errors:
            raise _unwritable(path, errors[-1])

    def evaluate(
        self,
        episodes: int,
        seed: int | None = None,
        explore: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Episode]]:
        """So many episodes of every member, [member][episode], in environments of their own.

        Without a seed, those that the run's own evaluations play; the episodes are a function of the seed alone.
        `between` is called before every step, or some of them, and may raise.
        """
        seeds = self.seeds if seed is None else [seed] * len(self.seeds)
        roots = self.programs.roots(seeds)
        if self._evaluator is not None:
            return self._evaluator.play(self.loop.view, roots, episodes, explore, between)
        parallel, restarts = min(episodes, PARALLEL), self.config.env_restarts
        envs = HostEnvs(self._make, seeds, parallel, stream="eval", restarts=restarts)
        try:
            return evaluate(self.programs, self.loop.view, envs, roots, episodes, explore, between)
        finally:
            self.loop.faults += envs.faults
            envs.close()

    def save(self, path: Path) -> None:
        """Write a checkpoint of this moment into a run folder.

        Raises:
            CheckpointError: where it cannot be written.
        """
        try:
            self.keeper.write(path)
        except OSError as error:
            raise _unwritable(path, error) from None

    def refuse_half_a_step(self) -> None:
        """A TrainingFault where something, a second signal say, broke off a step, of which a part is missing since."""
        if not self.loop.whole:
            raise TrainingFault("training was broken off within a step: go on from what was saved, by maxent.load")

    def _learn(self, total: int, callbacks: Sequence[Callback], loggers: Sequence[Logger]) -> bool:
        config, every = self.config, self.config.log_every
        self.keeper.tell_of_cuts()
        due, self.history.evaluation_due = self.history.evaluation_due, False
        if due and self.path is not None:
            self._evaluate_and_keep_best(loggers)
        started, step = time.monotonic(), self.loop.step
        for report in self.loop.run(total, every):
            now = time.monotonic()
            rows = self.history.rows(report, self.programs.metrics, report.step - step, now - started)
            before, step = step, report.step
            self._refuse_faults(report, rows)
            for logger in loggers:
                logger.progress(rows)
            self._warn_of_scale(rows)
            ends = report.step >= total
            if self.path is not None:
                if not self.keeper.busy():
                    self.keeper.wait()
                if ends or _passed(config.eval_every, before, step):
                    self._evaluate_and_keep_best(loggers)
                if not ends and _passed(config.checkpoint_every, before, step):
                    self.keeper.write_meanwhile("step")
            if any([callback(Progress(step, total, rows)) is False for callback in callbacks]):
                return False
            started = time.monotonic()
        if self.loop.step < total:
            raise self._interrupts.reason
        return True

    def _evaluate_and_keep_best(self, loggers: Sequence[Logger]) -> None:
        try:
            played = self.evaluate(self.config.eval_episodes, between=self._interrupts.refuse)
        except KeyboardInterrupt:
            self.history.evaluation_due = True
            raise
        finally:
            self._tell_of_faults()
        rows = self.history.evaluation(self.loop.step, played)
        for logger in loggers:
            logger.evaluation(rows)
        means = [float(np.mean([e.total_reward for e in own])) for own in played]
        if np.mean(means) > np.mean(self.history.best):
            self.history.best = means
            self.keeper.write_meanwhile("best")

    def _tell_of_faults(self) -> None:
        for fault in self.loop.faults:
            self.warn(f"{fault}; it was made anew, and its episode cut")
        self.loop.faults.clear()

    def _refuse_faults(self, report: Report, rows: Sequence[Row]) -> None:
        """A TrainingFault where a member has gone wrong."""
        self._last_rows = rows
        self._tell_of_faults()
        self.history.refuse_faults(self.loop, report, rows)

    def _warn_of_scale(self, rows: Sequence[Row]) -> None:
        normalized = getattr(self.settings, "normalize_observations", False)
        for row in rows:
            low, high = row.get("obs_min", ""), row.get("obs_max", "")
            if not self._warned and not normalized and low != "" and max(abs(low), abs(high)) > FAR_OFF_SCALE:
                self._warned = True
                self.warn(
                    f"observations reach from {low:.4g} to {high:.4g}: scale them to about [-1, 1], or set "
                    "normalize_observations"
                )


def start(config: TrainConfig, settings: Any, env_kwargs: Mapping[str, Any], out: str = "") -> Driver:
    """A new run in a folder of its own, which is made last: nothing is written where anything is refused."""
    refuse_too_many(config, settings, config.steps)
    path = folder.choose(config, out)
    driver = Driver(config, settings, Factory(config.env, env_kwargs, config.max_episode_steps), path=path)
    folder.create(path, config, settings, env_kwargs)
    return driver


def reopen(path: str | Path, best: bool = False, warn: Callable[[str], None] = warnings.warn) -> Driver:
    """The run in that folder, at its last or best checkpoint; one that has none yet is at its beginning."""
    config, settings, kwargs = folder.read(path)
    folder.refuse_own_code(path, config.env)
    factory = Factory(config.env, kwargs, config.max_episode_steps)
    driver = Driver(config, settings, factory, path=Path(path))
    driver.warn = warn
    if best or checkpoint.begun(Path(path) / folder.CHECKPOINTS):
        driver.keeper.restore(Path(path), best)
    else:
        warn(f"{path} has no checkpoint: it begins again")
    return driver


def refuse_too_many(config: TrainConfig, settings: Any, steps: int) -> None:
    """A ConfigError where so many steps ask for more updates than are counted in 32 bits."""
    utd = getattr(settings, "utd", 0.0)
    if steps * utd > MOST_STEPS:
        raise ConfigError(
            f"{config.algo}.utd is {utd:g} and the steps are {steps:,}: "
            f"together they may be at most {MOST_STEPS:,} updates"
        )


def _unwritable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot write {error.filename} ({error.strerror}): what is not in the last checkpoint of {path} is not kept; "
        "make room there, or save elsewhere"
    )


def _passed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for 0."""
    return every > 0 and now // every > before // every
