"""Each scenario calls lost what is lost and nothing else; what did not take place is not passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.ports import free_port

from check.client.adversary import OK, OK_AND_CLOSE, status
from check.client.loading import plan
from check.scenarios.staging import EXIT, Scene, play
from graceful_asgi._check.client.run import Run
from graceful_asgi._check.errors import PathError
from graceful_asgi._check.result.counts import Counts, LoadResult
from graceful_asgi._check.result.finding import Exit
from graceful_asgi._check.scenarios import NAMES, repeated, together
from graceful_asgi._check.scenarios.download import Download
from graceful_asgi._check.scenarios.event_stream import GetEventStream
from graceful_asgi._check.scenarios.half_head import HalfHead
from graceful_asgi._check.scenarios.hung import Hung
from graceful_asgi._check.scenarios.idle import Idle
from graceful_asgi._check.scenarios.pipelining import Pipelining
from graceful_asgi._check.scenarios.slow import Slow
from graceful_asgi._check.scenarios.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from graceful_asgi._check.scenarios.base import Scenario

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
PIECE = b"4\r\nhalf\r\n"
LAST = b"0\r\n\r\n"
EVENTS = CHUNKED + b"Content-Type: text/event-stream; charset=utf-8\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"
HALF_AN_EVENT = b"7\r\ndata: 1\r\n"


def slow() -> Scenario:
    return Slow(plan(slow_path="/slow"))


def download() -> Scenario:
    return Download(plan(stream_path="/stream"))


def events() -> Scenario:
    return GetEventStream(plan(event_stream_path="/events"))


def after_the_signal(data: bytes, *, first: bytes = b"") -> Callable[[Scene], Awaitable[None]]:
    """A server that writes `first` at once, and ends with `data` once the signal has come."""

    async def script(scene: Scene) -> None:
        await scene.head()
        scene.write(first)
        await scene.signalled.wait()
        scene.end(data)

    return script


def reset_after_the_signal(*, first: bytes = b"") -> Callable[[Scene], Awaitable[None]]:
    async def script(scene: Scene) -> None:
        await scene.head()
        scene.write(first)
        await scene.signalled.wait()
        scene.reset()

    return script


def open_to_the_end(data: bytes) -> Callable[[Scene], Awaitable[None]]:
    """A server that writes `data` and nothing more, and goes while the client waits."""

    async def script(scene: Scene) -> None:
        await scene.head()
        scene.write(data)
        await scene.signalled.wait()
        scene.gone.set()
        await scene.reader.read()  # until the client has given up

    return script


# -- one request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "first", "rest"),
    [
        pytest.param(slow, b"", OK, id="slow request"),
        pytest.param(download, CHUNKED + b"\r\n" + PIECE, PIECE + LAST, id="download"),
    ],
)
async def test_a_complete_answer_after_the_signal_is_right(
    scenario: Callable[[], Scenario], first: bytes, rest: bytes
) -> None:
    finding, load = await play(scenario(), after_the_signal(rest, first=first))
    assert (finding.result, finding.text) == ("passed", "200 complete")
    assert load == LoadResult(during=Counts(served=1))


@pytest.mark.parametrize(
    ("scenario", "first", "kind"),
    [
        pytest.param(slow, b"", "reset on fresh", id="slow request"),
        pytest.param(download, CHUNKED + b"\r\n" + PIECE, "cut body", id="download"),
        pytest.param(events, EVENTS + EVENT, "cut body", id="event stream"),
    ],
)
async def test_a_reset_after_the_signal_is_one_request_lost(
    scenario: Callable[[], Scenario], first: bytes, kind: str
) -> None:
    finding, load = await play(scenario(), reset_after_the_signal(first=first))
    assert (finding.result, finding.text) == ("failed", f"lost: {kind}")
    assert load.during.lost == {kind: 1}
    assert load.total.sent == 1


async def test_an_answer_of_503_after_the_signal_is_wrong_and_not_lost() -> None:
    finding, load = await play(slow(), after_the_signal(status(503)))
    assert finding.result == "failed"
    assert finding.text == "wrong: status 503 (503, 2 bytes: 'no')"
    assert load.during.wrong == {"status 503": 1}


RETRY_AFTER = b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize(("is_allowed", "result"), [(True, "passed"), (False, "failed")])
async def test_a_503_with_a_retry_after_is_a_rejection(is_allowed: bool, result: str) -> None:
    scenario = Slow(plan(slow_path="/", allow_reject=is_allowed))
    finding, load = await play(scenario, after_the_signal(RETRY_AFTER))
    assert finding.result == result
    assert load.during.rejected == is_allowed
    assert load.during.wrong == ({} if is_allowed else {"rejected": 1})


async def test_before_the_signal_nothing_is_rejected_on_purpose() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        scene.end(RETRY_AFTER)
        await scene.reader.read()

    scenario = Slow(plan(slow_path="/", allow_reject=True))
    finding, load = await play(scenario, script, signal=False)
    assert finding.result == "failed"
    assert load.before.wrong == {"status 503": 1}


@pytest.mark.parametrize("scenario", [slow, download, events])
async def test_an_answer_before_the_signal_is_asked_for_again_until_one_is_in_flight(
    scenario: Callable[[], Scenario],
) -> None:
    """A third request is sent once the second answer is read; with it at the server, the signal."""
    asked: list[bool] = []

    async def script(scene: Scene) -> None:
        await scene.head()
        asked.append(True)
        if len(asked) < 3:
            scene.is_last = False
            scene.end(EVENTS + EVENT + LAST)
            await scene.reader.read()  # until the client has left
            return
        scene.write(EVENTS + EVENT)
        await scene.signalled.wait()
        scene.end(LAST)

    finding, load = await play(scenario(), script, wait=lambda: len(asked) == 3)
    assert finding.result == "passed"
    assert load == LoadResult(before=Counts(served=2), during=Counts(served=1))


# -- upload ---------------------------------------------------------------------------------------


async def test_an_upload_goes_on_after_the_signal_and_is_answered() -> None:
    received = []

    async def script(scene: Scene) -> None:
        head = await scene.head()
        assert head.startswith(b"POST /upload ")
        received.append(len(await scene.reader.readexactly(64 * 1024)))
        assert scene.signalled.is_set()
        scene.end(OK)

    finding, load = await play(Upload(plan(upload_path="/upload")), script)
    assert (finding.result, finding.text) == ("passed", "200 complete")
    assert load == LoadResult(during=Counts(served=1))
    assert received == [64 * 1024]


async def test_an_upload_whose_connection_ends_with_the_signal_is_lost() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        await scene.reader.readexactly(32 * 1024)
        await scene.signalled.wait()
        scene.reset()

    finding, load = await play(Upload(plan(upload_path="/upload")), script)
    assert finding.result == "failed"
    assert load.during.lost == {"reset on fresh": 1}


async def test_an_upload_that_is_answered_unread_shows_nothing() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        scene.end(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await scene.reader.read()

    finding, load = await play(Upload(plan(upload_path="/upload")), script, signal=False)
    assert finding.result == "untested"
    assert "answered before its body was sent" in finding.text
    assert load == LoadResult(before=Counts(served=1))


# -- event stream ---------------------------------------------------------------------------------


async def test_an_event_stream_that_ends_after_a_whole_event_is_right() -> None:
    finding, load = await play(events(), after_the_signal(EVENT + LAST, first=EVENTS + EVENT))
    assert finding.result == "passed"
    assert finding.text.startswith("ended whole after ")
    assert load == LoadResult(during=Counts(served=1))


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\r", b"\r\n\r\n"])
async def test_an_event_may_end_in_any_kind_of_blank_line(ending: bytes) -> None:
    event = b"data: 1" + ending
    chunk = b"%x\r\n%s\r\n" % (len(event), event)
    finding, _ = await play(events(), after_the_signal(LAST, first=EVENTS + chunk))
    assert finding.result == "passed"


async def test_an_event_stream_that_ends_within_an_event_is_cut() -> None:
    """The chunked body ends as it should: only who knows events can tell."""
    finding, load = await play(
        events(), after_the_signal(HALF_AN_EVENT + LAST, first=EVENTS + EVENT)
    )
    assert finding.result == "failed"
    assert finding.text == "wrong: half an event (the stream ended within an event)"
    assert load.during.wrong == {"half an event": 1}


async def test_an_event_stream_that_nobody_serves_is_an_error_that_names_it() -> None:
    """As of a server that exits while its answers are learned."""
    scenario = events()
    with pytest.raises(PathError, match="--sse-path /events: GET /events: no connection"):
        await scenario.prepare(Run(scenario.plan, host="127.0.0.1", port=free_port()))


async def test_an_event_stream_that_goes_on_until_the_server_has_gone_is_lost() -> None:
    finding, load = await play(events(), open_to_the_end(EVENTS + EVENT))
    assert (finding.result, finding.text) == ("failed", "lost: timeout")
    assert load.during.lost_total == 1


async def test_an_event_stream_that_turns_out_to_be_something_else_is_wrong() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        await scene.signalled.wait()
        scene.end(CHUNKED + b"Content-Type: text/html\r\n\r\n" + PIECE + LAST)

    scenario = events()
    scenario.in_position.set()
    finding, load = await play(scenario, script)
    assert (finding.result, finding.text) == ("failed", "wrong: another type")
    assert load.total.wrong == {"another type": 1}


# -- connections without a request ----------------------------------------------------------------


async def test_an_idle_connection_that_is_closed_is_right() -> None:
    finding, load = await play(Idle(plan()), after_the_signal(b"", first=OK))
    assert finding.result == "passed"
    assert finding.text.startswith("closed after ")
    assert load == LoadResult(before=Counts(served=1))


async def test_an_idle_connection_that_is_reset_is_closed_as_well() -> None:
    finding, _ = await play(Idle(plan()), reset_after_the_signal(first=OK))
    assert finding.result == "passed"


async def test_an_idle_connection_that_stays_open_is_wrong() -> None:
    finding, load = await play(Idle(plan()), open_to_the_end(OK))
    assert (finding.result, finding.text) == ("failed", "open until the kill")
    assert load.total.lost_total == 0


async def test_a_server_without_keep_alive_has_no_idle_connection() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        scene.end(OK_AND_CLOSE)
        await scene.signalled.wait()

    finding, _ = await play(Idle(plan()), script)
    assert finding.result == "not run"


@pytest.mark.parametrize(
    ("answer", "text"), [(b"", "closed after "), (status(408), "answered 408, closed after ")]
)
async def test_half_a_head_may_be_closed_with_an_answer_or_without(
    answer: bytes, text: str
) -> None:
    got = []

    async def script(scene: Scene) -> None:
        got.append(await scene.reader.read(4096))
        await scene.signalled.wait()
        scene.end(answer)

    finding, load = await play(HalfHead(plan()), script)
    assert finding.result == "passed"
    assert finding.text.startswith(text)
    assert load == LoadResult()
    assert got[0].startswith(b"GET / HTTP/1.1\r\nHost: ")
    assert b"\r\n\r\n" not in got[0]


async def test_half_a_head_that_is_waited_for_to_the_end_is_wrong() -> None:
    async def script(scene: Scene) -> None:
        await scene.reader.read(1)
        await scene.signalled.wait()
        scene.gone.set()
        await scene.reader.read()

    finding, _ = await play(HalfHead(plan()), script)
    assert (finding.result, finding.text) == ("failed", "open until the kill")


# -- pipelining -----------------------------------------------------------------------------------


async def test_what_is_pipelined_behind_a_close_may_be_sent_again() -> None:
    """Three answers, the third with `Connection: close`: the fourth request is not lost."""

    async def script(scene: Scene) -> None:
        await scene.signalled.wait()
        for answer in (OK, OK, OK_AND_CLOSE):
            await scene.head()
            scene.write(answer)
        scene.end()

    finding, load = await play(Pipelining(plan()), script)
    assert (finding.result, finding.text) == ("passed", "3 answered, 1 retryable")
    assert (load.total.served, load.total.retryable, load.total.lost_total) == (3, 1, 0)


async def test_what_is_pipelined_and_dropped_without_a_word_is_lost() -> None:
    async def script(scene: Scene) -> None:
        await scene.signalled.wait()
        for _ in range(4):
            await scene.head()
        scene.write(OK)
        scene.end()

    finding, load = await play(Pipelining(plan()), script)
    assert finding.result == "failed"
    assert load.total.served == 1
    assert load.total.lost == {"empty reply": 3}
    assert load.total.retryable == 0


async def test_answers_to_a_pipeline_may_come_in_one_piece() -> None:
    async def script(scene: Scene) -> None:
        await scene.signalled.wait()
        for _ in range(4):
            await scene.head()
        scene.end(OK * 3 + OK_AND_CLOSE)

    finding, load = await play(Pipelining(plan()), script)
    assert (finding.result, finding.text) == ("passed", "all 4 answered")
    assert load.total.served == 4


async def test_a_server_that_ends_a_connection_after_some_requests_has_a_pipeline() -> None:
    """As nginx does after 1,000 of them (`keepalive_requests`)."""
    scenes: list[Scene] = []

    async def script(scene: Scene) -> None:
        scenes.append(scene)
        scene.is_last = len(scenes) == 2
        if scene.is_last:
            await scene.signalled.wait()
        answers = [OK] * (3 if scene.is_last else 7)
        for answer in (*answers, OK_AND_CLOSE):
            await scene.head()
            scene.write(answer)
        scene.end()

    finding, load = await play(Pipelining(plan()), script, wait=lambda: len(scenes) == 2)
    assert (finding.result, finding.text) == ("passed", "all 12 answered")
    assert load.total.served == 12


async def test_a_server_without_keep_alive_has_no_pipeline() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        scene.end(OK_AND_CLOSE)

    finding, load = await play(Pipelining(plan()), script, signal=False)
    assert (finding.result, finding.text) == ("not run", "the server keeps no connection alive")
    assert load.total.lost_total == 0


# -- runs of their own ----------------------------------------------------------------------------


async def test_a_hung_request_is_judged_by_the_exit_alone() -> None:
    scenario = Hung(plan(hang_path="/hang"))
    finding, load = await play(scenario, reset_after_the_signal())
    assert (finding.result, finding.text) == ("passed", "gone after 1.0 s")
    assert load == LoadResult()
    late = scenario.finding(Exit(code=-9, seconds=30.5, late=True))
    assert (late.result, late.text) == ("failed", "still there after 30.5 s")


def test_a_repeated_signal_is_right_when_nothing_else_is_different() -> None:
    served = LoadResult(before=Counts(served=3), after=Counts(served=1))
    lost = LoadResult(during=Counts(served=3, lost={"cut body": 2}))
    late = Exit(code=-9, seconds=30.5, late=True)
    assert repeated.judge_repeated(served, EXIT).text == "all 4 answered"
    assert repeated.judge_repeated(served, EXIT).result == "passed"
    assert repeated.judge_repeated(lost, EXIT).result == "failed"
    assert repeated.judge_repeated(served, late).text == "still there after 30.5 s"


# -- what is not run ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slow request", "streaming download", "upload", "event stream"])
def test_a_scenario_without_a_path_is_not_run_and_says_what_it_needs(name: str) -> None:
    [scenario] = [each for each in together(plan()) if each.name == name]
    assert scenario.is_left_out
    finding = scenario.finding(EXIT)
    assert finding.result == "not run"
    assert finding.text.startswith("needs --")


def test_every_scenario_of_a_check_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES) == 18
