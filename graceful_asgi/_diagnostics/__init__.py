"""Finds what hangs, and ends the process at the hard deadline."""
