"""Maps, densities and fixations on disk."""
