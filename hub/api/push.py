"""Web push: the key, a user's browsers, and what their service workers report."""

from hub.api.models import Published
from hub.api.push_models import (
    PushKey,
    PushSubscriptions,
    ReceiptInput,
    RegisteredShown,
    SubscriptionShown,
)
from hub.api.routing import Call, Reply, Route
from hub.model.notifications import rfc3339
from hub.push import Registered, RenewalRequest, SubscriptionInput, SubscriptionName


async def public_key(call: Call) -> Reply:
    """GET /v1/push/public-key."""
    return Reply(PushKey(call.parts.push.public_key()))


async def subscriptions(call: Call) -> Reply:
    """GET /v1/me/push-subscriptions: without endpoints and keys, which are secrets of each browser."""
    found = [
        SubscriptionShown(
            one.id, one.endpoint.split("/")[2], rfc3339(one.created_at_us), rfc3339(one.used_at_us)
        )
        for one in await call.parts.push.of(call.user_id)
    ]
    return Reply(PushSubscriptions(found, None))


async def register(call: Call) -> Reply:
    """POST /v1/me/push-subscriptions."""
    return _registered(await call.parts.push.register(call.user_id, call.body_as(SubscriptionInput)))


async def remove(call: Call) -> Reply:
    """DELETE /v1/me/push-subscriptions."""
    await call.parts.push.remove(call.user_id, call.body_as(SubscriptionName))
    return Reply(status=204)


async def test(call: Call) -> Reply:
    """POST /v1/me/push-subscriptions/test."""
    return Reply(Published(await call.parts.push.test(call.user_id), "accepted"), status=202)


async def renew(call: Call) -> Reply:
    """POST /v1/push/renewals."""
    return _registered(await call.parts.push.renew(call.body_as(RenewalRequest)))


async def receipt(call: Call) -> Reply:
    """POST /v1/push/receipts/{token}."""
    says = call.parts.push.receipt_of(call.path["token"])
    call.parts.limiter.check(says["user"])
    await call.parts.push.receive(says, call.body_as(ReceiptInput).event)
    return Reply(status=204)


def _registered(done: Registered) -> Reply:
    return Reply(RegisteredShown(done.id, done.renewal))


ROUTES = [
    Route(
        "GET",
        "/v1/push/public-key",
        public_key,
        ("open",),
        "The key that browsers subscribe with (applicationServerKey)",
        PushKey,
    ),
    Route(
        "GET",
        "/v1/me/push-subscriptions",
        subscriptions,
        ("user",),
        "My browsers that get push",
        PushSubscriptions,
    ),
    Route(
        "POST",
        "/v1/me/push-subscriptions",
        register,
        ("user",),
        "Register a browser: PushSubscription.toJSON() as it is",
        RegisteredShown,
        body=SubscriptionInput,
        body_kind="json",
        codes=("invalid_subscription",),
    ),
    Route(
        "DELETE",
        "/v1/me/push-subscriptions",
        remove,
        ("user",),
        "Forget a browser, by its endpoint or id",
        None,
        204,
        body=SubscriptionName,
        body_kind="json",
        codes=("invalid_subscription",),
    ),
    Route(
        "POST",
        "/v1/me/push-subscriptions/test",
        test,
        ("user",),
        "Send a test notification to my browsers",
        Published,
        202,
        codes=("conflict", "queue_unavailable"),
    ),
    Route(
        "POST",
        "/v1/push/renewals",
        renew,
        ("open",),
        "A service worker replaces its browser's subscription, with what it got at registration",
        RegisteredShown,
        body=RenewalRequest,
        body_kind="json",
        codes=("invalid_subscription", "unauthorized"),
    ),
    Route(
        "POST",
        "/v1/push/receipts/{token}",
        receipt,
        ("open",),
        "A service worker reports what became of a message, at the address in it",
        None,
        204,
        body=ReceiptInput,
        body_kind="json",
        codes=("rate_limited",),
        quiet=True,
    ),
]
