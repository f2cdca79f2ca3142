"""The server under test: its command, its port, its process, and its log."""
