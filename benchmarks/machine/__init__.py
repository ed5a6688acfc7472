"""What a machine is, draws and can do at most."""
