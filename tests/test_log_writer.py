"""Records reach the log: as visible as the server's own, and nobody who logs waits for it."""

from __future__ import annotations

import _thread
import contextvars
import logging
import logging.handlers
import os
import queue
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from support.command import run_python
from support.polling import PATIENCE, wait_until

from graceful_asgi.log_writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

SomeSink = TypeVar("SomeSink", bound=logging.Handler)
SERVER = "some_server.error"
OURS = "some_drain"


class Sink(logging.Handler):
    """Keeps what comes to it, with the thread that it came in."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.texts: list[str] = []
        self.threads: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.threads.add(threading.get_ident())


class Stuck(Sink):
    """A pipe that nobody reads, until `release`."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.released.wait(PATIENCE)
        super().emit(record)


@pytest.fixture
def root() -> logging.Logger:
    """A root logger that pytest has no handler at, as Python makes it."""
    return logging.RootLogger(logging.WARNING)


@pytest.fixture
def ours(root: logging.Logger) -> Iterator[logging.Logger]:
    """Our logger; it and the server's are below a root of their own."""
    loggers = [logging.getLogger(name) for name in (OURS, SERVER)]
    for logger in loggers:
        logger.parent = root
    yield loggers[0]
    for logger in loggers:
        logger.parent = logging.getLogger()
        logger.handlers.clear()
        logger.filters.clear()
        logger.setLevel(logging.NOTSET)
        logger.disabled, logger.propagate = False, True


@pytest.fixture
def writer(ours: logging.Logger) -> Iterator[Writer]:
    writer = Writer(ours)
    yield writer
    writer.is_written(PATIENCE)  # what is late would reach the handlers of the next test
    writer.stop()


def say(writer: Writer, text: str, level: int = logging.INFO) -> None:
    if writer.is_enabled_for(level):
        writer.write(logging.makeLogRecord({"name": OURS, "msg": text, "levelno": level}))


def server_logs_to(*handlers: logging.Handler, level: int = logging.INFO) -> logging.Logger:
    """Set up a server's logger as uvicorn does: with its own level, and nothing at the root."""
    server = logging.getLogger(SERVER)
    server.setLevel(level)
    server.propagate = False
    server.handlers[:] = handlers
    return server


def followed(writer: Writer, sink: SomeSink, level: int = logging.INFO) -> SomeSink:
    """Return *sink*, to which a server logs that *writer* follows."""
    server_logs_to(sink, level=level)
    writer.follow(SERVER)
    return sink


def logs_to(ours: logging.Logger, sink: SomeSink) -> SomeSink:
    """Return *sink*, to which our logger logs what is at INFO or above."""
    ours.addHandler(sink)
    ours.setLevel(logging.INFO)
    return sink


def all_is_written(writer: Writer) -> bool:
    """Wait until everything has come to its handlers, and has been taken from their queues."""
    return writer.flush(write=PATIENCE, consume=PATIENCE)


# As visible as the server


def test_without_any_logging_set_up_the_records_go_where_the_server_s_go(writer: Writer) -> None:
    sink = followed(writer, Sink())
    say(writer, "information")
    say(writer, "detail", logging.DEBUG)
    assert sink.texts == ["information"]


def test_with_basic_config_information_is_as_visible_as_the_server_s(
    writer: Writer, root: logging.Logger
) -> None:
    """The root logger is at WARNING then, and the server's own at INFO."""
    server, program = followed(writer, Sink()), Sink()
    root.addHandler(program)
    say(writer, "information")
    assert (program.texts, server.texts) == (["information"], [])


def test_a_program_that_sets_up_its_logging_later_gets_each_record_once(
    writer: Writer, root: logging.Logger
) -> None:
    server, program = followed(writer, Sink()), Sink()
    say(writer, "before")
    root.addHandler(program)
    say(writer, "after")
    assert (server.texts, program.texts) == (["before"], ["after"])


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_a_quiet_server_makes_a_quiet_drain(writer: Writer, level: int) -> None:
    sink = followed(writer, Sink(), level)
    say(writer, "information")
    say(writer, "error", logging.ERROR)
    assert sink.texts == ["error"]


def test_a_level_that_the_program_sets_for_our_logger_counts(
    writer: Writer, ours: logging.Logger
) -> None:
    sink = followed(writer, Sink())
    ours.setLevel(logging.ERROR)
    say(writer, "information")
    ours.setLevel(logging.DEBUG)
    say(writer, "detail", logging.DEBUG)
    assert sink.texts == ["detail"]


def test_handlers_that_the_program_gives_our_logger_are_the_only_ones(
    writer: Writer, ours: logging.Logger
) -> None:
    server, own = followed(writer, Sink()), Sink()
    ours.addHandler(own)
    ours.propagate = False
    say(writer, "information")
    assert (own.texts, server.texts) == (["information"], [])


def test_a_configuration_that_disables_what_it_does_not_name_costs_no_record(
    writer: Writer, ours: logging.Logger
) -> None:
    """That is `dictConfig` by default, called after the import of this package."""
    sink = followed(writer, Sink())
    ours.disabled = True
    say(writer, "information")
    assert sink.texts == ["information"]


def test_the_filters_of_our_logger_count_wherever_its_records_go(
    writer: Writer, ours: logging.Logger
) -> None:
    sink = followed(writer, Sink())
    ours.addFilter(lambda record: record.getMessage() != "secret")
    say(writer, "secret")
    say(writer, "information")
    assert sink.texts == ["information"]


def test_logging_that_is_switched_off_stays_so(writer: Writer) -> None:
    sink = followed(writer, Sink())
    logging.disable(logging.INFO)
    try:
        say(writer, "information")
    finally:
        logging.disable(logging.NOTSET)
    assert sink.texts == []


def test_no_logger_is_changed(writer: Writer, ours: logging.Logger) -> None:
    server = server_logs_to(Sink())
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in (ours, server)]
    writer.follow(SERVER)
    writer.start()
    say(writer, "information")
    after = [(logger.level, list(logger.handlers), logger.propagate) for logger in (ours, server)]
    assert after == before


# Nobody waits


def test_nobody_who_logs_waits_for_a_pipe_that_nobody_reads(
    writer: Writer, ours: logging.Logger
) -> None:
    stuck = logs_to(ours, Stuck())
    writer.start()
    for number in range(100):
        say(writer, str(number))
    assert stuck.reached.wait(PATIENCE)
    assert stuck.texts == []
    began = time.monotonic()
    assert not writer.flush(write=0.1)
    assert time.monotonic() - began < PATIENCE / 2
    stuck.released.set()
    assert all_is_written(writer)
    assert stuck.texts == list(map(str, range(100))), "in order"
    assert threading.get_ident() not in stuck.threads


def test_without_a_thread_whoever_logs_writes(writer: Writer, ours: logging.Logger) -> None:
    sink = logs_to(ours, Sink())
    say(writer, "information")
    assert (sink.texts, sink.threads) == (["information"], {threading.get_ident()})


def test_where_no_thread_can_be_had_whoever_logs_writes(
    writer: Writer, ours: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    sink = logs_to(ours, Sink())
    monkeypatch.setattr("_thread.start_new_thread", refuse)
    writer.start()
    say(writer, "information")
    assert sink.texts == ["information"]
    assert writer.flush()


def test_the_thread_goes_with_the_last_server_and_leaves_nothing_behind(
    writer: Writer, ours: logging.Logger
) -> None:
    sink = logs_to(ours, Sink())
    before = _thread._count()
    writer.start()
    writer.start()
    writer.stop()
    say(writer, "one server is left")
    assert all_is_written(writer)
    assert threading.get_ident() not in sink.threads
    writer.stop()
    assert all_is_written(writer)
    wait_until(lambda: _thread._count() <= before, "the thread to end")
    say(writer, "none is left")
    assert sink.texts == ["one server is left", "none is left"]
    writer.start()
    say(writer, "another server")
    assert all_is_written(writer)
    assert sink.texts[-1] == "another server"


def test_filters_see_the_context_of_whoever_logs(writer: Writer, ours: logging.Logger) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen = []
    logs_to(ours, Sink())

    def look(record: logging.LogRecord) -> bool:
        seen.append(request.get())
        return True

    ours.addFilter(look)
    writer.start()
    request.set("mine")
    say(writer, "information")
    assert all_is_written(writer)
    assert seen == ["mine"]


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("error", [LookupError("broken"), SystemExit(5), GeneratorExit()])
def test_a_filter_that_raises_is_printed_and_ends_nothing(
    writer: Writer,
    ours: logging.Logger,
    error: BaseException,
    threaded: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = True

    def check(record: logging.LogRecord) -> bool:
        if broken:
            raise error
        return True

    sink = logs_to(ours, Sink())
    ours.addFilter(check)
    if threaded:
        writer.start()
    say(writer, "lost")
    assert all_is_written(writer)
    broken = False
    say(writer, "said")
    assert all_is_written(writer)
    assert sink.texts == ["said"]
    assert type(error).__name__ in capsys.readouterr().err


def test_a_log_that_nobody_reads_does_not_fill_the_memory(
    writer: Writer, ours: logging.Logger
) -> None:
    stuck = logs_to(ours, Stuck())
    writer.start()
    for number in range(20_000):
        say(writer, str(number))
    stuck.released.set()
    assert all_is_written(writer)
    assert 10_000 <= len(stuck.texts) < 10_100


# The last lines


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue])
def test_the_queue_of_a_queue_handler_is_waited_for(
    writer: Writer, ours: logging.Logger, kind: Any
) -> None:
    class Slow(Sink):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.02)
            super().emit(record)

    sink, records = Slow(), kind()
    listener = logging.handlers.QueueListener(records, sink)
    ours.addHandler(logging.handlers.QueueHandler(records))
    ours.setLevel(logging.INFO)
    writer.start()
    listener.start()
    try:
        for number in range(10):
            say(writer, str(number))
        assert all_is_written(writer)
        taken = 10 if kind is queue.Queue else 9  # the last may have been taken only
        assert sink.texts[:taken] == list(map(str, range(taken)))
    finally:
        listener.stop()


def test_a_queue_that_nobody_reads_is_not_waited_for(writer: Writer, ours: logging.Logger) -> None:
    ours.addHandler(logging.handlers.QueueHandler(queue.Queue()))
    ours.setLevel(logging.INFO)
    say(writer, "information")
    began = time.monotonic()
    assert not all_is_written(writer)
    assert time.monotonic() - began < PATIENCE / 2


def test_a_process_that_stands_still_loses_no_line_by_it(
    writer: Writer, ours: logging.Logger
) -> None:
    """The reader of its queue stands still for as long, and has not gone."""
    standstills = iter([0.0, 0.5, 0.5, 0.0])

    class Records(queue.SimpleQueue[logging.LogRecord]):
        def qsize(self) -> int:
            standstill = next(standstills, None)
            time.sleep(standstill or 0.0)  # in the middle of a look
            return 0 if standstill is None else 1

    ours.addHandler(logging.handlers.QueueHandler(Records()))
    ours.setLevel(logging.INFO)
    say(writer, "information")
    assert all_is_written(writer)


PROGRAM = """
    import logging, logging.handlers, queue, sys, time
    from graceful_asgi import log

    class Slow(logging.StreamHandler):
        def emit(self, record):
            time.sleep(0.01)
            super().emit(record)

    records = queue.{kind}()
    listener = logging.handlers.QueueListener(records, Slow(sys.stdout))
    logging.basicConfig(level=logging.INFO, handlers=[logging.handlers.QueueHandler(records)])
    listener.start()
    log.start()
    for number in range(10):
        log.caution("line %d", number)
    log.stop()
"""


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_the_last_lines_of_a_process_reach_the_sink_of_a_queue_handler(kind: str) -> None:
    ended = run_python(PROGRAM.format(kind=kind))
    assert ended.returncode == 0, ended.stderr
    assert [line.partition(": ")[2] for line in ended.stdout.splitlines()] == [
        f"line {number}" for number in range(10)
    ]


def test_a_process_whose_log_is_stuck_is_not_kept_by_its_last_lines() -> None:
    program = """
        import logging, sys, threading, time
        from graceful_asgi import log

        class Stuck(logging.Handler):
            def emit(self, record):
                time.sleep(60)
            def acquire(self): pass
            def release(self): pass

        logging.basicConfig(level=logging.INFO, handlers=[Stuck()])
        log.start()
        log.caution("nobody reads this")
        log.stop()
        """
    try:
        ended = run_python(program, within=20)
    except subprocess.TimeoutExpired:
        pytest.fail("the process waits for its log")
    assert ended.returncode == 0, ended.stderr


def test_a_forked_child_has_no_thread_and_writes_by_itself() -> None:
    ended = run_python(
        """
        import logging, os, sys
        from graceful_asgi import log

        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        log.start()
        log.caution("parent")
        log.flush()
        if not (child := os.fork()):
            log.caution("child")
            log.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert [line.rpartition(" ")[2] for line in ended.stdout.splitlines()] == ["parent", "child"]


def test_what_is_logged_after_the_last_server_comes_after_what_was_logged_before(
    writer: Writer, ours: logging.Logger
) -> None:
    stuck = logs_to(ours, Stuck())
    writer.start()
    say(writer, "stopped")
    assert stuck.reached.wait(PATIENCE)
    writer.stop()
    say(writer, "clean")
    writer.start()
    writer.stop()
    say(writer, "over")
    stuck.released.set()
    assert writer.flush(write=PATIENCE)
    assert stuck.texts == ["stopped", "clean", "over"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("servers", [1, 2, 3])
def test_the_thread_ends_however_many_servers_stopped_while_it_wrote(
    writer: Writer, ours: logging.Logger, servers: int
) -> None:
    threads = set(os.listdir("/proc/self/task"))
    stuck = logs_to(ours, Stuck())
    for _ in range(servers):
        writer.start()
        say(writer, "stopped")
        assert stuck.reached.wait(PATIENCE)
        writer.stop()
    stuck.released.set()
    wait_until(lambda: set(os.listdir("/proc/self/task")) <= threads, "the thread has ended")
    assert stuck.texts == ["stopped"] * servers
