"""Everything around a loop: the driver, the run folder, checkpoints, loggers, videos."""
