"""Caches, one step, the loop, checkpoints; out comes an adapter."""
