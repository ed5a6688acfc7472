"""What clients of every kind do to each other at one `salema-serve`."""
