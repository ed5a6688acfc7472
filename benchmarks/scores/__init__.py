"""The command `salema-eval`: scores of maps against where people looked."""
