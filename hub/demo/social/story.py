"""The story of a social network (R37), act by act: posts, comments and messages, with the app open and closed."""

from itertools import count
from pathlib import Path
from typing import Any, Final

from hub.definitions import Definitions, read_folder
from hub.demo.open_app import OpenApp, opened_app
from hub.demo.people import Person
from hub.demo.stage import ARRIVAL_SECONDS, Stage, now
from hub.model.vocabulary import Channel

Json = dict[str, Any]
SENDER: Final = "The Club <news@social.example>"
TOPIC: Final = "club"
FAST_WINDOW_SECONDS: Final = 4
ONLY_CAROL: Final = {"only": {"categories": {"posts": {"actors": ["carol"]}}}}
COMMENTS: Final = (
    ("dan", "Where was that?"),
    ("finn", "I was there too!"),
    ("eve", "The light is beautiful."),
    ("dan", "Now I see it."),
    ("finn", "Let us go again in spring."),
)


def members() -> list[Person]:
    """The people of the network. All follow the club's topic."""
    return [
        Person("carol", "Carol", "writes, and reads her comments by e-mail", topics=(TOPIC,)),
        Person("finn", "Finn", "writes a lot", topics=(TOPIC,), has_email=False),
        Person("dan", "Dan", "follows the club, but wants only Carol's posts", has_browser=True,
               preferences=ONLY_CAROL, topics=(TOPIC,)),
        Person("eve", "Eve", "wants everything", has_browser=True, topics=(TOPIC,)),
    ]  # fmt: skip


def definitions(*, is_fast: bool) -> Definitions:
    """The types and categories of the network. Fast: comments are collected for a shorter time."""
    found = read_folder(Path(__file__).parent)
    if is_fast:
        comment = found.types["comment.created"]
        comment["digest"]["window_seconds"] = FAST_WINDOW_SECONDS
        comment["channels"]["email"]["after_seconds"] = FAST_WINDOW_SECONDS
    return found


class SocialStory:
    """Plays on a stage. Faults are told and kept by the stage."""

    def __init__(self, stage: Stage, *, is_fast: bool) -> None:
        self._stage = stage
        self._is_fast = is_fast
        self._teller = stage.teller
        self._posts = count(1)

    async def play(self) -> None:
        """The whole story."""
        await self._stage.hub.define(definitions(is_fast=self._is_fast))
        people = members()
        await self._stage.settle(people)
        for person in people:
            self._teller.did(f"{person.name} {person.about}.")
        await self.open_app()
        await self.closed_app()
        await self.comments()
        await self.opening()
        self._teller.act("The sum")
        await self._stage.balance()

    # ------------------------------------------------------------ acts

    async def open_app(self) -> None:
        """Posts go to a topic: each follower gets what they chose, live or by push."""
        self._teller.act(
            "Posts",
            "A post is one event to a topic (post.created). Where the app is open it shows there; where it is closed, "
            "push takes over. Eve has the app open; Dan has not.",
        )
        async with opened_app(self._stage.hub, "eve") as app:
            self._teller.did('Finn posts: "Rain again."')
            await self._post("finn", "Rain again.")
            await self._sees(app, "eve", "Rain again.")
            self._teller.did('Carol posts: "Snow on the hills."')
            since = await self._post("carol", "Snow on the hills.")
            await self._sees(app, "eve", "Snow on the hills.")
            await self._stage.arrives("dan", Channel.WEB_PUSH, "Snow on the hills.", since)
        listed = [one["title"] for one in await self._inbox("dan")]
        if listed != ["Carol: Snow on the hills."]:
            self._stage.wrong(f"Dan wants only Carol's posts, but his inbox lists {listed}.")
        self._teller.note(
            "Dan got no push about Finn's post, and his inbox does not list it: his preferences say "
            f"{_short(ONLY_CAROL)}."
        )

    async def closed_app(self) -> None:
        """The same person, gone."""
        self._teller.act("The app closes", "Eve closes the app. What comes now finds her by push.")
        self._teller.did('Finn posts: "The sun is out!"')
        since = await self._post("finn", "The sun is out!")
        await self._stage.arrives("eve", Channel.WEB_PUSH, "The sun is out!", since)
        self._teller.did('Dan writes to Eve alone: "Coffee at four?"')
        _, since = await self._message("dan", "eve", "Coffee at four?")
        await self._stage.arrives("eve", Channel.WEB_PUSH, "Coffee at four?", since, text=True)

    async def comments(self) -> None:
        """A digest."""
        self._teller.act(
            "Many comments, one e-mail",
            "The type comment.created collects what comes within some seconds and was not looked at; its e-mail lists "
            "them all. (In earnest the window would be an hour.)",
        )
        self._teller.did(f"{len(COMMENTS)} comments on Carol's post, while her app is closed.")
        since = now()
        for actor, text in COMMENTS:
            await self._comment(actor, "carol", text)
        mail = await self._stage.arrives(
            "carol", Channel.EMAIL, f"{len(COMMENTS)} new comments", since, text=True
        )
        if mail is not None and not all(mail.says(text) for _, text in COMMENTS):
            self._stage.wrong("Carol's e-mail does not list all comments.")

    async def opening(self) -> None:
        """Whoever looks needs no e-mail any more."""
        self._teller.act(
            "Opening the app",
            "What was seen on one device is cancelled wherever it still waits.",
        )
        self._teller.did("Dan writes to Eve once more and comments on her post; she is not there.")
        message, since = await self._message("dan", "eve", "Or at five?")
        await self._stage.arrives("eve", Channel.WEB_PUSH, "Or at five?", since)
        comment = await self._comment("dan", "eve", "Nice shoes.")
        for event in (comment, message):
            held = [one for one in await self._stage.held(event) if one["channel"] == Channel.EMAIL]
            if [one["state"] for one in held] != ["held"]:
                self._stage.wrong(f"Eve's e-mail is not held: {held}.")
        self._teller.note("An e-mail about each is held: she may look at it in time.")
        async with opened_app(self._stage.hub, "eve"):
            self._teller.did("Eve opens the app, which lists her inbox and marks what it shows as seen.")
            listed = await self._inbox("eve")
            self._teller.shown("Eve", "; ".join(one["title"] for one in listed[:2]))
            await self._stage.hub.call(
                "POST", "/v1/me/notifications/marks", {"mark": "seen", "all": True}, user="eve"
            )
        for event in (comment, message):
            lines = await self._stage.hub.until_logged(_cancelled_mail, ARRIVAL_SECONDS, event=event)
            if lines is None:
                self._stage.wrong("An e-mail about what Eve has seen was not cancelled.")
            else:
                self._teller.logged(next(line for line in lines if _is_cancelled_mail(line)))

    # ------------------------------------------------------------ pieces

    async def _post(self, actor: str, text: str) -> float:
        since = now()
        data = {"post": next(self._posts), "text": text}
        await self._stage.hub.publish(
            {"type": "post.created", "to": {"topic": TOPIC}, "actor": actor, "data": data}
        )
        return since

    async def _comment(self, actor: str, author: str, text: str) -> str:
        event = {"type": "comment.created", "to": author, "actor": actor, "data": {"post": 1, "text": text}}
        return await self._stage.hub.publish(event)

    async def _message(self, actor: str, to: str, text: str) -> tuple[str, float]:
        since = now()
        event = {"type": "message.sent", "to": to, "actor": actor, "data": {"text": text}}
        return await self._stage.hub.publish(event), since

    async def _sees(self, app: OpenApp, user: str, text: str) -> None:
        if await app.shows(text):
            self._teller.shown(self._stage.name(user), app.shown[-1]["title"])
        else:
            self._stage.wrong(f"{self._stage.name(user)}'s open app did not show {text!r}.")

    async def _inbox(self, user: str) -> list[Json]:
        page = await self._stage.hub.call("GET", "/v1/me/notifications", user=user)
        return list(page["notifications"])


def _is_cancelled_mail(line: Json) -> bool:
    return (line["state"], line.get("channel"), line.get("reason")) == ("cancelled", "email", "seen")


def _cancelled_mail(lines: list[Json]) -> bool:
    return any(map(_is_cancelled_mail, lines))


def _short(document: Any) -> str:
    """A document in few characters, as people write it."""
    if isinstance(document, dict):
        return "{" + ", ".join(f"{name}: {_short(value)}" for name, value in document.items()) + "}"
    return "[" + ", ".join(map(str, document)) + "]" if isinstance(document, list) else str(document)
