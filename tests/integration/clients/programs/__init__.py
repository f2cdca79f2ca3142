"""Servers and clients that run as programs of their own."""
