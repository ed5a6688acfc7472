"""CUDA memory, streams, graphs and kernels. Imports no other package of ours."""
