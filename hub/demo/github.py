"""Recorded GitHub webhooks as events: `event_of` is pure and gives every payload an event that is accepted.

Type: `github.<name>`, or `github.<name>.<action>` where the payload has an action. Actor: the sender's login.
Data: the payload as it is (the largest has 27 KB, the limit is 64 KiB: nothing is cut). Audience:

    the payload has              it goes to                             because
    ---------------------------  -------------------------------------  ------------------------------------
    a repository                 topic repo:<owner>:<name>              its watchers want to know
    else an organisation         topic org:<login>                      its watchers want to know
    else an app installation     its account: org:<login>, or the user  it is their app
    else a marketplace purchase  its account, and the user who bought   they pay; the buyer gets a receipt
    else a sponsorship           the sponsored user and the sponsor     both sides of it
    else a security advisory     topic advisories:<ecosystem>           who uses packages of that ecosystem
    else a sender                that user                              nobody else is named
    else nothing                 topic github                           so that it is not lost

Owner and name are those of `repository.full_name`, which is what titles and links show.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

from hub.model.vocabulary import is_id

Json = dict[str, Any]
ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@+|~=-")


def as_id(text: str) -> str:
    """A text as an id: always the same one, and a different one for each of GitHub's logins.

    Bots lose their brackets: `dependabot[bot]` is `dependabot+bot`. Any other character that ids do not allow
    becomes `=XX` for each of its UTF-8 bytes. What is longer than 128 ends in `~` and a part of its SHA-256.
    """
    if text.endswith("[bot]"):
        text = text.removesuffix("[bot]") + "+bot"
    if is_id(text):
        return text
    safe = "".join(
        sign if sign in ALLOWED else "".join(f"={byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))
        for sign in text
    )
    if len(safe) <= 128:
        return safe or "="
    return safe[:111] + "~" + sha256(safe.encode()).hexdigest()[:16]


def topic(*parts: str) -> Json:
    """An audience of `to`: the topic with these parts."""
    return {"topic": as_id(":".join(parts))}


def account_of(account: Mapping[str, Any]) -> Json | str:
    """An account that something belongs to: an organisation's watchers, or the user."""
    login = account["login"]
    return topic("org", login) if account.get("type") == "Organization" else as_id(login)


def audience_of(payload: Mapping[str, Any]) -> Json | str | list[Json | str]:
    """Who gets a payload, by the table of this module."""
    match payload:
        case {"repository": {"full_name": str(full_name)}}:
            return topic("repo", *full_name.split("/", 1))
        case {"organization": {"login": str(login)}}:
            return topic("org", login)
        case {"installation": {"account": {"login": str()} as account}}:
            return account_of(account)
        case {
            "marketplace_purchase": {"account": {"login": str()} as account},
            "sender": {"login": str(buyer)},
        }:
            return several([account_of(account), as_id(buyer)])
        case {"sponsorship": {"sponsorable": {"login": str(sponsored)}, "sponsor": {"login": str(sponsor)}}}:
            return several([as_id(sponsored), as_id(sponsor)])
        case {"security_advisory": {"vulnerabilities": [_, *_] as found}}:
            ecosystems = [one["package"]["ecosystem"] for one in found]
            return several([topic("advisories", name) for name in dict.fromkeys(ecosystems)])
        case {"sender": {"login": str(login)}}:
            return as_id(login)
        case _:
            return topic("github")


def several(entries: list[Json | str]) -> Json | str | list[Json | str]:
    """Each entry once; one alone stands for itself."""
    once = [entry for place, entry in enumerate(entries) if entry not in entries[:place]]
    return once[0] if len(once) == 1 else once


def type_of(name: str, payload: Mapping[str, Any]) -> str:
    """The event's type; actions are GitHub's, except that a `repository_dispatch` may bring any text."""
    action = payload.get("action")
    return as_id(f"github.{name}.{action}" if isinstance(action, str) and action else f"github.{name}")


def event_of(name: str, payload: Json) -> Json:
    """The event that publishes a webhook: `name` is what `X-GitHub-Event` says. Shares `payload`."""
    event: Json = {"type": type_of(name, payload), "to": audience_of(payload), "data": payload}
    match payload:
        case {"sender": {"login": str(login)}}:
            event["actor"] = as_id(login)
    return event


def recorded_webhooks() -> Iterator[tuple[str, Json]]:
    """Name and payload of all recorded webhooks, in the order of the file."""
    packed = files("hub.demo").joinpath("github-webhooks.json.gz").read_bytes()
    for kind in json.loads(gzip.decompress(packed)):
        for payload in kind["examples"]:
            yield kind["name"], payload


def recorded_events() -> Iterator[Json]:
    """All recorded webhooks as events, in the order of the file."""
    return (event_of(name, payload) for name, payload in recorded_webhooks())
