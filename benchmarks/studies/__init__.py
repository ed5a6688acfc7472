"""Measurements made once, or again by hand. Not in the wheel."""
