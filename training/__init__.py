"""Training: datasets with gaze in, checkpoints in the published layout out (`salema-train`)."""
