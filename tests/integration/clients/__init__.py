"""Drains as official clients see them: nothing that is cut looks complete to any of them.

`make clients ROUNDS=20` runs each drain of this folder twenty times, on asyncio and on uvloop.
"""
