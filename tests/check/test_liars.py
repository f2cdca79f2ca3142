"""A server that lies is caught and the lie is named; an honest one passes, however often."""

from __future__ import annotations

import pytest
from support.command import PLAIN_PYTHON, PROGRAMS, run

LIAR = [*PLAIN_PYTHON, str(PROGRAMS / "liar.py")]
SHORT = [
    *("--signal-after", "0.6", "--skip", "repeated signal", "--skip", "half a request head"),
    *("--keep-alive", "5", "--fresh", "3", "--deadline", "5"),
]
PATHS = ["--sse-path", "/events", "--ws-path", "/ws"]


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ("404", "status 404"),
        ("redirect", "status 302"),
        ("empty 200", "empty body"),
        ("wrong body", "another body"),
        ("error page with 200", "another body"),
        ("shorter body", "shorter body"),
        ("another type", "another type"),
        ("cut gzip", "damaged body"),
        ("cut without length", "shorter body"),
        ("head without length", "empty body"),
        ("503 without Retry-After", "status 503"),
        ("503 with Retry-After", "rejected"),
    ],
)
def test_a_wrong_answer_after_the_signal_is_caught_and_named(lie: str, kind: str) -> None:
    ended = run("check", *SHORT, "--json", "--", *LIAR, lie, "{port}")
    assert ended.code == 1, ended.out + ended.err
    total = ended.server["requests"]["total"]
    assert total["wrong_by_kind"].keys() == {kind}
    assert total["lost"] == 0
    assert ended.server["requests"]["before"]["wrong"] == 0
    assert any(f"({kind})" in fault for fault in ended.server["faults"])
    assert ended.server["examples"].keys() == {kind}


@pytest.mark.parametrize(
    ("lie", "kind"),
    [("cut chunked", "cut body"), ("nothing", "empty reply"), ("no HTTP", "bad reply")],
)
def test_an_answer_that_is_not_complete_is_lost(lie: str, kind: str) -> None:
    ended = run("check", *SHORT, "--json", "--", *LIAR, lie, "{port}")
    assert ended.code == 1, ended.out + ended.err
    total = ended.server["requests"]["total"]
    assert total["lost_by_kind"][kind] > 0
    assert total["wrong"] == 0


@pytest.mark.parametrize(
    ("lie", "scenario", "kind"),
    [
        ("half an event", "event stream", "half an event"),
        ("closed 1000 in a message", "WebSocket", "reply cut"),
        ("closed 1000 in a reply", "WebSocket replies", "reply cut"),
    ],
)
def test_what_is_ended_in_the_middle_is_caught_and_named(
    lie: str, scenario: str, kind: str
) -> None:
    ended = run("check", *SHORT, *PATHS, "--json", "--", *LIAR, lie, "{port}")
    assert ended.code == 1, ended.out + ended.err
    assert ended.scenario(scenario)["result"] == "failed"
    requests = ended.scenario(scenario)["requests"]
    assert requests["during"]["wrong_by_kind"] == {kind: 1}
    assert requests["total"]["wrong_by_kind"].keys() == {kind}


def test_a_lie_told_only_to_later_requests_of_a_scenario_is_caught_and_named() -> None:
    """Requests in flight at the signal get their right answers, and so does the whole load."""
    ended = run(
        "check", *SHORT, "--slow-path", "/slow", "--json", "--", *LIAR, "404 for slow", "{port}"
    )
    assert ended.code == 1, ended.out + ended.err
    slow = ended.scenario("slow request")
    assert slow["result"] == "failed"
    assert slow["requests"]["during"]["served"] == 1
    assert slow["requests"]["after"]["wrong_by_kind"].keys() == {"status 404"}
    assert ended.scenario("fresh connections")["result"] == "passed"


def test_no_request_of_a_scenario_is_sent_after_the_signal_without_fresh_clients() -> None:
    command = [*LIAR, "404 for slow", "{port}"]
    ended = run("check", *SHORT, "--fresh", "0", "--slow-path", "/slow", "--json", "--", *command)
    assert ended.code == 0, ended.out + ended.err


@pytest.mark.parametrize("status", ["401", "404", "500"])
def test_a_path_that_never_answers_as_it_should_is_an_error_and_no_load_is_run(status: str) -> None:
    ended = run("check", *SHORT, "--", *LIAR, f"{status} always", "{port}")
    assert ended.code == 2, ended.out + ended.err
    assert f"--path /: GET / answered {status} text/html, 2 bytes: 'no'" in ended.err
    assert f"--expect-status {status} if that is right" in ended.err
    assert "under load" not in ended.out
    assert "PASSED" not in ended.out


def test_every_path_that_is_wrong_is_named_at_once() -> None:
    paths = ["--slow-path", "/typo", "--sse-path", "/", "--ws-path", "/"]
    ended = run("check", *SHORT, *paths, "--", *LIAR, "404 always", "{port}")
    assert ended.code == 2
    for said in ("--path /: GET / answered 404", "--slow-path /typo: GET /typo answered 404"):
        assert said in ended.err
    assert "--sse-path /: GET / answered 404" in ended.err
    assert "--ws-path /: the WebSocket handshake was answered 404" in ended.err


def test_the_second_server_is_asked_before_the_first_is_under_load() -> None:
    liar = " ".join([*LIAR, "'404 always'", "{port}"])
    ended = run("check", *SHORT, "--compare", liar, "--", *LIAR, "none", "{port}")
    assert ended.code == 2
    assert "under load" not in ended.out


def test_a_rejection_may_be_allowed() -> None:
    server = ["--", *LIAR, "503 with Retry-After", "{port}"]
    ended = run("check", *SHORT, "--json", "--allow-reject", *server)
    assert ended.code == 0, ended.out + ended.err
    assert ended.server["requests"]["after"]["rejected"] > 0
    assert ended.server["requests"]["before"]["rejected"] == 0


def test_an_honest_server_passes_every_time() -> None:
    """A listener that is simply closed loses a request now and then."""
    app = "check.server.programs.app:graceful"
    periods = {"GRACEFUL_LAME_DUCK_PERIOD": "0.3"}
    ended = run("check", app, *SHORT, *PATHS, "--json", "--rounds", "3", env=periods)
    assert ended.code == 0, ended.out + ended.err
    assert ended.server["runs"] == 3
    assert ended.server["faults"] == []
    for name in ("keep-alive", "event stream", "WebSocket", "WebSocket replies"):
        assert ended.scenario(name)["result"] == "passed"
