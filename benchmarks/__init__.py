"""Measurements: what was measured, on what, against what."""

import salema.runtime  # noqa: F401 - before anything here imports ONNX Runtime, it turns its telemetry off
