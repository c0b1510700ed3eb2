"""Where settings come from and how a wrong one is refused: variables, `.env`, secrets in files, sentences.

Nothing here shows the value of a secret.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from hub.errors import ConfigError

PREFIX = "CLARION_"


class SecretFiles(PydanticBaseSettingsSource):
    """`CLARION_X_FILE` for every secret `X`: the file's text without surrounding white space."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Part of the interface; everything happens in `__call__`."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        given = given_variables()
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            named = variable(name)
            path = given.get(f"{named}_FILE")
            if not path or not is_secret(field):
                continue
            if given.get(named):
                raise ConfigError(f"{named} and {named}_FILE are both set; keep one of them.")
            try:
                found[name] = Path(path).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                raise ConfigError(
                    f"{named}_FILE is {path!r}, but it must be a file that can be read: {reason}."
                ) from error
            if not found[name]:
                raise ConfigError(
                    f"{named}_FILE is {path!r}, but that file is empty; it must hold {accepts(field)}."
                )
        return found


def variable(field_name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field_name.upper()


def is_secret(field: FieldInfo) -> bool:
    """Whether a field's value must not be shown."""
    return "SecretStr" in repr(field.annotation)


def given_variables() -> dict[str, str]:
    """The environment over `.env`."""
    dotenv = {key.upper(): value or "" for key, value in dotenv_values(".env").items()}
    return dotenv | {
        key.upper(): value for key, value in os.environ.items() if key.upper().startswith(PREFIX)
    }


def unknown_variables(fields: Mapping[str, FieldInfo], environ: Mapping[str, str] | None = None) -> list[str]:
    """Sentences about CLARION_ variables that look like misspelled settings; others are left alone."""
    known = {variable(name) for name in fields}
    known |= {f"{variable(name)}_FILE" for name, field in fields.items() if is_secret(field)}
    hints = []
    for name in sorted(given_variables() if environ is None else environ):
        close = get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(PREFIX) and name not in known and close:
            hints.append(f"{name} is not a setting; did you mean {close[0]}?")
    return hints


def accepts(field: FieldInfo) -> str:
    """What a field's value may be, to go after "it must be"."""
    extra = field.json_schema_extra
    return str(extra["accepts"]) if isinstance(extra, dict) else "something else"


def sentence(error: ValidationError, fields: Mapping[str, FieldInfo], overrides: Mapping[str, Any]) -> str:
    """One sentence for the first thing that is wrong."""
    first = error.errors(include_input=False, include_url=False)[0]
    cause = str(first.get("ctx", {}).get("error", ""))
    if not first["loc"]:
        return cause
    name = str(first["loc"][0]).removeprefix(PREFIX).removeprefix(PREFIX.lower()).lower()
    field = fields[name]
    must = f"it must be {accepts(field)}."
    if is_secret(field):
        return (
            f"{variable(name)} cannot be used (its value is not shown{'; ' + cause if cause else ''}): {must}"
        )
    value = overrides.get(name, given_variables().get(variable(name), ""))
    return f"{variable(name)} is {str(value)[:200]!r}, but {must}"
