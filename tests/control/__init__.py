"""The control socket: its protocol, its directory, its server and its client."""
