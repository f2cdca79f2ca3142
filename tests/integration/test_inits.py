"""systemd as PID 1 of namespaces of its own, and containers: a stop with a request in flight.

`make inits`, as root: not part of `make check`, because it mounts and unmounts file systems, in a
mount namespace of its own. The root directory of both is an overlay over this machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.client import get
from support.polling import wait_until
from support.ports import free_port
from support.server import PACKAGE_ROOT, TESTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

pytestmark = [
    pytest.mark.skipif("INITS" not in os.environ, reason="`make inits` runs these"),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="need root on Linux"),
    pytest.mark.timeout(120),
]

ENV = {
    "PYTHONPATH": f"{PACKAGE_ROOT}:{TESTS}",
    "GRACEFUL_LAME_DUCK_PERIOD": "0.5",
    "GRACEFUL_CONTROL_DIR": "/run/graceful",
}
SERVER = [sys.executable, "-m", "graceful_asgi", "run", "e2e.app:bare"]
ARRIVED = b"slow began"
ANSWER = b"slow, but complete"
LOG = "/run/app.log"

OVERLAY = """
set -e
mount --make-rprivate /
mkdir -p "$1/upper" "$1/root"
mount -t tmpfs none "$1/upper"
mkdir "$1/upper/files" "$1/upper/work"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper/files,workdir=$1/upper/work" overlay "$1/root"
"""
PODMAN = """
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
shift
exec "$@"
"""
SYSTEMD = """
cd "$1/root"
mount -t tmpfs none run
mount --rbind /sys sys
umount -l sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
mount --rbind /dev dev
mount -t proc none proc
rm -rf etc/systemd/system
mkdir etc/systemd/system
cp "$1/app.service" "$1/default.target" etc/systemd/system
exec env container=other chroot . /lib/systemd/systemd
"""
UNIT = """
[Unit]
DefaultDependencies=no
[Service]
Type=notify
NotifyAccess=all
Environment={env}
ExecStart={command}
StandardOutput=file:{log}
TimeoutStopSec=30
"""


def need_here(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("init", [(), ("--init", "--init-path", shutil.which("tini") or "")])
def test_podman_stop(
    tmp_path: Path, beside: ThreadPoolExecutor, workers: str, init: tuple[str, ...]
) -> None:
    need_here("podman", "crun", "nsenter", *(("tini",) if init else ()))
    port, name = free_port(), f"drain-{os.getpid()}"
    env = [f"--env={key}={value}" for key, value in ENV.items()]
    ran = [
        *("podman", "run", "--rm", "--name", name, *init, *env, "--runtime", "crun"),
        *("--cgroups=disabled", "--network=host", "--ulimit", "nofile=1024:1024"),
        *("--ulimit", "nproc=4096:4096", "--rootfs", f"{tmp_path}/root"),
        *(*SERVER, "--port", str(port), "--workers", workers),
    ]
    script = ["unshare", "--mount", "sh", "-c", OVERLAY + PODMAN, "sh", str(tmp_path)]
    log = tmp_path / "log"
    with log.open("wb") as out, subprocess.Popen([*script, *ran], stdout=out) as container:
        try:
            wait_until(lambda: container.poll() is not None or answers(port), "the container")
            assert container.poll() is None, "it has not started"
            slow = beside.submit(get, port, "/slow?s=3")
            wait_until(lambda: ARRIVED in log.read_bytes(), "the request")
            beside_it = ["nsenter", "--target", str(container.pid), "--mount"]
            subprocess.run([*beside_it, "podman", "stop", "-t", "20", name], check=True)
            assert slow.result().body == ANSWER
            assert container.wait(20) == 0
        finally:
            container.terminate()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return get(port, "/").status == 200
    return False


@pytest.fixture
def booted(tmp_path: Path) -> Iterator[list[str]]:
    """Boot a systemd; yield what runs a command beside it."""
    need_here("unshare", "nsenter", "chroot", "/lib/systemd/systemd", "ip")
    env = " ".join(f"{key}={value}" for key, value in ENV.items())
    command = " ".join([*SERVER, "--port", "8000"])
    (tmp_path / "app.service").write_text(UNIT.format(env=env, command=command, log=LOG))
    (tmp_path / "default.target").write_text("[Unit]\nDefaultDependencies=no\n")
    namespaces = ["--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--net"]
    script = ["sh", "-c", OVERLAY + SYSTEMD, "sh", str(tmp_path)]
    with subprocess.Popen(["unshare", *namespaces, "--kill-child", *script]) as parent:
        try:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            pid = wait_until(lambda: children.read_text().split(), "systemd")[0]
            inside = ["nsenter", "--target", pid, "--all", "--root"]
            up = [*inside, "systemctl", "is-system-running"]
            wait_until(lambda: b"ing" in subprocess.run(up, capture_output=True).stdout, "systemd")
            subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
            yield inside
        finally:
            parent.kill()


def test_systemctl_stop(booted: list[str]) -> None:
    def systemctl(*arguments: str) -> str:
        ran = subprocess.run([*booted, "systemctl", *arguments], capture_output=True, text=True)
        return ran.stdout.strip()

    systemctl("start", "app")
    assert systemctl("is-active", "app") == "active"
    read_log = [*booted, "cat", LOG]
    ask = [*booted, "curl", "-sS", "http://127.0.0.1:8000/slow?s=3"]
    with subprocess.Popen(ask, stdout=subprocess.PIPE) as asking:
        wait_until(lambda: ARRIVED in subprocess.check_output(read_log), "the request")
        systemctl("stop", "app")
        assert asking.communicate(timeout=20)[0] == ANSWER
    assert systemctl("show", "app", "--property=Result", "--property=ExecMainStatus") == (
        "Result=success\nExecMainStatus=0"
    )
