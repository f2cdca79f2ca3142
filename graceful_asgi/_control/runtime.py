"""The private directory in which the workers of one server find each other when none was given."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from ..errors import ControlError
from .directory import ControlDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def open_private(environ: Mapping[str, str] | None = None) -> ControlDirectory:
    """Open the user's own runtime directory for control sockets, made where it is missing.

    `$XDG_RUNTIME_DIR/graceful-asgi`, else `graceful-asgi-<uid>` in the directory for temporary
    files. Everybody may write there: what somebody else has put in its place is refused.

    Raises:
        ControlError: neither can be had.
    """
    faults = []
    for path in _candidates(os.environ if environ is None else environ):
        try:
            return ControlDirectory(path, source="runtime directory", create=True, follow=False)
        except ControlError as error:
            faults.append(str(error))
    raise ControlError("; ".join(faults))


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        yield os.path.join(runtime, "graceful-asgi")
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # none that can be written to
        return
    yield os.path.join(temporary, f"graceful-asgi-{os.geteuid()}")
