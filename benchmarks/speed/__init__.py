"""The command `salema-bench`: speed, cost, and what they are worth."""
