"""The network as a graph: PyTorch, ONNX, ncnn, and the check that they agree."""
