"""Finds the bytes that a server has sent to a slow reader, and the kernel has not taken yet."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .touchpoints import Transport


def unsent_bytes(transport: Transport) -> int:
    """Return how many bytes wait in *transport* for its client to read more.

    With TLS there are two transports, one above the other. `get_write_buffer_size` of the upper one
    leaves out what it has encrypted and given to the lower one: 64 kB, or the whole of a large body
    that was written at once.
    """
    try:
        unsent = transport.get_write_buffer_size()
        is_tls = transport.get_extra_info("sslcontext") is not None
    except AttributeError:  # closed twice: see `_socket_of` in `tcp`
        return 0
    if is_tls:
        unsent += sum(lower.get_write_buffer_size() for lower in _lower(transport))
    return unsent


def _lower(transport: Transport) -> Iterator[Transport]:
    """Yield the transport below the TLS of *transport*. Neither loop has a name for it.

    asyncio and uvloop both have an `SSLProtocol` in between. uvloop shows the attributes of its own
    to nobody but the garbage collector.
    """
    for protocol in gc.get_referents(transport):
        if type(protocol).__name__ == "SSLProtocol":
            of_asyncio = getattr(protocol, "_transport", None)
            candidates = gc.get_referents(protocol) if of_asyncio is None else [of_asyncio]
            for each in candidates:
                if each is not transport and hasattr(each, "get_write_buffer_size"):
                    yield each
