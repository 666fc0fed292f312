"""Maximum-entropy reinforcement learning in JAX."""
