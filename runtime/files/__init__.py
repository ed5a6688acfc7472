"""Files read and written with care: whole or not at all, bounded, synced."""
