"""What the servers of the comparison run: the same three paths, in each one's own terms."""
