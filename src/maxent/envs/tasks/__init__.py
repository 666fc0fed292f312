"""The library's own tasks, known to Gymnasium as `maxent/…`.

An installed library is found by Gymnasium itself, through the entry point `gymnasium.envs`; `maxent.envs.make` and
`maxent list envs` register them too, so that a source tree needs no installation.
"""

import gymnasium

TASKS = {
    "maxent/MultiGoal-v0": ("maxent.envs.tasks.multigoal:MultiGoal", 30),
    "maxent/TwoPassage-v0": ("maxent.envs.tasks.two_passage:TwoPassage", 50),
}
"""Id → where the class is, and the time limit in steps."""


def register() -> None:
    """Make the tasks known to Gymnasium; once is enough, and more does no harm."""
    for name, (entry_point, limit) in TASKS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point, max_episode_steps=limit)
