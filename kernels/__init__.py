"""The device layer: CUDA memory, streams and graphs. Imports nothing else of ours."""
