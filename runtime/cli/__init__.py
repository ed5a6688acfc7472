"""The command `salema-run`, and how every command starts and prints."""
