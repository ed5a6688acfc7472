"""INT8: calibration, quantisation, and the gate that it must pass."""
