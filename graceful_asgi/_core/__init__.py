"""The drain itself: what it decides, what it waits for, the work in flight."""
