"""The Typer application and its frame: every failure is one sentence on standard error, with an exit code.

Commands import what is heavy when they run: `--help`, `send` and `token` must not wait for a database's libraries.
"""

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer

from hub.cli.output import complain
from hub.errors import BusUnavailable, ClarionError, ConfigError, QueueUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from hub.config import Settings

app = typer.Typer(
    name="clarion",
    help="A self-hosted, real-time notification hub.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUN = "Run"
TALK = "Publish and watch"
DEFINE = "Types and categories"
OPERATE = "Operate"


def _check_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        good = re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value) and urlsplit(value).port != 0
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter(f"{value!r} is no address of a hub; give one like http://127.0.0.1:8000.")
    return value.rstrip("/")


def _check_key(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[!-~]+", value):
        raise typer.BadParameter("an API key has printable ASCII characters only, without spaces.")
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The hub to talk to; from the settings if unset.", callback=_check_url
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", help="The API key; from the settings if unset.", callback=_check_key
    ),
]


def settings(**overrides: Any) -> "Settings":
    """The settings of this environment; hints about misspelled variables go to standard error."""
    from hub.config import Settings, load_settings
    from hub.config_sources import unknown_variables

    for hint in unknown_variables(Settings.model_fields):
        complain(hint)
    return load_settings(**overrides)


def shared_settings(*needed: str) -> "Settings":
    """The settings with the secrets that the hub's data folder holds. Nothing is generated: only the hub knows its own.

    Raises `ConfigError` when one of the needed (`api_key`, `token_secret`) is nowhere.
    """
    config = settings().with_generated_secrets(create=False)
    for name in needed:
        if getattr(config, name) is None:
            raise ConfigError(
                f"CLARION_{name.upper()} is not set and {str(config.data_dir)!r} holds none; set it, or run this with "
                "the CLARION_DATA_DIR of the hub."
            )
    return config


def check_id(value: str, name: str) -> None:
    """Refuse what cannot be an id."""
    from hub.model.vocabulary import is_id

    if not is_id(value):
        raise typer.BadParameter(
            f"{value[:200]!r} is no id; an id has 1 to 128 of A-Za-z0-9._:@+|~=-.", param_hint=name
        )


def run(load: Callable[[], None]) -> NoReturn:
    """Load the commands, run the one that is asked for, and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # what a terminal cannot show must not end a command
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_exit_code(load))


def _exit_code(load: Callable[[], None]) -> int:
    try:
        load()
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130  # as the shell says of what SIGINT ended
    except ConfigError as error:
        complain(str(error))
        return 2  # the supervisor does not start a part again that refuses its settings
    except (StoreUnavailable, QueueUnavailable, BusUnavailable) as error:
        from hub.doctor import advised

        complain(advised(error))
        return 1
    except ClarionError as error:
        complain(str(error))
        return int(getattr(error, "exit_code", 1))
    except BrokenPipeError:  # the reader had enough, as in `clarion keys list | head -1`
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        complain(
            f"the system refused: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}."
        )
        return 1
    except Exception as error:
        if _is_usage(error):
            _complain_usage(error)
            return 2
        if os.environ.get("CLARION_LOG_LEVEL", "").lower() == "debug":
            raise
        complain(
            f"this is a mistake of the program: {type(error).__name__}: {error} (CLARION_LOG_LEVEL=debug shows where)."
        )
        return 1


def _is_usage(error: Exception) -> bool:
    # Typer carries its own copy of click; both name the base of usage errors alike.
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def _complain_usage(error: Any) -> None:
    message = " ".join(error.format_message().split()).rstrip(".")
    if hasattr(error.__cause__, "errors"):  # pydantic's, which does not say what the value was
        value = error.__cause__.errors(include_url=False)[0].get("input")
        message = message.replace("Input should", f"{value!r} should").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    if message:
        complain(f"{message} (see `{' '.join(['clarion', *names])} --help`).")


def _drop_output() -> None:
    """Nobody takes our output any more; the interpreter must not try again at its end."""
    if sys.stdout is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
