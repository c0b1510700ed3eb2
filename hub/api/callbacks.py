"""What providers call: receipts and answers of SMS gateways. Their signature is their credential."""

from hub.api.routing import Call, Reply, Route
from hub.model.vocabulary import Channel
from hub.sms_receipts import SmsReceipts


async def sms(call: Call) -> Reply:
    """POST /v1/callbacks/sms/{provider}: 204, also for news that change nothing."""
    parts = call.parts
    receipts = SmsReceipts(
        parts.settings.providers(Channel.SMS),
        parts.settings.public.url,
        parts.store,
        parts.clock,
    )
    signature = call.headers.get(b"x-twilio-signature", b"").decode("latin-1")
    query = call.query_string.decode("latin-1")
    await receipts.receive(call.path["provider"], query, signature, call.raw)
    return Reply(status=204)


ROUTES = [
    Route(
        "POST",
        "/v1/callbacks/sms/{provider}",
        sms,
        ("open",),
        "Receipts and answers from an SMS gateway, signed by it (X-Twilio-Signature)",
        None,
        204,
        body_kind="form",
        codes=("invalid_signature", "not_found"),
    ),
]
