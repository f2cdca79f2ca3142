"""Counts, findings, the verdict, and all ways to show them."""
