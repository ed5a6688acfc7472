"""The backends on a CPU, and opening a model with one of all backends."""
