"""``graceful-asgi run``: uvicorn's command line, and the drain's. It decides nothing else."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click
from uvicorn.main import main as uvicorn_command

from .._asgi.precedence import OPTIONS
from .._control import CONTROL_DIR
from .._run.config import DrainedConfig
from .._run.launch import serve
from ..errors import PolicyError
from .run_options import DRAIN_OPTIONS

HELP: Final = """\
Run an app under uvicorn, and lose no request when it is told to stop.

Takes every option of uvicorn, from the command line and as UVICORN_... from the environment. The
app needs no change. If the app has GracefulMiddleware already, its drain is used, and no second one
is added. Options given here win over the environment, and the environment over the app's code.

Exit code: 0 everything in flight finished; 1 work was cut, a worker was killed, or an unhandled
exception stopped the server; 2 an option or a variable is not allowed; 3 the app did not start.
"""


class _RunCommand(click.Command):
    """A command that lists the drain's options apart from uvicorn's."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them in two sections."""
        for heading, ours in (("Drain", True), ("uvicorn", False)):
            records = [
                record
                for param in self.get_params(ctx)
                if (param in DRAIN_OPTIONS) is ours
                and (record := param.get_help_record(ctx)) is not None
            ]
            with formatter.section(heading):
                formatter.write_dl(records)


@click.command(
    "run",
    cls=_RunCommand,
    help=HELP,
    context_settings={"auto_envvar_prefix": "UVICORN"},
    params=[*uvicorn_command.params, *DRAIN_OPTIONS],
)
def command(*, app: str, app_dir: str, control_dir: str | None, **values: Any) -> int:
    """Run the server to its end; return the exit code."""
    command_line = _take_given(values)
    if control_dir is not None:
        os.environ[CONTROL_DIR] = control_dir  # the workers' as well
    sys.path.insert(0, app_dir)
    try:
        config = DrainedConfig(app, command_line=command_line, **_for_config(values))
    except PolicyError as error:
        raise click.UsageError(str(error)) from error
    return serve(config)


def _take_given(values: dict[str, Any]) -> dict[str, Any]:
    """Take the drain's options out of *values*; return those that were given, None included."""
    source = click.get_current_context().get_parameter_source
    return {
        name: value
        for name, value in ((name, values.pop(name)) for name in OPTIONS)
        if source(name) is click.core.ParameterSource.COMMANDLINE
    }


def _for_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return what uvicorn's command makes of its options before it gives them to `Config`."""
    options = {**values, "headers": [header.split(":", 1) for header in values["headers"]]}
    if options["log_config"] is None:
        del options["log_config"]
    return options
