"""From a checkpoint to an exported model. PyTorch lives here only."""

import salema.runtime  # noqa: F401 - before anything here imports ONNX Runtime, it turns its telemetry off
