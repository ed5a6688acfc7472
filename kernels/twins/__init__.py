"""NumPy twins of the kernels, to check them against: the same names, arguments and rounding."""
