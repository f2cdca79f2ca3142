"""What lives as long as a server, beside its drain."""
