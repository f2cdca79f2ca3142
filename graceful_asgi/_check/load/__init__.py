"""One run of the clients: connections, requests, and what became of each. No process, no signal."""
