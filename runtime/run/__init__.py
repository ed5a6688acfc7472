"""Whole runs: sources or datasets through a stream into outputs."""
