"""TensorRT engines, built from the ONNX graph."""
