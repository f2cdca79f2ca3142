"""The package with frameworks, clients, proxies, servers and other programs of others.

`make integration` runs this folder, and `make test` all others. CI runs both.
"""
