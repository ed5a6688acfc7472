"""Checkpoints, and what a network's weights tell of it."""
