"""The port of a server under test is no port that the kernel gives to whoever asks for any."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from graceful_asgi._check.server import port
from graceful_asgi._check.server.port import free_port

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not RANGE.exists(), reason="only Linux says which ports it gives")
def test_a_free_port_is_below_the_range_of_the_kernel() -> None:
    lowest = int(RANGE.read_text().split()[0])
    assert {number < lowest for number in (free_port() for _ in range(100))} == {lowest > 20_000}


def test_a_server_without_any_option_may_have_it() -> None:
    """Not only one with SO_REUSEADDR: a port that is held would be in use for this one."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_the_seed_of_a_suite_does_not_choose_the_port() -> None:
    """pytest-randomly seeds the shared generator alike in all processes of pytest-xdist."""
    seeded = random.getstate()
    free_port()
    assert random.getstate() == seeded


def test_a_port_that_is_in_use_on_any_address_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.2", taken := free_port()))
        numbers = iter([taken, taken + 1])
        monkeypatch.setattr(port._RANDOM, "randrange", lambda *_: next(numbers))
        assert free_port() != taken


@pytest.mark.parametrize("lowest", [1024, 20_000])
def test_where_the_kernel_gives_all_ports_any_free_one_will_do(
    monkeypatch: pytest.MonkeyPatch, lowest: int
) -> None:
    monkeypatch.setattr(port, "_kernels_lowest", lambda: lowest)
    assert free_port() > 0
