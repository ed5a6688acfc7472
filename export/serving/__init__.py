"""What servers take: a Triton model repository, DeepStream's configuration."""
