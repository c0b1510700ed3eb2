"""The made-up people of a story: their addresses, browsers and choices. No address leads anywhere."""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
DOMAIN = "people.example"  # RFC 2606: nobody's


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody. `about`: what the story says of their choices; `phone`: a number that nobody has."""

    id: str
    name: str
    about: str = ""
    has_email: bool = True
    phone: str | None = None
    has_browser: bool = False
    preferences: Json = field(default_factory=dict)
    topics: tuple[str, ...] = ()

    @property
    def email(self) -> str | None:
        """An address, if they have one."""
        return f"{self.id}@{DOMAIN}" if self.has_email else None

    def to_json(self) -> Json:
        """The item of `POST /v1/users/batch`."""
        given: Json = {"id": self.id, "name": self.name}
        for name, value in (
            ("email", self.email),
            ("phone", self.phone),
            ("preferences", self.preferences),
            ("topics", list(self.topics)),
        ):
            if value:
                given[name] = value
        return given
