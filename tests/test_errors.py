"""Errors by which an app learns of its end, told from errors of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from graceful_asgi.errors import ClosedError, GracefulError

if TYPE_CHECKING:
    from collections.abc import Callable


class Group(Exception):
    """As `ExceptionGroup`, which Python has from 3.11 on."""

    def __init__(self, *exceptions: Exception) -> None:
        self.exceptions = exceptions


def raised(error: Exception, *, over: Exception | None = None) -> Exception:
    """Return *error* as it is when it was raised while *over* was handled."""
    try:
        if over is not None:
            try:
                raise over
            except Exception:
                raise error  # noqa: B904  # implicitly, as it happens
        raise error
    except Exception as exc:
        return exc


def ended() -> ClosedError:
    return ClosedError("GET /events has been ended")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(ended, id="as it is"),
        pytest.param(lambda: raised(ClientDisconnect(), over=ended()), id="of a stream"),
        pytest.param(lambda: raised(WebSocketDisconnect(1006), over=ended()), id="of a WebSocket"),
        pytest.param(lambda: raised(ConnectionError(), over=ended()), id="as another OSError"),
        pytest.param(lambda: Group(ended(), Group(ended())), id="in a group"),
    ],
)
def test_an_app_that_lets_the_news_out(make: Callable[[], Exception]) -> None:
    assert ClosedError.is_behind(make())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: raised(KeyError("x"), over=ended()), id="in the clean-up"),
        pytest.param(lambda: Group(ended(), ValueError()), id="beside it"),
        pytest.param(lambda: raised(OSError("disk")), id="of another kind"),
        pytest.param(lambda: raised(GracefulError("cut")), id="of ours"),
    ],
)
def test_an_app_that_fails_by_itself(make: Callable[[], Exception]) -> None:
    assert not ClosedError.is_behind(make())


def test_an_error_that_is_its_own_cause_is_looked_at_once() -> None:
    error = OSError("x")
    error.__cause__ = error
    assert not ClosedError.is_behind(error)


def test_the_path_in_the_text_of_an_error_is_no_command_to_a_terminal() -> None:
    text = str(ClosedError("GET /a\x1b[2J\nINFO: forged is closed"))
    assert text.isprintable()
    assert r"/a\x1b[2J\nINFO: forged" in text
