"""Environments written in JAX, which the device loop compiles together with the policy that acts in them."""
