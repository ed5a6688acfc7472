"""A CUDA device: memory, stream, graphs, launches."""
