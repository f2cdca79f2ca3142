"""The clients of the check: connections, requests, and what became of each. No server process."""
