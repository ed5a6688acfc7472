"""Measurements: what was measured, on what, against what."""
