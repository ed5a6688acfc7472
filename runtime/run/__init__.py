"""Runs a model over sources or datasets, and writes the outputs."""
