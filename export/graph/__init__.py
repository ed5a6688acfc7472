"""The network as a graph: PyTorch, ONNX, ncnn, and the proof that they agree."""
