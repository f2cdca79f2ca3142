"""The proxies of the how-to pages, with their configurations from there. For tests and bench.

Only the ports differ, and on demand the number of servers (a third one) and the health checks.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

from support.docs import ROOT
from support.need import need_program
from support.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Ports = Mapping[str, int]
    """The port for each one in the manifests: 8080 is the proxy's, 8001 and 8002 are servers."""

MANIFESTS: Final = ROOT / "docs" / "how-to" / "manifests"

THIRD: Final = "8003"

SERVER_LINES: Final = {
    "haproxy.cfg": r"    server b \S+:8002\n",
    "nginx.conf": r"        server \S+:8002 .*\n",
    "Caddyfile": r" 127\.0\.0\.1:8002",
    "traefik-app.yaml": r"          - url: \S+:8002\n",
    "envoy.yaml": r"              - endpoint:\n.*\n.*port_value: 8002\}\n",
}
"""Lines of the second server in each configuration, which a third one needs as well."""

CHECK_LINES: Final = {
    "haproxy.cfg": r"    (option httpchk|http-check|default-server check) .*\n",
    "Caddyfile": r"\t\t(# Active checks|health_).*\n",
    "traefik-app.yaml": r"        healthCheck:\n( {10}.*\n)+",
    "envoy.yaml": r"      health_checks:\n( {8}.*\n)+",
}
"""The health checks. nginx has none."""


def _text(name: str, ports: Ports, *, checks: bool) -> str:
    text = (MANIFESTS / name).read_text(encoding="utf-8")
    if THIRD in ports and name in SERVER_LINES:
        text, count = re.subn(SERVER_LINES[name], _with_a_third, text)
        assert count == 1, name
    if not checks and name in CHECK_LINES:
        text, count = re.subn(CHECK_LINES[name], "", text)
        assert count >= 1, name
    for given, port in ports.items():
        text, count = re.subn(rf"\b{given}\b", str(port), text)
        assert count == 1 or name.startswith("traefik"), given
    return text


def _with_a_third(second: re.Match[str]) -> str:
    return second[0] + second[0].replace("8002", THIRD).replace("server b", "server c")


def _write(directory: Path, name: str, ports: Ports, *, checks: bool) -> Path:
    path = directory / name
    path.write_text(_text(name, ports, checks=checks), encoding="utf-8")
    return path


def nginx(directory: Path, ports: Ports, *, checks: bool = True) -> Server:
    path = _write(directory, "nginx.conf", ports, checks=checks)
    main = f"daemon off; pid {directory}/nginx.pid; error_log stderr crit;"
    command = [need_program("nginx"), "-e", "stderr", "-c", str(path), "-g", main]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    return Server(command, directory, port=ports["8080"])


def haproxy(directory: Path, ports: Ports, *, checks: bool = True) -> Server:
    path = _write(directory, "haproxy.cfg", ports, checks=checks)
    command = [need_program("haproxy"), "-f", str(path)]
    subprocess.run([*command, "-c"], check=True, capture_output=True)
    return Server([*command, "-db"], directory, port=ports["8080"])


def caddy(directory: Path, ports: Ports, *, checks: bool = True) -> Server:
    path = _write(directory, "Caddyfile", ports, checks=checks)
    path.write_text("{\n\tadmin off\n}\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    options = ["--config", str(path), "--adapter", "caddyfile"]
    command = need_program("caddy")
    subprocess.run([command, "validate", *options], check=True, capture_output=True)
    home = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    return Server([command, "run", *options], directory, port=ports["8080"], env=home)


def traefik(directory: Path, ports: Ports, *, checks: bool = True) -> Server:
    path = _write(directory, "traefik.yaml", ports, checks=checks)
    _write(directory, "traefik-app.yaml", ports, checks=checks)
    return Server([need_program("traefik"), f"--configFile={path}"], directory, port=ports["8080"])


def envoy(directory: Path, ports: Ports, *, checks: bool = True) -> Server:
    path = _write(directory, "envoy.yaml", ports, checks=checks)
    command = [need_program("envoy"), "--concurrency", "1", "-c", str(path)]
    subprocess.run([*command, "--mode", "validate"], check=True, capture_output=True)
    return Server([*command, "--disable-hot-restart"], directory, port=ports["8080"])


PROXIES: Final[dict[str, Callable[..., Server]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
    "traefik": traefik,
    "envoy": envoy,
}
WITHOUT_CHECKS: Final = ("nginx",)
"""The proxies that have no health checks; this nginx has only those of its refusals."""
