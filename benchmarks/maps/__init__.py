"""Maps, densities and fixations as they lie on disk."""
