"""Checkpoints, and the variant of the network that their weights show."""
