"""Independent videos in one batch: each steps a place of its own, from its own thread, and they share one model."""
