"""The kernels as functions: arguments checked, then one launch."""
