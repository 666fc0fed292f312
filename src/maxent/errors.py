"""What this library raises on purpose. Every message says what was found, what was expected and what to do."""


class MaxentError(Exception):
    """The base of every error that the library raises on purpose."""


class ConfigError(MaxentError, ValueError):
    """A setting, an argument or an environment's description that cannot work. Raised before training starts."""


class EnvironmentFault(MaxentError, RuntimeError):
    """An environment that broke its own description while it ran."""


class TrainingFault(MaxentError, RuntimeError):
    """A training that has gone wrong: numbers that are not finite, a dead temperature, values that diverge."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); like a Ctrl-C, but for the exit code."""


class CheckpointError(MaxentError, RuntimeError):
    """A file of a run that is missing, damaged, or of another format."""
