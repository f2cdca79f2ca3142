"""What hangs, and the last resort against it."""
