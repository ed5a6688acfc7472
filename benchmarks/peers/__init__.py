"""Peers: what people would use instead of our exported models."""
