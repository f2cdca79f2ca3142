"""What the tests of every room use: one of each helper. Imported as `from support.x import y`."""
