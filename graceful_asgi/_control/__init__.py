"""The control socket: one UNIX socket per process, in a directory of the server's own user."""
