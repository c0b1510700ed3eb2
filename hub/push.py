"""Web push, the hub's half: browsers are registered, tried, renewed, and their service workers report back.

An endpoint is accepted only at a push service that is allowed, with keys that messages can be encrypted for. What a
service worker says is believed for its own delivery alone, by a signed address in the message.
"""

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from hub.errors import FieldError, Refused
from hub.inbox import Inbox, MarkRequest
from hub.intake import Intake
from hub.links import SignedLinks
from hub.livelog import LiveLog
from hub.model.push_hosts import PushHosts
from hub.model.vocabulary import Channel
from hub.ports import Clock, PushSubscription, Store
from hub.ports.push_subscriptions import PushEvent
from hub.push_keys import application_server_key, decode_base64url, is_p256_point, read_private_key

KEEP: Final = 20  # subscriptions of one user; the one used longest ago goes
EARLY_SECONDS: Final = (0.5, 1.0, 2.0)  # a browser may show it before our sender has noted that it was sent
RENEWAL_SECONDS: Final = 400 * 86_400  # browsers keep what a site stores about as long
TEST_TITLE: Final = "Browser notifications work"
TEST_BODY: Final = "You get them here from now on, also when the page is closed."


class SubscriptionKeys(Struct, frozen=True):
    """What messages are encrypted with, in base64url."""

    p256dh: Annotated[str, Meta(max_length=256)]
    auth: Annotated[str, Meta(max_length=256)]


class SubscriptionInput(Struct, frozen=True):
    """`PushSubscription.toJSON()` as it is; what else a browser says in it is left alone."""

    endpoint: Annotated[str, Meta(max_length=4096)]
    keys: SubscriptionKeys


class SubscriptionName(Struct, frozen=True, forbid_unknown_fields=True):
    """Which subscription: by its endpoint or by its id."""

    endpoint: Annotated[str, Meta(max_length=4096)] | None = None
    id: Annotated[str, Meta(max_length=64)] | None = None


class RenewalRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The browser changed its subscription. `renewal` came with the old one and stands for its user."""

    renewal: Annotated[str, Meta(max_length=2048)]
    subscription: SubscriptionInput


class Registered(Struct, frozen=True):
    """The subscription is kept. `renewal` replaces it later without the user; whoever has it acts for this browser."""

    id: str
    renewal: str


class Push:
    """Registration and receipts of web push."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        inbox: Inbox,
        intake: Intake,
        livelog: LiveLog,
        *,
        vapid_private_key: str | None,
        secrets: Sequence[bytes],
        allowed_hosts: Sequence[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._inbox = inbox
        self._intake = intake
        self._livelog = livelog
        self._hosts = PushHosts(allowed_hosts)
        self._receipts = SignedLinks(secrets, "receipt")
        self._renewals = SignedLinks(secrets, "push-renewal")
        self._public_key = (
            application_server_key(read_private_key(vapid_private_key)) if vapid_private_key else None
        )

    def public_key(self) -> str:
        """What browsers subscribe with (`applicationServerKey`), in base64url."""
        if self._public_key is None:
            raise Refused(404, "not_found", "This hub has no key for web push.")
        return self._public_key

    # ------------------------------------------------------------ subscriptions

    async def register(self, user_id: str, given: SubscriptionInput) -> Registered:
        """Keep a browser's subscription for a user; one with this endpoint moves. Raises `Refused(422)`."""
        subscription = self._checked(user_id, given)
        await self._store.save_subscription(subscription, KEEP)
        return Registered(subscription.id, self._renewal(subscription))

    async def renew(self, request: RenewalRequest) -> Registered:
        """Replace a browser's subscription by its next one. Raises `Refused` (401, 422)."""
        says = self._renewals.read(request.renewal)
        if says is None:
            raise _no_renewal()
        user_id, issued_us = str(says.get("user")), says.get("at_us")
        now_us = self._clock.now_us()
        if not isinstance(issued_us, int) or issued_us + RENEWAL_SECONDS * 1_000_000 < now_us:
            raise _no_renewal()
        user = (await self._store.load_users([user_id])).get(user_id)
        if user is None or issued_us < max(user.tokens_valid_from_us, user.erased_at_us or 0):
            raise _no_renewal()  # revoked, or erased: nobody comes back by an old renewal
        registered = await self.register(user_id, request.subscription)
        if (before := says.get("subscription")) and before != registered.id:
            await self._store.remove_subscription(str(before), user_id)
        return registered

    async def of(self, user_id: str) -> list[PushSubscription]:
        """A user's subscriptions, the one used last first."""
        return (await self._store.subscriptions_of([user_id])).get(user_id, [])

    async def remove(self, user_id: str, which: SubscriptionName) -> None:
        """Forget one of a user's. What is not there, or somebody else's, is left alone. Raises `Refused(422)`."""
        if (which.endpoint is None) == (which.id is None):
            raise _invalid("", "Give either the endpoint or the id.")
        id_ = which.id if which.endpoint is None else subscription_id(which.endpoint)
        await self._store.remove_subscription(str(id_), user_id)

    async def test(self, user_id: str) -> str:
        """Publish a notification to a user's browsers alone; its event's id. Raises `Refused(409)` without any."""
        if not await self.of(user_id):
            raise Refused(409, "conflict", "No browser of yours is registered yet.")
        event = {
            "to": user_id,
            "title": TEST_TITLE,
            "body": TEST_BODY,
            "channels": [Channel.WEB_PUSH],
            "collapse_key": "clarion-push-test",
        }
        accepted = await self._intake.publish(msgspec.json.encode(event), "http:push-test", "push-test", None)
        return accepted.id

    def _renewal(self, subscription: PushSubscription) -> str:
        at_us = self._clock.now_us()
        return self._renewals.sign(
            {"user": subscription.user_id, "subscription": subscription.id, "at_us": at_us}
        )

    def _checked(self, user_id: str, given: SubscriptionInput) -> PushSubscription:
        try:
            self._hosts.endpoint(given.endpoint)
        except ValueError as error:
            raise _invalid("/endpoint", str(error)) from None
        if not is_p256_point(_decoded(given.keys.p256dh)):
            raise _invalid(
                "/keys/p256dh", "p256dh must be a point on P-256: 65 bytes in base64url (RFC 8291 §3.1)."
            )
        if len(_decoded(given.keys.auth)) != 16:
            raise _invalid("/keys/auth", "auth must be 16 bytes in base64url (RFC 8291 §3.2).")
        now_us = self._clock.now_us()
        return PushSubscription(
            id=subscription_id(given.endpoint),
            user_id=user_id,
            endpoint=given.endpoint,
            p256dh=given.keys.p256dh.rstrip("="),
            auth=given.keys.auth.rstrip("="),
            created_at_us=now_us,
            used_at_us=now_us,
        )

    # ------------------------------------------------------------ receipts

    def receipt_of(self, token: str) -> dict[str, str]:
        """What a receipt's address says: `user`, `delivery`, `notification`. Raises `Refused(404)`."""
        says = self._receipts.read(token) or {}
        if not all(isinstance(says.get(name), str) for name in ("user", "delivery", "notification")):
            raise Refused(404, "not_found", "This receipt does not exist.")
        return says

    async def receive(self, says: dict[str, str], event: PushEvent) -> None:
        """A service worker reports: logged, `shown` makes it delivered, and what was clicked was read."""
        user_id, delivery_id = says["user"], says["delivery"]
        receipt = await self._store.note_receipt(user_id, delivery_id, event, self._clock.now_us())
        for pause_seconds in EARLY_SECONDS:
            if receipt is None or not receipt.is_early:
                break
            await asyncio.sleep(pause_seconds)
            receipt = await self._store.note_receipt(user_id, delivery_id, event, self._clock.now_us())
        if receipt is None:
            return  # erased since: nobody's notification is read
        await self._livelog.tell(receipt.entries)
        if event == "clicked":
            await self._inbox.mark(user_id, MarkRequest("read", ids=[says["notification"]]))


def subscription_id(endpoint: str) -> str:
    """The id of whatever subscription has this endpoint; it does not lead back to it."""
    return "psb_" + blake2b(endpoint.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _decoded(text: str) -> bytes:
    try:
        return decode_base64url(text)
    except ValueError:
        return b""


def _invalid(pointer: str, detail: str) -> Refused:
    return Refused(422, "invalid_subscription", detail, [FieldError(pointer, "invalid_subscription", detail)])


def _no_renewal() -> Refused:
    return Refused(
        401, "unauthorized", "This renewal counts no more; register the browser with a user's token."
    )
