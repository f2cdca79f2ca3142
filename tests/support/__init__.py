"""Helpers for the tests of every room, one of each. Imported as `from support.x import y`."""
