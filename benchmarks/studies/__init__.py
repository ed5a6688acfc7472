"""Measurements made by hand. Not in the wheel."""
