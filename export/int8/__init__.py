"""INT8: calibration, quantisation, and the check that it must pass."""
