"""Finds the sources a user names, opens them, and plays their frames."""
