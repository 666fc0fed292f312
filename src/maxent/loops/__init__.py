"""The engine: what is compiled, and the loops that dispatch it."""
