"""`graceful-asgi check`: a true verdict on any server, in its table, its JSON and its exit code."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from support.command import NO_LOAD, QUICK, SERVER, run

from graceful_asgi._check.result.counts import LOSS_KINDS, WRONG_KINDS
from graceful_asgi._check.scenarios import NAMES
from graceful_asgi._cli.group import group

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_PATHS = [
    *("--slow-path", "/slow", "--stream-path", "/stream", "--upload-path", "/upload"),
    *("--ws-path", "/ws", "--ws-push-path", "/push", "--sse-path", "/events"),
    *("--post-path", "/upload", "--sse-post-path", "/tokens", "--hang-path", "/hang"),
]
SHORT_PERIODS = {
    "GRACEFUL_LAME_DUCK_PERIOD": "0.5",
    "GRACEFUL_GRACE_PERIOD": "4",  # the longest request takes one second
    "GRACEFUL_CANCEL_PERIOD": "0.5",
}
LIGHT = ["--keep-alive", "20", "--fresh", "10", "--signal-after", "0.6"]


def test_an_app_with_the_middleware_passes_every_scenario() -> None:
    app = "check.server.programs.app:graceful"
    ended = run("check", app, "--json", *LIGHT, *ALL_PATHS, env=SHORT_PERIODS)
    assert ended.code == 0, ended.out + ended.err
    assert ended.report["passed"]
    found = {each["name"]: each["result"] for each in ended.server["scenarios"]}
    assert found == {**dict.fromkeys(NAMES, "passed"), "HTTP/2": "not run"}
    assert ended.server["requests"]["total"]["lost"] == 0
    assert ended.server["requests"]["before"]["served"] > 50
    assert ended.server["requests"]["after"]["served"] > 20
    assert ended.server["exits"][0]["code"] == 0


def test_an_app_without_it_fails_for_what_it_does_not_end() -> None:
    """An event stream without an end holds plain uvicorn until it is killed, and is cut then."""
    app = "check.server.programs.app:plain"
    paths = ["--sse-path", "/events", "--ws-path", "/ws"]
    ended = run("check", app, "--json", "--deadline", "1", *NO_LOAD, *QUICK, *paths)
    assert ended.code == 1, ended.out + ended.err
    assert not ended.report["passed"]
    assert ended.scenario("event stream")["result"] == "failed"
    assert ended.scenario("WebSocket")["detail"].startswith("closed with 1012 after ")
    assert ended.server["exits"][0]["late"]
    assert ended.server["requests"]["during"]["lost"] == 1


# -- any command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("behaviour", "lost"), [("serves", 1), ("drains", 0)])
def test_a_request_in_flight_makes_the_difference(behaviour: str, lost: int) -> None:
    options = [*NO_LOAD, *QUICK, "--skip", "half a request head", "--slow-path", "/slow"]
    ended = run("check", *options, "--json", "--", *SERVER, behaviour, "{port}")
    assert ended.code == lost, ended.out + ended.err
    assert ended.server["requests"]["during"]["lost"] == lost
    assert ended.server["requests"]["total"]["lost"] == lost
    assert ended.server["exits"][0]["code"] == (-15 if lost else 0)


STANDARD_LIBRARY = """
import http.server, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_the_standard_library_server_loses_what_is_in_flight() -> None:
    command = [sys.executable, "-c", STANDARD_LIBRARY, "{port}"]
    load = ["--keep-alive", "3", "--fresh", "2", "--think", "0"]  # its queue holds five
    ended = run("check", *QUICK, *load, "--slow-path", "/slow", "--json", "--", *command)
    assert ended.code == 1, ended.out + ended.err
    total = ended.server["requests"]["total"]
    assert total["lost"] > 0, "the slow one at least"
    assert total["served"] > 0
    outcomes = ("served", "rejected", "wrong", "lost", "retryable")
    assert total["sent"] == sum(total[each] for each in outcomes)
    # HTTP/1.0 without Content-Length: after a kill between head and body the answer looks complete.
    assert total["wrong_by_kind"].keys() <= {"empty body"}
    assert ended.scenario("idle connection")["result"] == "not run"  # HTTP/1.0


def test_a_server_that_never_exits_fails_and_is_not_left_running() -> None:
    ended = run(
        *("check", *NO_LOAD, *QUICK, "--deadline", "0.5"),
        *("--", *SERVER, "ignores SIGTERM", "{port}"),
    )
    assert ended.code == 1, ended.out + ended.err
    assert "not gone by the deadline in 1 of 1 run" in ended.out


def test_a_command_that_leaves_a_process_behind_fails(tmp_path: Path) -> None:
    """As a shell does that is told to stop and tells nobody: the server itself goes on."""
    script = f"{shlex.join(SERVER)} 'ignores SIGTERM' $PORT & wait"
    ended = run("check", *NO_LOAD, *QUICK, "--json", "--", "sh", "-c", script)
    assert ended.code == 1, ended.out + ended.err
    assert ended.server["exits"][0]["left_running"] == 1
    assert "1 process left running by the command" in ended.server["faults"]


@pytest.mark.parametrize(("given", "name", "number"), [("hup", "SIGHUP", 1), ("2", "SIGINT", 2)])
def test_another_signal_may_be_sent(given: str, name: str, number: int) -> None:
    options = [*NO_LOAD, "--signal-after", "0.6", "--json", "--signal", given]
    ended = run("check", *options, "--", *SERVER, "exits 7", "{port}")
    assert ended.report["settings"]["signal"] == name
    assert ended.server["exits"][0]["code"] == -number
    again = ended.scenario("repeated signal")["detail"]
    assert ("asks for haste" in again) == (name == "SIGINT")


# -- what is shown --------------------------------------------------------------------------------


def test_two_servers_stand_side_by_side_and_the_first_gives_the_exit_code(tmp_path: Path) -> None:
    picture = tmp_path / "drain.svg"
    options = [*NO_LOAD, *QUICK, "--skip", "half a request head", "--slow-path", "/slow"]
    ended = run(
        *("check", *options, "--plot", str(picture)),
        *("--compare", " ".join([*SERVER, "serves", "{port}"])),
        *("--", *SERVER, "drains", "{port}"),
    )
    assert ended.code == 0, ended.out + ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    [lost] = re.findall(r"LOST +│ (\d+) +│ (\d+) +│", ended.out)
    assert f"picture: {picture}" in ended.out.replace("\n", "")
    assert lost == ("0", "1")
    assert "not run: " in ended.out
    assert re.search(r"^PASSED .*nothing lost", ended.out, re.M)
    assert re.search(r"^FAILED .*1 request lost", ended.out, re.M)
    assert "<svg" in picture.read_text()


def test_a_header_is_sent_with_every_request_and_another_status_may_be_right() -> None:
    command = ["--", *SERVER, "wants example.org", "{port}"]
    options = ["check", *NO_LOAD, *QUICK, "--json"]
    without = run(*options, *command)
    assert without.code == 2
    assert "--path /: GET / answered 403" in without.err
    assert run(*options, "--expect-status", "403", *command).code == 0
    assert run(*options, "--header", "Host: example.org", *command).code == 0


def test_at_sixty_columns_the_numbers_that_matter_stay() -> None:
    options = [*NO_LOAD, *QUICK, "--skip", "half a request head", "--slow-path", "/slow"]
    other = " ".join([*SERVER, "'drains'", "{port}"])
    server = ["--", *SERVER, "serves", "{port}"]
    ended = run("check", *options, "--compare", other, *server, env={"COLUMNS": "60"})
    assert max(map(len, ended.out.splitlines())) <= 60
    assert re.search(r"^│ LOST +│ 1 +│ 0 +│$", ended.out, re.M)
    assert re.search(r"^│ WRONG +│ 0 +│ 0 +│$", ended.out, re.M)
    [exited] = re.findall(r"exited .* lost", ended.out)
    assert exited.endswith("1 lost")


def test_rounds_go_on_until_enough_was_at_risk_and_have_a_running_total() -> None:
    """Each round puts one request at risk, the slow one."""
    options = [*NO_LOAD, *QUICK, "--skip", "half a request head", "--slow-path", "/slow"]
    ended = run("check", *options, "--until", "2", "--", *SERVER, "drains", "{port}")
    assert ended.code == 0, ended.out + ended.err
    totals = re.findall(r"after (\d+) rounds?: .*: 0 lost, 0 wrong of (\d+) at risk", ended.out)
    assert totals == [("1", "1"), ("2", "2")]
    assert "with 95 % confidence" in ended.out.replace("\n", " ")


def test_rounds_that_put_nothing_at_risk_do_not_go_on_for_ever() -> None:
    ended = run("check", *NO_LOAD, *QUICK, "--until", "9", "--", *SERVER, "exits 7", "{port}")
    assert ended.code == 2
    assert "a round puts no request at risk" in ended.err


def test_the_verdict_is_written_for_ci_and_so_is_what_kept_it_from_being_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "check.xml"
    options = [*NO_LOAD, *QUICK, "--junit", str(file)]
    assert run("check", *options, "--", *SERVER, "exits 7", "{port}").code == 0
    assert 'failures="0" errors="0"' in file.read_text()
    assert run("check", *options, "--", *SERVER, "exits early", "{port}").code == 2
    assert "<error message=" in file.read_text()
    assert "exited early" in file.read_text()


# -- what cannot be run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give an app (main:app), or a server's command after --"),
        (["main:app", "--", "serve"], "not both"),
        (["main.py"], "'main.py' is no app"),
        (["--roundss", "3", "--", "serve"], "no such option: --roundss"),
        (["--workers", "2", "main:app"], "options of uvicorn go behind the app"),
        (["main:app", "--port", "8000"], "--port is not for you to give"),
        (["main:app", "--signal", "NOPE"], "'--signal': 'NOPE' is not allowed: a signal's name"),
        (["main:app", "--signal", "KILL"], "no process can handle this signal"),
        (["main:app", "--deadline", "0"], "'--deadline': '0' is not allowed: a number of seconds"),
        (["main:app", "--deadline", "nan"], "'--deadline': 'nan' is not allowed"),
        (["main:app", "--think", "-1"], "'--think': '-1' is not allowed: milliseconds, 0 or more"),
        (["main:app", "--rounds", "0"], "'--rounds': 0 is not in the range"),
        (["main:app", "--path", "nowhere"], "'--path': 'nowhere' is not allowed: a path"),
        (["main:app", "--path", "/a b"], "'--path': '/a b' is not allowed"),
        (["main:app", "--header", "nocolon"], "'--header': 'nocolon' is not allowed: NAME: VALUE"),
        (["main:app", "--header", "Connection: x"], "the check sets this header itself"),
        (["main:app", "--expect-status", "99"], "'--expect-status': 99 is not in the range"),
        (["main:app", "--path", "BREW /pot"], "'--path': 'BREW /pot' is not allowed: PATH, or"),
        (["main:app", "--path", "POST x"], "'--path': 'POST x' is not allowed: a path that"),
        (["main:app", "--body", "@/no/such"], "'--body': '@/no/such' is not allowed: "),
        (["main:app", "--body", "x" * 65_537], "is not allowed: at most 65,536 bytes"),
        (["main:app", "--skip", "nothing"], "'--skip': 'nothing' is not one of"),
        (["main:app", "--latency", "-1"], "'--latency': '-1' is not allowed: milliseconds"),
        (["main:app", "--junit", "/no/such/a.xml"], "/no/such does not"),
        (["main:app", "--junit", "/tmp"], "a file, and this is a directory"),
        (["main:app", "--plot", "drain.gif"], "'--plot': 'drain.gif' is not allowed"),
        (["main:app", "--plot", "/no/such/a.png"], "/no/such does not"),
        (["main:app", "--compare", ""], "an empty command starts no server"),
        (["--", "no-such-command"], "no-such-command could not be started"),
        (["--", *SERVER, "exits early", "{port}"], "exited early, code 3; its log ends:"),
        (["no_such_module:app"], 'Could not import module "no_such_module"'),
        (["main:app", "--no-such-option"], "No such option"),
        (
            ["--start-period", "4", "--", *SERVER, "never opens", "{port}"],
            "({port} in the command and PORT in its environment say which port it has to be",
        ),
        (
            ["--start-period", "4", "--", *SERVER, "accepts and is silent", "{port}"],
            "did not answer GET / on 127.0.0.1:",
        ),
    ],
)
def test_what_cannot_be_run_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        group.main(["check", *arguments], standalone_mode=False)
    assert said in caught.value.format_message()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["main:app", "--signal", "NOPE"], "Invalid value for '--signal': 'NOPE' is not allowed"),
        (["--", "no-such-command"], "Error: no-such-command could not be started"),
        (["--", *SERVER, "exits early", "{port}"], "behaviour: exits early"),
    ],
)
def test_what_cannot_be_run_exits_with_2(arguments: list[str], said: str) -> None:
    ended = run("check", *arguments)
    assert ended.code == 2, ended.out + ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_every_field_of_the_json_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "check.md").read_text()
    ended = run("check", *NO_LOAD, *QUICK, "--json", "--", *SERVER, "exits 7", "{port}")

    free = ("expected", "examples", "lost_by_kind", "wrong_by_kind")

    def names(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from names(inner if name not in free else None)
        elif isinstance(value, list):
            for each in value:
                yield from names(each)

    missing = {name for name in names(ended.report) if f"`{name}`" not in page}
    assert not missing


def test_every_scenario_and_every_kind_of_loss_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "check.md").read_text()
    for name in (*NAMES, *LOSS_KINDS, *WRONG_KINDS):
        assert re.search(rf"^\| {name} \|", page, re.M), name
