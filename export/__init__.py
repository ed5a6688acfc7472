"""From a checkpoint to an exported model. PyTorch lives here only."""
