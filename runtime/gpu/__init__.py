"""TensorRT engines on a GPU, with frames, states and maps in its memory."""
