"""What a user names as a source, opened and played frame by frame."""
