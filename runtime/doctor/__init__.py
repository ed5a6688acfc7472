"""The command `salema-doctor`: what works on this machine."""
