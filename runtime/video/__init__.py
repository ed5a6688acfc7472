"""Reads and writes video and sound with FFmpeg."""
