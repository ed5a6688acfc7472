"""NumPy twins of the kernels: the same names, arguments and roundings, to check the kernels against."""
