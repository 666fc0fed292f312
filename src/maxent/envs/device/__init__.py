"""Environments written in JAX, which the device loop compiles together with the policy that acts in them."""

SUITES = {
    "jax": "maxent.envs.device.own",
    "brax": "maxent.envs.device.brax",
    "playground": "maxent.envs.device.playground",
    "gymnax": "maxent.envs.device.gymnax",
}
"""What stands before the slash of a name → the module whose `make` and `names` know the rest."""


def on_device(name: str) -> bool:
    """Whether a name is that of an environment for the device: `jax/…`, `brax/…`, `playground/…` or `gymnax/…`."""
    return name.partition("/")[0] in SUITES and ":" not in name
