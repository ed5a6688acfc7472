"""The published metrics, by three protocols."""
