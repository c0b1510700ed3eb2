"""The addresses that a message carries: the preferences page, unsubscribing from a category, the receipt of a push."""

from collections.abc import Mapping, Sequence

from hub.links import SignedLinks
from hub.model.vocabulary import Channel
from hub.ports import Claimed


class DeliveryLinks:
    """Makes them for one delivery; they hold for as long as the deployment's secrets do."""

    def __init__(self, public_url: str, secrets: Sequence[bytes]) -> None:
        self._public_url = public_url.rstrip("/")
        self._unsubscribe = SignedLinks(secrets, "unsubscribe")
        self._receipt = SignedLinks(secrets, "receipt")

    def __call__(self, claimed: Claimed) -> Mapping[str, str]:
        delivery = claimed.delivery
        urls = {"preferences": f"{self._public_url}/preferences"}
        if delivery.channel is Channel.EMAIL:
            token = self._unsubscribe.sign({"user": delivery.user_id, "category": delivery.category})
            urls["unsubscribe"] = f"{self._public_url}/unsubscribe/{token}"
        elif delivery.channel is Channel.WEB_PUSH:
            token = self._receipt.sign(
                {
                    "delivery": delivery.id,
                    "user": delivery.user_id,
                    "notification": delivery.notification_id,
                }
            )
            urls["receipt"] = f"{self._public_url}/v1/push/receipts/{token}"
        return urls
