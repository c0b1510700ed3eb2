"""Why somebody would get a notification, did get it, or did not: rule by rule (`GET /v1/explain`)."""

from typing import Any

from hub.batches import CatalogSource
from hub.errors import Refused
from hub.model.explanation import explain_rules
from hub.model.notifications import Reason
from hub.model.types import TypeVersion
from hub.model.users import Profile, User
from hub.model.visibility import visible
from hub.model.vocabulary import Channel
from hub.ports import Clock, Store
from hub.timing import throttled_since_us


class Explain:
    """Answers from today's rules and, for an event, from the plan that was stored."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogSource,
        available: frozenset[Channel],
        default_timezone: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._available = available
        self._default_timezone = default_timezone
        self._clock = clock

    async def explain(self, user_id: str, type: str, event_id: str | None) -> dict[str, Any]:  # noqa: A002 - the query's name
        """Today's rules for a user and a type; with an event, also what was planned for it then."""
        catalog = await self._catalog.current()
        version = catalog.types.get(type)
        if version is None:
            raise Refused(404, "unknown_type", f"There is no type {type!r}.")
        users = await self._store.load_users([user_id], with_subscriptions=True)
        user = users.get(user_id) or User(Profile(user_id))
        category = catalog.categories.get(version.definition.category)
        now_us = self._clock.now_us()
        answer: dict[str, Any] = {
            "user": user_id,
            "type": type,
            "category": version.definition.category,
            "rules": explain_rules(
                version,
                category,
                user,
                self._available,
                now_us=now_us,
                recent=await self._recent(user_id, version, now_us),
            ),
        }
        if event_id is not None:
            answer["event"] = await self._event(user, event_id)
        return answer

    async def _recent(self, user_id: str, kind: TypeVersion, now_us: int) -> int:
        """How much of a type's throttle a user has used up."""
        if kind.definition.throttle is None:
            return 0
        since_us = {kind.name: throttled_since_us(kind, now_us)}
        found = await self._store.timing([], None, [user_id], since_us)
        return found.recent.get((user_id, kind.name), 0)

    async def _event(self, user: User, event_id: str) -> dict[str, Any]:
        planned = await self._store.explain(user.profile.id, event_id)
        if planned is not None:
            return {
                "id": event_id,
                "notification": planned.id,
                "in_app": planned.in_app,
                "reasons": planned.reasons,
            }
        broadcasts = await self._store.event_broadcasts(event_id)
        for broadcast in broadcasts:
            sight = visible(broadcast, user, self._default_timezone)
            if sight or len(broadcasts) == 1:
                verdict = "use" if sight else "refuse"
                reason = Reason(Channel.IN_APP, verdict, sight.rule, sight.detail)
                return {
                    "id": event_id,
                    "notification": broadcast.id,
                    "in_app": bool(sight),
                    "reasons": [reason, *(r for r in broadcast.reasons if r.channel != Channel.IN_APP)],
                }
        return {"id": event_id, "notification": None, "in_app": False, "reasons": []}
