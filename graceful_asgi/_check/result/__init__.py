"""What was seen, and what it means: counts, findings, the verdict, and all ways to show it."""
