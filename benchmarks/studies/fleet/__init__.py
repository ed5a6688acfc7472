"""Measurements of several workers, and of several videos at a time, made by hand."""
