"""The command `salema-bench`: speed, accuracy and cost."""
