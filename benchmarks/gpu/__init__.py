"""`make gpu-check`: all checks that need a GPU, in one go."""
