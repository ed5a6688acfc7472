"""What a run leaves: videos, maps, numbers, a window, and the record of what made them."""
