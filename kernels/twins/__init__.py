"""NumPy twins of the kernels: the same names, arguments and roundings."""
