"""The backends on a CPU, and the code that opens a model with any backend."""
