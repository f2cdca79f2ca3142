"""A verdict as JUnit XML: every fault is in a case, and any text from outside may be in it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from check.result.test_verdict import CUT, trial
from graceful_asgi._check.result.counts import Counts
from graceful_asgi._check.result.finding import Finding
from graceful_asgi._check.result.junit import junit, junit_of_error
from graceful_asgi._check.result.verdict import Target
from graceful_asgi._check.server.command import Command


def target(*findings: Finding, **seen: Any) -> Target:
    trials = [trial(*findings, **seen)]
    return Target(Command(("serve",), "main:app"), trials=trials)


def cases(document: str) -> dict[str, ElementTree.Element]:
    suite = ElementTree.fromstring(document.encode())[0]
    return {str(case.get("name")): case for case in suite.findall("testcase")}


def test_each_scenario_is_a_case_and_each_result_what_ci_calls_it() -> None:
    document = junit(
        [
            target(
                CUT,
                Finding("upload", "not run", "needs --upload-path"),
                Finding("WebSocket", "untested", "closed before the signal"),
                Finding("idle connection", "passed", "closed", seconds=1.5),
                late=True,
            )
        ]
    )
    found = {name: [each.tag for each in case] for name, case in cases(document).items()}
    assert found == {
        "all requests": [],
        "exit": ["failure"],
        "slow request": ["failure"],
        "upload": ["skipped"],
        "WebSocket": ["error"],
        "idle connection": [],
    }
    suite = ElementTree.fromstring(document.encode())[0]
    totals = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert totals == ["6", "2", "1", "1"]
    assert cases(document)["idle connection"].get("time") == "1.500"


def test_a_request_that_is_lost_fails_a_case_whatever_its_scenario_says() -> None:
    lost = Counts(served=1, lost={"cut body": 2})
    [failure] = cases(junit([target(after=lost)]))["all requests"]
    assert failure.get("message") == "2 requests lost (2 cut body)"


def test_two_servers_are_two_suites() -> None:
    assert len(ElementTree.fromstring(junit([target(), target()]).encode())) == 2


def test_a_check_that_could_not_be_run_is_an_error_with_its_reason() -> None:
    [error] = cases(junit_of_error(["main:app"], "exited early\nlog"))["check"]
    assert (error.tag, error.get("message"), error.text) == (
        *("error", "exited early", "exited early\nlog"),
    )


def test_what_xml_does_not_allow_is_replaced() -> None:
    text = cases(junit_of_error(["main:app"], "\x00\x1b[2J\ud800<&>"))["check"][0].text
    assert text == "\ufffd\ufffd[2J\ufffd<&>"
