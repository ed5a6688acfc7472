"""Measurements of speed and accuracy, each with the machine and what it is compared with."""

import salema.runtime  # noqa: F401 - before anything here imports ONNX Runtime, it turns its telemetry off
