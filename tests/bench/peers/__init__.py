"""The apps of the servers compared: the same three paths, in each server's own terms."""
