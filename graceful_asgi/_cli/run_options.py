"""The options that ``graceful-asgi run`` has besides uvicorn's own: one per field. No behaviour."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from .. import policy as policies
from .._asgi.health import Probes
from ..errors import PolicyError
from ..policy import ENV_PREFIX, DrainPolicy, parse_field
from .meanings import meanings
from .values import ParamType

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY_FIELDS: Final = tuple(field.name for field in dataclasses.fields(DrainPolicy))
PROBE_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Probes))


class _PolicyField(ParamType):
    """A field of the policy, read as `DrainPolicy.from_env` reads it."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        self.name = field.name
        choices = get_args(getattr(policies, str(field.type), None))
        self.metavar = "|".join(choices) if choices else "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_field(self.name, value, called=_flag(self.name))
        except PolicyError as error:
            self.fail(str(error), param, ctx)


def drain_options() -> list[click.Option]:
    """Return an option per field of `DrainPolicy` and `Probes`, and `--control-dir`."""
    of_policy = _meanings(DrainPolicy)
    options = [
        _policy_option(field, of_policy[field.name]) for field in dataclasses.fields(DrainPolicy)
    ]
    for name, meaning in _meanings(Probes).items():
        metavar = "TOKEN" if name == "drain_token" else "PATH"
        options.append(_option(_flag(name), name, meaning, metavar=metavar))
    options.append(
        _option(
            "--control-dir",
            "control_dir",
            "Where each process has a socket for `status`, `drain` and `resume`.",
            metavar="DIRECTORY",
        )
    )
    return options


def _policy_option(field: dataclasses.Field[Any], meaning: str) -> click.Option:
    if field.type == "bool":
        flag = _flag(field.name)
        return _option(f"{flag}/--no-{flag[2:]}", field.name, meaning)
    kind = _PolicyField(field)
    return _option(_flag(field.name), field.name, meaning, type=kind, metavar=kind.metavar)


def _option(flag: str, name: str, meaning: str, **settings: Any) -> click.Option:
    return click.Option(
        [flag, name],
        default=None,
        help=f"{meaning}  [{ENV_PREFIX}{name.upper()}]",
        allow_from_autoenv=False,  # those are uvicorn's
        **settings,
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _meanings(owner: type) -> Mapping[str, str]:
    """Return what each field means, in a sentence."""
    return {name: re.split(r"(?<=\.)\s", text)[0] for name, text in meanings(owner).items()}
