"""`salema-serve`: maps and pictures of cameras, and of what browsers send, over HTTP and WebSockets."""
