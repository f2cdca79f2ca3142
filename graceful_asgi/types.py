"""The ASGI names used in this package. Only type aliases live here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
"""Any app. The apps of Litestar, Quart and others declare arguments of narrower types than `Scope`,
`Receive` and `Send`: a type checker would refuse them."""
