"""Measurements of several workers, made by hand."""
