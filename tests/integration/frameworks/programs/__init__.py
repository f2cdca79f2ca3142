"""Programs as people write them: each answers `/` at once and `/slow` after a second."""
