"""The manifests of the how-to pages: valid for Kubernetes, and of use.

What is said of the periods is added up from the manifests themselves.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.docs import ROOT
from support.need import need, need_program
from support.systemd import UnitFile

from graceful_asgi import DrainPolicy
from graceful_asgi._asgi.precedence import OPTIONS
from graceful_asgi._cli import drain, run
from graceful_asgi._diagnostics.watchdog import MARGIN
from graceful_asgi._run.messages import EXIT_MARGIN
from graceful_asgi._servers import policy_check

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import click

MANIFESTS = ROOT / "docs" / "how-to" / "manifests"
KUBERNETES = ("1.29", "1.33", "1.37")
DEPLOYMENTS = ("deployment.yaml", "deployment-http.yaml")

FIELDS = {
    *(option.variable for option in OPTIONS.values()),
    "GRACEFUL_CONTROL_DIR",
}


def load(module: str) -> Any:
    """Import what has no type hints."""
    need(module)
    return importlib.import_module(module)


def documents(name: str) -> list[Any]:
    return list(load("yaml").safe_load_all((MANIFESTS / name).read_text(encoding="utf-8")))


def of_kind(name: str, kind: str) -> Any:
    (found,) = [each for each in documents(name) if each["kind"] == kind]
    return found


def pod(name: str) -> Any:
    return of_kind(name, "Deployment")["spec"]["template"]["spec"]


def environment(name: str) -> dict[str, str]:
    """The container's environment, Secrets looked up."""
    found = {}
    for variable in pod(name)["containers"][0]["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            key = variable["valueFrom"]["secretKeyRef"]
            secret = of_kind(name, "Secret")
            assert secret["metadata"]["name"] == key["name"]
            found[variable["name"]] = secret["stringData"][key["key"]]
    return found


def options(command: list[str], parser: click.Command) -> dict[str, Any]:
    """Read *command* as our command line does; an option that there is not is an error."""
    assert command[0] == "graceful-asgi"
    return parser.make_context(command[1], command[2:]).params


def margin(command: list[str]) -> float:
    workers = options(command, run.command)["workers"]
    return MARGIN + (EXIT_MARGIN if workers and workers > 1 else 0.0)


def fits(environ: Mapping[str, str], command: list[str], given: float) -> bool:
    policy = dataclasses.replace(DrainPolicy.from_env(environ), termination_grace_period=given)
    return policy_check.shortfall(policy, margin(command)) is None


# -- Kubernetes


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", [*DEPLOYMENTS, "shop.yaml", "load.yaml"])
def test_a_manifest_is_valid_by_the_schema_of_kubernetes(name: str, version: str) -> None:
    validate = load("kubernetes_validate").validate
    for document in documents(name):
        validate(document, version, strict=True)


def test_a_misspelt_key_would_be_noticed() -> None:
    kubernetes = load("kubernetes_validate")
    deployment = of_kind("deployment.yaml", "Deployment")
    pod_spec = deployment["spec"]["template"]["spec"]
    pod_spec["terminationGracePeriod"] = pod_spec.pop("terminationGracePeriodSeconds")
    with pytest.raises(kubernetes.ValidationError, match="terminationGracePeriod"):
        kubernetes.validate(deployment, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_variable_is_one_that_is_read(name: str) -> None:
    assert set(environment(name)) <= FIELDS


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_probes_ask_where_the_server_answers(name: str) -> None:
    container, environ = pod(name)["containers"][0], environment(name)
    (port,) = container["ports"]
    given = options(container["command"], run.command)
    assert given["app"] == "main:app"
    assert given["port"] == port["containerPort"]
    assert given["host"] == "0.0.0.0"
    for probe, variable in (
        ("startupProbe", "GRACEFUL_LIVENESS_PATH"),
        ("readinessProbe", "GRACEFUL_READINESS_PATH"),
        ("livenessProbe", "GRACEFUL_LIVENESS_PATH"),
    ):
        if probe in container:
            assert container[probe]["httpGet"] == {"path": environ[variable], "port": port["name"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_periods_fit_into_what_kubernetes_gives_with_the_hook(name: str) -> None:
    """The hook waits up to the grace period's end, and the stop after it for a grace period."""
    container, environ = pod(name)["containers"][0], environment(name)
    given = float(pod(name)["terminationGracePeriodSeconds"])
    assert environ["GRACEFUL_TERMINATION_GRACE_PERIOD"] == f"{given:g}"
    hook = DrainPolicy.from_env(environ).grace_period
    assert fits(environ, container["command"], given - hook)
    assert not fits(environ, container["command"], given - hook - 5)  # nor is it far too long


def test_the_sum_in_the_page_is_that_of_the_manifest() -> None:
    environ, container = environment("deployment.yaml"), pod("deployment.yaml")["containers"][0]
    policy = DrainPolicy.from_env(environ)
    needed = policy.grace_period + policy.total_period + margin(container["command"])
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    assert f"| **together** | | **{needed:g}** |" in page
    without_hook = DrainPolicy().total_period + MARGIN + EXIT_MARGIN
    assert f"the defaults need {without_hook:g} s" in page


def test_the_hook_that_runs_a_command_finds_the_control_directory_and_undoes_itself() -> None:
    spec = pod("deployment.yaml")
    (container,) = spec["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = spec["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["emptyDir"]["medium"] == "Memory"
    directory = environment("deployment.yaml")["GRACEFUL_CONTROL_DIR"]
    assert directory.rpartition("/")[0] == mount["mountPath"]  # in it: its own mode is open
    given = options(container["lifecycle"]["preStop"]["exec"]["command"], drain.command)
    assert given["resume_after"] >= spec["terminationGracePeriodSeconds"]


def test_the_hook_that_is_a_request_has_the_token_of_the_secret() -> None:
    environ = environment("deployment-http.yaml")
    (container,) = pod("deployment-http.yaml")["containers"]
    hook = container["lifecycle"]["preStop"]["httpGet"]
    (header,) = hook["httpHeaders"]
    assert hook["path"] == environ["GRACEFUL_DRAIN_PATH"]
    assert hook["port"] == container["ports"][0]["name"]
    assert header == {"name": "Authorization", "value": f"Bearer {environ['GRACEFUL_DRAIN_TOKEN']}"}


def test_the_budget_selects_the_pods_of_the_deployment() -> None:
    labels = of_kind("deployment.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    disruption = of_kind("deployment.yaml", "PodDisruptionBudget")
    assert disruption["spec"]["selector"]["matchLabels"] == labels


# -- docker compose


def test_the_compose_file_gives_the_server_the_time_it_needs() -> None:
    (compose,) = documents("compose.yaml")
    assert set(compose) == {"services"}
    (service,) = compose["services"].values()
    environ = service["environment"]
    assert set(environ) <= FIELDS
    given = float(service["stop_grace_period"].removesuffix("s"))
    assert environ["GRACEFUL_TERMINATION_GRACE_PERIOD"] == f"{given:g}"
    assert fits(environ, service["command"], given)
    assert environ["GRACEFUL_LIVENESS_PATH"] in service["healthcheck"]["test"][-1]
    assert service["stop_signal"] == "SIGTERM"


def test_every_command_is_a_list_so_that_no_shell_keeps_the_signal() -> None:
    (compose,) = documents("compose.yaml")
    commands = [
        *(pod(name)["containers"][0]["command"] for name in DEPLOYMENTS),
        compose["services"]["app"]["command"],
    ]
    for command in commands:
        assert isinstance(command, list), shlex.join(command)
        assert options(command, run.command)["app"] == "main:app"


def test_the_compose_file_is_valid_by_the_specification_of_compose() -> None:
    assert schema_faults("compose-spec", MANIFESTS / "compose.yaml") == ""


# -- GitHub


def schema_faults(schema: str, *paths: Path) -> str:
    """Return what the schema that check-jsonschema brings with it finds wrong."""
    need("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    checked = subprocess.run(
        [*command, *paths], capture_output=True, text=True, timeout=100, check=False
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def test_the_workflow_and_the_issue_forms_are_valid() -> None:
    github = ROOT / ".github"
    forms = sorted((github / "ISSUE_TEMPLATE").glob("*.yml"))
    forms.remove(config := github / "ISSUE_TEMPLATE" / "config.yml")
    assert schema_faults("github-workflows", *(github / "workflows").glob("*.yml")) == ""
    assert schema_faults("github-issue-forms", *forms) == ""
    assert schema_faults("github-issue-config", config) == ""


def test_a_key_that_no_schema_knows_would_be_noticed(tmp_path: Path) -> None:
    text = (MANIFESTS / "compose.yaml").read_text(encoding="utf-8")
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text(text.replace("stop_grace_period", "stop_grace"), encoding="utf-8")
    assert "stop_grace" in schema_faults("compose-spec", misspelt)


# -- Kustomize, Helm, Docker


def test_the_patch_makes_of_a_plain_deployment_one_that_drains() -> None:
    command = [need_program("kubectl"), "kustomize", str(MANIFESTS / "kustomize")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    deployment = load("yaml").safe_load(built.stdout)
    load("kubernetes_validate").validate(deployment, KUBERNETES[-1], strict=True)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    assert set(environ) <= FIELDS
    given = float(spec["terminationGracePeriodSeconds"])
    assert environ["GRACEFUL_TERMINATION_GRACE_PERIOD"] == f"{given:g}"
    assert fits(environ, container["command"], given)
    assert container["image"]  # the deployment's own
    assert container["readinessProbe"]["httpGet"]["path"] == environ["GRACEFUL_READINESS_PATH"]
    assert container["livenessProbe"]["httpGet"]["path"] == environ["GRACEFUL_LIVENESS_PATH"]


def test_the_values_for_helm_say_what_the_patch_says() -> None:
    (values,) = documents("helm/values.yaml")
    (patch,) = documents("kustomize/graceful.yaml")
    spec = patch["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    given = {**container, "terminationGracePeriodSeconds": spec["terminationGracePeriodSeconds"]}
    del given["name"]
    command = given["command"]
    assert values.pop("service") == {"port": int(command[command.index("--port") + 1])}
    assert values == given


def test_the_dockerfile_starts_the_server_without_a_shell() -> None:
    text = (MANIFESTS / "Dockerfile").read_text(encoding="utf-8")
    lines = dict(line.split(" ", 1) for line in text.splitlines())
    assert set(lines) <= {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "CMD"}
    command = json.loads(lines["CMD"])
    assert options(command, run.command)["port"] == int(lines["EXPOSE"])


# -- systemd

UNITS = ("shop.service", "shop-activated.service", "shop-activated.socket")


def unit(name: str) -> dict[str, str]:
    """Return the settings of a unit's service."""
    return dict(UnitFile((MANIFESTS / name).read_text(encoding="utf-8"))["Service"])


def verified(directory: Path, replace: tuple[str, str] = ("", "")) -> str:
    """Return what systemd finds wrong with the units, on this machine's paths."""
    for name in UNITS:
        text = (MANIFESTS / name).read_text(encoding="utf-8").replace(*replace)
        text = text.replace("/srv/shop/.venv/bin/uvicorn", sys.executable)
        text = text.replace("/srv/shop", "/tmp").replace("User=shop", "User=root")
        (directory / name).write_text(text, encoding="utf-8")
    command = [need_program("systemd-analyze"), "verify", "--man=no"]
    checked = subprocess.run(
        [*command, *(str(directory / name) for name in UNITS)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return "".join(
        line
        for line in checked.stderr.splitlines(keepends=True)
        if any(name in line for name in UNITS)
    )


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    assert verified(tmp_path) == ""


def test_a_misspelt_setting_would_be_noticed(tmp_path: Path) -> None:
    assert "TimeoutStop" in verified(tmp_path, ("TimeoutStopSec", "TimeoutStopSeconds"))


@pytest.mark.parametrize("name", ["shop.service", "shop-activated.service"])
def test_systemd_waits_for_longer_than_a_drain_may_take(name: str) -> None:
    settings = unit(name)
    environ = dict(pair.split("=", 1) for pair in settings["Environment"].split())
    assert set(environ) <= FIELDS
    assert environ["GRACEFUL_TERMINATION_GRACE_PERIOD"] == settings["TimeoutStopSec"]
    policy = DrainPolicy.from_env(environ)
    assert policy_check.shortfall(policy, MARGIN) is None
