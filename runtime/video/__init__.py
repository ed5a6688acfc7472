"""Video and sound through FFmpeg, in and out."""
