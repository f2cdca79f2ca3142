"""`Option`: the default, the allowed values and the meaning of one option. Pure.

A dataclass whose fields come from `option` is a table of options. That one table is the keyword in
code, `GRACEFUL_<NAME>` in the environment, `--name` on the command line of `graceful-asgi run`, the
validation, and the reference.
"""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from .errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX: Final = "GRACEFUL_"
"""The beginning of the names of all environment variables."""

_DECLARED: Final = "graceful_asgi.option"
"""The key in a field's metadata that holds the arguments of `option`."""


class Kind(NamedTuple):
    """The values that an option may have: how one is checked, and how one is read from text."""

    allowed: str
    """The values in words, for the message of an error."""
    metavar: str
    """The values in a word, for the usage of a command."""
    accepts: Callable[[object], bool]
    parse: Callable[[str], object]
    """Return the value that a text stands for, or the text itself where it stands for none."""
    convert: Callable[[Any], object] = lambda value: value
    """Return an accepted value as the type that the field has."""


class Option(NamedTuple):
    """One option: its name, default and allowed values."""

    name: str
    """The keyword in code."""
    default: object
    kind: Kind
    meaning: str
    is_secret: bool = False
    """True if no value of the option may be printed."""

    @property
    def variable(self) -> str:
        """The environment variable that gives it."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The option of the command line that gives it."""
        return "--" + self.name.replace("_", "-")

    @property
    def summary(self) -> str:
        """The first sentence of its meaning."""
        sentence, stop, _ = self.meaning.partition(". ")
        return sentence + stop.rstrip()

    def check(self, value: object, *, called: str = "") -> Any:
        """Return *value* as the field has it.

        Raises:
            PolicyError: (a `ValueError`) *value* is not allowed. The message names the option as
                *called*, by default by its keyword.
        """
        if not self.kind.accepts(value):
            shown = self.show(value, called=called)
            raise PolicyError(f"{shown} is not allowed; allowed: {self.kind.allowed}")
        return self.kind.convert(value)

    def parse(self, text: str, *, called: str) -> Any:
        """Return the value that *text* stands for. Raises `PolicyError` as `check` does."""
        return self.check(self.kind.parse(text.strip()), called=called)

    def show(self, value: object, *, called: str = "") -> str:
        """Return the option and *value* as `name=value`, a secret's value left out."""
        return f"{called or self.name}={'...' if self.is_secret else repr(value)}"


def option(default: object, kind: Kind, meaning: str, *, secret: bool = False) -> Any:
    """Return a dataclass field that is an option.

    Args:
        default: the value where none is given.
        kind: the values that are allowed.
        meaning: what the option does, in whole sentences. The help shows the first one.
        secret: keep the value out of every log line and error.
    """
    declared = {_DECLARED: (kind, meaning, secret)}
    return field(default=default, repr=not secret, metadata=declared)


def options_of(owner: type) -> Mapping[str, Option]:
    """Return the options that the dataclass *owner* declares, by name, in order."""
    found = {}
    for each in fields(owner):
        if _DECLARED in each.metadata:
            kind, meaning, secret = each.metadata[_DECLARED]
            found[each.name] = Option(
                name=each.name, default=each.default, kind=kind, meaning=meaning, is_secret=secret
            )
    return found


def _is_period(value: object) -> bool:
    # `True` is an int in Python, and no period.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:  # an integer that no float can hold
        return False


def _parse_number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _parse_flag(text: str) -> object:
    return {"1": True, "true": True, "yes": True, "on": True}.get(
        text.lower(), False if text.lower() in ("0", "false", "no", "off") else text
    )


def or_none(kind: Kind) -> Kind:
    """Return *kind* with None as one more value; empty text and `none` stand for it."""
    return Kind(
        allowed=f"{kind.allowed}, or None",
        metavar=kind.metavar,
        accepts=lambda value: value is None or kind.accepts(value),
        parse=lambda text: None if text.lower() in ("", "none") else kind.parse(text),
        convert=lambda value: None if value is None else kind.convert(value),
    )


def choice(literal: object) -> Kind:
    """Return the kind whose values are those of a `Literal` of strings."""
    choices = get_args(literal)
    return Kind(
        allowed=" or ".join(repr(each) for each in choices),
        metavar="|".join(choices),
        accepts=lambda value: isinstance(value, str) and value in choices,
        parse=str,
    )


PERIOD: Final = Kind(
    allowed="a finite number of seconds, 0 or more",
    metavar="SECONDS",
    accepts=_is_period,
    parse=_parse_number,
    convert=float,
)
FLAG: Final = Kind(
    allowed="True or False",
    metavar="BOOLEAN",
    accepts=lambda value: isinstance(value, bool),
    parse=_parse_flag,
)
