"""The kernels as functions. Each checks its arguments, then launches once."""
