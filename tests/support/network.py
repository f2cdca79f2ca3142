"""A network with a delay: two namespaces and a relay between them, for as long as a test runs.

Needs root, `ip netns` (iproute2) and /dev/net/tun. Where they are missing a test is skipped with
the reason; in CI it fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from support.need import missing, need_program
from support.polling import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAYS: Final = (0.0, 0.005, 0.02, 0.08, 0.15)
"""Seconds one way: one machine, one region, one country, an ocean, a phone across an ocean."""

QUEUE: Final = 20_000
"""Packets that may wait for the relay. Of the default, 500, the kernel has dropped some while the
relay waited for a processor: 377 of 10,379. Some of those cost their client a second."""

CLIENT: Final = "10.99.0.1"
SERVER: Final = "10.99.0.2"
SERVER_IPV6: Final = "fd99::2"

WITHOUT_CAPABILITIES: Final = (
    "setpriv",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--ambient-caps=-all",
)
"""Runs a command without a capability."""

USER: Final = 65534
"""`nobody`: a user that has no files."""

_READ: Final = "-all,+dac_read_search"

UNPRIVILEGED: Final = (
    "setpriv",
    "--no-new-privs",
    *(f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *(f"--bounding-set={_READ}", f"--inh-caps={_READ}", f"--ambient-caps={_READ}"),
)
"""Runs a command as another user, as a careful operator's container does. The one capability that
is left lets it read what only root may: Python itself may be there. Ask `need_unprivileged`."""

_numbers = itertools.count()


def over(delay: float) -> pytest.MarkDecorator:
    """Run a test once, with a `network` of this delay in the place of all `DELAYS`."""
    return pytest.mark.parametrize(
        "network", [delay], indirect=True, scope="module", ids=[f"{delay * 1000:g} ms"]
    )


class Network:
    """Two namespaces that reach each other; a thread that enters one makes its sockets there."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        name = f"drain-{os.getpid()}-{next(_numbers)}"
        self._client, self._server = f"{name}-c", f"{name}-s"
        self._relay_pid = 0

    @contextlib.contextmanager
    def up(self) -> Iterator[Network]:
        """Set the network up for the length of a block. SIGTERM ends the block, as SIGINT does."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_interrupted_by_sigterm())
            for name in (self._client, self._server):
                stack.callback(_delete, name)  # first: an interrupt may come in between
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            stack.enter_context(self._relay())
            for name, number in ((self._client, 1), (self._server, 2)):
                _ip("-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", "tun0")
                _ip("-n", name, "addr", "add", f"fd99::{number}/64", "dev", "tun0", "nodad")
                _ip("-n", name, "link", "set", "tun0", "txqueuelen", str(QUEUE), "up")
            yield self

    @contextlib.contextmanager
    def _relay(self) -> Iterator[None]:
        program = Path(__file__).with_name("relay.py")
        command = [sys.executable, "-I", "-S", str(program)]
        with subprocess.Popen(
            [*command, self._client, self._server, str(self.delay)], stdout=subprocess.PIPE
        ) as relay:
            assert relay.stdout is not None
            try:
                assert relay.stdout.readline() == b"ready\n"
                # A network does not slow down because this machine is busy.
                os.setpriority(os.PRIO_PROCESS, relay.pid, -15)
                self._relay_pid = relay.pid
                yield
            finally:
                relay.kill()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep every packet where it is for the length of a block."""
        stat = Path(f"/proc/{self._relay_pid}/stat")
        os.kill(self._relay_pid, signal.SIGSTOP)
        try:
            wait_until(lambda: stat.read_text().rpartition(") ")[2].startswith("T"))
            yield
        finally:
            os.kill(self._relay_pid, signal.SIGCONT)

    def on_client(self) -> contextlib.AbstractContextManager[None]:
        """Move this thread to the client's machine for the length of a block."""
        return _entered(self._client)

    def on_server(self) -> contextlib.AbstractContextManager[None]:
        """Move this thread to the server's machine for the length of a block.

        A process that it starts stays there.
        """
        return _entered(self._server)


def need_unprivileged() -> None:
    """Skip the test where nobody is root, who could give up a privilege."""
    need_program("setpriv")
    if os.geteuid() != 0:
        pytest.skip("has no privilege to give up")


@contextlib.contextmanager
def make_network(delay: float) -> Iterator[Network]:
    """Set up a network whose packets take *delay* seconds one way. Skip the test without root."""
    need_program("ip")
    if os.geteuid() != 0:
        missing("network namespaces need root")
    if not os.path.exists("/dev/net/tun"):
        missing("the kernel has no /dev/net/tun")
    if (refused := _refused()) is not None:
        missing(f"network namespaces are not to be had: {refused}")
    with Network(delay).up() as made:
        yield made


def _refused() -> str | None:
    """Return why no namespace can be made, as in a container without privileges."""
    name = f"drain-{os.getpid()}-{next(_numbers)}-probe"
    try:
        tried = subprocess.run(
            ["ip", "netns", "add", name], capture_output=True, text=True, check=False
        )
        return tried.stderr.strip() if tried.returncode != 0 else None
    finally:  # also where an interrupt has come while it was made
        _delete(name)


def _delete(namespace: str) -> None:
    if os.path.exists(f"/var/run/netns/{namespace}"):
        _ip("netns", "del", namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt. By default it would leave the namespaces behind.

    pytest goes on after a SystemExit. A handler of the program, or of a network further out, stays.
    """
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not is_ours:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _entered(name: str) -> Iterator[None]:
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        _set_namespace(there)
        yield
    finally:
        _set_namespace(home)
        os.close(there)
        os.close(home)


def _set_namespace(descriptor: int) -> None:
    # `os.setns` is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
