"""The Typer application and its frame: global errors, exit codes, common options."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hub.cli.output import complain
from hub.config import Settings, load_settings, unknown_variables
from hub.errors import ClarionError, ConfigError

app = typer.Typer(
    name="clarion",
    help="A self-hosted, real-time notification hub.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The hub to talk to; from the settings if unset.")
]
KeyOption = Annotated[str | None, typer.Option("--key", help="The API key; from the settings if unset.")]


def settings(**overrides: Any) -> Settings:
    """The settings of this environment; hints about misspelled variables go to standard error."""
    for hint in unknown_variables():
        complain(hint)
    return load_settings(**overrides)


def run(command: Callable[..., Any] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = (command or app)(standalone_mode=False)
    except typer.Exit as exit_:
        code = exit_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except ConfigError as error:
        complain(str(error))
        code = 2  # the supervisor does not start a part again that refuses its settings
    except ClarionError as error:
        complain(str(error))
        code = getattr(error, "exit_code", 1)
    except BrokenPipeError:
        code = 1
    except Exception as error:
        if not _is_usage(error):
            raise
        if message := error.format_message():  # type: ignore[attr-defined]
            complain(message)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _is_usage(error: Exception) -> bool:
    # Typer carries its own copy of click; both name the base of usage errors alike.
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)
