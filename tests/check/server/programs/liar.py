"""A server that is honest until SIGTERM, and lies in one way from then on: ``liar.py LIE PORT``.

Half a second after SIGTERM it is gone. "404 for slow" is told to requests for /slow only, and only
to those that come after SIGTERM. With the lie "none" it serves until then as before, and says
`Connection: close`. Raw sockets, so that every byte is as the lie wants it; standard library only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BODY: Final = b"<html><p>The whole truth, and nothing but the truth.</p></html>\n"
EVENT: Final = b"data: tick\n\n"
LAST_SECONDS: Final = 0.5
IP_MINTTL: Final = 21  # linux/in.h

lying = asyncio.Event()
conversations = 0
lie = sys.argv[1]


def response(
    body: bytes = BODY, *fields: bytes, status: bytes = b"200 OK", kind: bytes = b"text/html"
) -> bytes:
    """A complete answer."""
    length = b"Content-Length: %d" % len(body)
    close = [b"Connection: close"] if lying.is_set() else []
    head = [b"HTTP/1.1 " + status, b"Content-Type: " + kind, length, *close, *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def unframed(body: bytes) -> bytes:
    """An answer that ends with its connection."""
    return b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + body


def chunked(body: bytes, *, last: bytes = b"0\r\n\r\n") -> bytes:
    """An answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n" % (len(body), body) + last


def zipped(*, cut: int = 0) -> bytes:
    """An answer whose encoding is cut, and whose framing is not."""
    data = gzip.compress(BODY, mtime=0)
    return response(data[: len(data) - cut], b"Content-Encoding: gzip")


def honest() -> bytes:
    """The right answer."""
    if lie == "cut gzip":
        return zipped()
    return unframed(BODY) if lie.endswith(" without length") else response()


LIES: Final[dict[str, Callable[[], bytes]]] = {
    "404": lambda: response(b"not here", status=b"404 Not Found"),
    "redirect": lambda: response(b"", b"Location: /login", status=b"302 Found"),
    "empty 200": lambda: response(b""),
    "wrong body": lambda: response(b"<html><p>" + b"A lie. " * 7 + b"</p></html>\n"),
    "error page with 200": lambda: response(b"<h1>Service stopping</h1>"),
    "shorter body": lambda: response(BODY[:-10]),
    "another type": lambda: response(kind=b"application/json"),
    "cut gzip": lambda: zipped(cut=9),
    "cut chunked": lambda: chunked(BODY, last=b""),
    "cut without length": lambda: unframed(BODY[:20]),
    "head without length": lambda: unframed(b""),
    "503 without Retry-After": lambda: response(b"no", status=b"503 Service Unavailable"),
    "503 with Retry-After": lambda: response(b"no", b"Retry-After: 1", status=b"503 No"),
    "nothing": lambda: b"",
    "no HTTP": lambda: b"?\r\n\r\n",
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ")[1]
            if path == b"/events":
                return await events(writer)
            if path == b"/ws":
                return await websocket(head, reader, writer)
            is_late = lying.is_set()
            if path == b"/slow" and not (is_late and lie == "404 for slow"):
                await asyncio.sleep(0.7)
            always = {"401 always": b"401 No", "404 always": b"404 No", "500 always": b"500 No"}
            if lie in always:
                writer.write(response(b"no", status=always[lie]))
            elif path == b"/slow" and is_late and lie == "404 for slow":
                return writer.write(LIES["404"]())
            elif lying.is_set() and lie in LIES:
                return writer.write(LIES[lie]())
            else:
                writer.write(honest())
                if lying.is_set() or lie.endswith(" without length"):
                    return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def events(writer: asyncio.StreamWriter) -> None:
    """Send events, and end within one if that is the lie."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(head)
    while not lying.is_set():
        writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
        await asyncio.sleep(0.05)
    rest = EVENT[:7] if lie == "half an event" else EVENT
    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest))


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A frame of a server, which is not masked."""
    return bytes([(0x80 if fin else 0) | opcode, len(payload)]) + payload


async def websocket(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Reply with two messages to each; close with 1000, in the middle of a reply if that is it."""
    key = next(
        line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    digest = hashlib.sha1(key.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    writer.write(
        b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
        + base64.b64encode(digest)
        + b"\r\n\r\n"
    )
    global conversations
    closing = asyncio.ensure_future(lying.wait())
    has_message = False
    while not lying.is_set():
        reading = asyncio.ensure_future(reader.read(4096))
        # A signal may come between two replies: then the next one is begun, and not ended.
        ends = {reading} if lie == "closed 1000 in a reply" else {reading, closing}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            reading.cancel()
        elif not reading.result() or reading.result()[0] & 0x0F == 8:
            break
        else:
            conversations += not has_message
            has_message = True
            writer.write(frame(1, b"one"))
            # In the first conversation the check learns what a reply is. It takes a pause for the
            # end of one.
            if lie == "closed 1000 in a reply" and conversations > 1:
                await lying.wait()
            else:
                writer.write(frame(1, b"two"))
    if lie == "closed 1000 in a message":
        writer.write(frame(1, b"half of", fin=False))
    writer.write(frame(8, (1000).to_bytes(2, "big")))
    await reader.read()


async def main() -> None:
    """Serve until half a second after SIGTERM."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[2]), backlog=4096)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lying.set)
    await lying.wait()
    await asyncio.sleep(LAST_SECONDS)
    accepted = []
    # A plain close would reset the connections that the kernel has and nobody has accepted.
    with server.sockets[0].dup() as queue:
        server.close()
        # From here on no handshake is completed: none comes in behind the last `accept`.
        queue.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted.append(queue.accept()[0])
    serving = []
    for connection in accepted:
        connection.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
        connection.setblocking(False)
        streams = await asyncio.open_connection(sock=connection)
        serving.append(asyncio.ensure_future(serve(*streams)))
    for task in serving:
        await asyncio.wait({task}, timeout=1)
    await asyncio.sleep(0.1)  # for what had been accepted before


asyncio.run(main())
