"""The alert rules and the dashboard of the how-to page for metrics, in a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Any

from support.client import Client
from support.docs import ROOT
from support.need import need_program
from support.polling import wait_until
from support.ports import free_port
from support.server import Server, uvicorn

from graceful_asgi.prometheus import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from support.client import Response

MANIFESTS = ROOT / "docs" / "how-to" / "manifests"
RULES = MANIFESTS / "prometheus-rules.yaml"
DASHBOARD: dict[str, Any] = json.loads((MANIFESTS / "grafana-dashboard.json").read_text("utf-8"))


def queries() -> Iterator[str]:
    """Yield each query of the dashboard, with Grafana's variables in it replaced."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$job", "app").replace("$__rate_interval", "1m")


def prometheus(directory: Path, target: int) -> Server:
    """Return a Prometheus that scrapes the port *target* five times a second."""
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "app", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(configuration), encoding="utf-8")  # which is YAML, too
    command = [
        *(need_program("prometheus"), f"--config.file={path}"),
        *(f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    return Server(command, directory, port=port, ready="Server is ready to receive")


def ask(server: Server, path: str, **query: str) -> Any:
    address = f"http://127.0.0.1:{server.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)["data"]


def found(server: Server, query: str) -> bool:
    return bool(ask(server, "query", query=query)["result"])


def health(server: Server) -> set[str]:
    (group,) = ask(server, "rules")["groups"]
    return {rule["health"] for rule in group["rules"]}


def hold(port: int) -> Response:
    with Client(port) as client:
        client.socket.settimeout(100)  # as long as all the queries take
        return client.get("/hold")


def test_every_query_and_every_rule_finds_a_drain_that_is_under_way(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    metrics = free_port()
    env = {"APP_METRICS_PORT": str(metrics)}
    with (
        uvicorn(
            tmp_path, app="e2e.metrics_app:app", env=env, lame_duck=0.1, grace=100, cleanup=10
        ) as server,
        prometheus(tmp_path, metrics) as monitor,
    ):
        wait_until(partial(found, monitor, "graceful_asgi_phase"), "a first scrape")
        held = beside.submit(hold, server.port)
        server.wait_for("held")
        server.terminate()
        for query in queries():
            wait_until(partial(found, monitor, query), query)
        wait_until(lambda: "unknown" not in health(monitor), "every rule has been evaluated")
        assert health(monitor) == {"ok"}
        os.kill(server.pid, signal.SIGUSR2)
        assert held.result().status == 200
        assert server.wait() == 0


ALERTS = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - series: graceful_asgi_oldest_in_flight_age_seconds{{instance="a"}}
        values: "0 30 60 90 120 150 180 0"
      - series: graceful_asgi_drain_elapsed_seconds{{instance="b"}}
        values: "0+30x20"
      - series: graceful_asgi_drain_work_total{{job="app", instance="c", outcome="aborted"}}
        values: "0 0 0 0 2"
      - series: graceful_asgi_drain_work_total{{job="app", instance="d", outcome="completed"}}
        values: "0 0 0 0 2"
    alert_rule_test:
      - {{alertname: RequestOlderThanTheGracePeriod, eval_time: 1m, exp_alerts: []}}
      - alertname: RequestOlderThanTheGracePeriod
        eval_time: 3m
        exp_alerts:
          - exp_labels: {{severity: warning, instance: a}}
            exp_annotations:
              summary: a has had a request in flight for 3m 0s
              description: A stop would cut it. Make the request shorter, or grace_period longer.
      - {{alertname: DrainForgotten, eval_time: 4m, exp_alerts: []}}
      - alertname: DrainForgotten
        eval_time: 6m
        exp_alerts:
          - exp_labels: {{severity: warning, instance: b}}
            exp_annotations:
              summary: b has been draining for 6m 0s
              description: >-
                A drain was begun and no stop has followed. The server serves, but says 503 on its
                readiness path. Stop it, or run: graceful-asgi resume
      - alertname: WorkCutByADrain
        eval_time: 2m
        exp_alerts:
          - exp_labels: {{severity: critical, job: app, instance: c}}
            exp_annotations:
              summary: A stop of c cut 2 requests
              description: >-
                They did not finish within grace_period. The stuck report in the log names the line
                that each waited at.
"""


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(ALERTS.format(rules=RULES), encoding="utf-8")
    command = [need_program("promtool"), "test", "rules", str(path)]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_that_is_none_would_be_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "rules.yaml"
    broken.write_text(RULES.read_text("utf-8").replace("> 300", "> > 300"), encoding="utf-8")
    promtool = need_program("promtool")
    for path, code in ((RULES, 0), (broken, 1)):
        command = [promtool, "check", "rules", str(path)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == code


def test_every_metric_that_is_asked_for_is_one_that_there_is() -> None:
    known = {figure.name for figure in FIGURES}
    text = RULES.read_text("utf-8") + json.dumps(DASHBOARD["panels"])
    asked = set(re.findall(r"graceful_asgi_\w+", text))
    assert asked == known


def test_the_panels_do_not_lie_on_each_other() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
