"""Carry packets between two network namespaces, each with the same delay: `relay.py A B SECONDS`.

A program of its own, without an import of the tests: `support.network` starts it. In each namespace
it makes a TUN device called `tun0`. Packets are not changed, so their TTL is that of one hop. The
kernel's own way to do this is netem, which not every kernel has.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LARGEST_PACKET = 65536
MOST_AT_ONCE = 256


def open_device(namespace: str) -> int:
    """Return a new TUN device of *namespace*."""
    libc = ctypes.CDLL(None, use_errno=True)
    entered = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(entered, 0) != 0:
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    os.close(entered)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return device


def carry(devices: tuple[int, int], delay: float) -> None:
    """Carry packets both ways until the process is ended."""
    other = {devices[0]: devices[1], devices[1]: devices[0]}
    # The delay never changes, so packets leave in the order in which they came.
    under_way: collections.deque[tuple[float, int, bytes]] = collections.deque()
    poll = select.epoll()
    for device in devices:
        poll.register(device, select.EPOLLIN)
    while True:
        wait = under_way[0][0] - time.monotonic() if under_way else None
        for device, _ in poll.poll(None if wait is None else max(0.0, wait)):
            for _ in range(MOST_AT_ONCE):
                try:
                    packet = os.read(device, LARGEST_PACKET)
                except BlockingIOError:
                    break
                under_way.append((time.monotonic() + delay, other[device], packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, device, packet = under_way.popleft()
            # A network may lose packets: the device is down, or its queue is full.
            with contextlib.suppress(OSError):
                os.write(device, packet)


def main() -> None:
    first, second, delay = sys.argv[1:]
    devices = open_device(first), open_device(second)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    carry(devices, float(delay))


if __name__ == "__main__":
    main()
