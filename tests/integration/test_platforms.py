"""The manifests of the how-to pages, read by the platforms' own programs: Helm, Compose, hadolint.

None of them starts a container: that needs a registry to take the base image from, and a cluster.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.docs import ROOT
from support.need import need, need_program

if TYPE_CHECKING:
    from pathlib import Path

MANIFESTS = ROOT / "docs" / "how-to" / "manifests"


def load(module: str) -> Any:
    """Import what has no type hints."""
    need(module)
    return importlib.import_module(module)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


# -- Helm


def rendered(directory: Path, values: dict[str, Any]) -> Any:
    """Make a chart as `helm create` does, edit it as the page says, and return its Deployment."""
    helm = load("helm_python")
    helm.Chart.create("shop", str(directory))
    template = directory / "shop" / "templates" / "deployment.yaml"
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```\n( +terminationGracePeriodSeconds: .*?)^```$", page, re.M | re.S)
    text = template.read_text(encoding="utf-8")
    first, last = "      containers:\n", "        - name: {{ .Chart.Name }}\n"
    assert text.count(first + last) == 1
    assert first + last in lines
    template.write_text(text.replace(first + last, lines), encoding="utf-8")
    chart = helm.Chart.load(str(directory / "shop"))
    manifests = chart.render(values, name="shop", namespace="default")
    (deployment,) = (text for path, text in manifests.items() if path.endswith("/deployment.yaml"))
    return load("yaml").safe_load(deployment)


def test_helm_makes_of_the_values_a_deployment_that_drains(tmp_path: Path) -> None:
    values = load("yaml").safe_load((MANIFESTS / "helm" / "values.yaml").read_text("utf-8"))
    deployment = rendered(tmp_path, values)
    load("kubernetes_validate").validate(deployment, "1.37", strict=True)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] == values["terminationGracePeriodSeconds"]
    assert container["command"] == values["command"]
    assert container["env"] == values["env"]
    # A probe asks the port by its name, and the chart takes the number from the Service.
    (port,) = container["ports"]
    assert str(port["containerPort"]) == values["command"][values["command"].index("--port") + 1]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe] == values[probe]
        assert container[probe]["httpGet"]["port"] == port["name"]


# -- Compose


def test_compose_reads_the_time_and_the_signal_of_its_file() -> None:
    compose = need_program("docker-compose")
    shown = run(compose, "-f", MANIFESTS / "compose.yaml", "config", "--format", "json")
    assert shown.stderr == ""
    (service,) = json.loads(shown.stdout)["services"].values()
    assert service["stop_grace_period"] == "30s"
    assert service["stop_signal"] == "SIGTERM"
    assert service["command"][:2] == ["graceful-asgi", "run"]
    assert service["environment"]["GRACEFUL_TERMINATION_GRACE_PERIOD"] == "30"


def test_compose_refuses_a_key_that_is_misspelt(tmp_path: Path) -> None:
    misspelt = tmp_path / "compose.yaml"
    text = (MANIFESTS / "compose.yaml").read_text(encoding="utf-8")
    misspelt.write_text(text.replace("stop_grace_period", "stop_grace"), encoding="utf-8")
    refused = run(need_program("docker-compose"), "-f", misspelt, "config", "--quiet")
    assert "additional properties 'stop_grace' not allowed" in refused.stderr


# -- Docker


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    checked = run(need_program("hadolint"), MANIFESTS / "Dockerfile")
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("command", ["CMD graceful-asgi run main:app", 'ENTRYPOINT "run.sh"'])
def test_hadolint_notices_a_shell_that_would_keep_the_signal(tmp_path: Path, command: str) -> None:
    text = (MANIFESTS / "Dockerfile").read_text(encoding="utf-8")
    changed = tmp_path / "Dockerfile"
    changed.write_text(re.sub(r"^CMD .*$", command, text, flags=re.M), encoding="utf-8")
    checked = run(need_program("hadolint"), changed)
    assert "DL3025" in checked.stdout  # use the JSON notation
