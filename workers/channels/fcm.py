"""Firebase Cloud Messaging, HTTP v1: one message to one device, and what its answers mean.

Statuses alone do not say enough: a 404 may be a dead token or a wrong project, and a token must not be thrown away for
our own mistake. So tokens go only when FCM's own error code, or the field that it complains of, says that it is them.
"""

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
from google.auth import exceptions
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from hub.errors import ConfigError
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.ports import Clock
from hub.provider_urls import ProviderUrl
from workers.channels.http import Answer, HttpClient, Lost, in_time, printable, retry_after_seconds

ENDPOINT: Final = "https://fcm.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
CONNECTIONS: Final = 16
TIMEOUT_SECONDS: Final = 10.0
QUOTA_SECONDS: Final = 60.0  # Firebase, "Handle retries": without Retry-After a 429 waits a minute
LONGEST_LIFE_SECONDS: Final = 4 * 7 * 86_400  # FCM keeps a message for four weeks at most
RENEW_BEFORE_SECONDS: Final = 300.0

_FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST: Final = "type.googleapis.com/google.rpc.BadRequest"
_encode = msgspec.json.Encoder().encode


class FcmProvider:
    """One Firebase project (`workers.channels.base.Provider`)."""

    def __init__(self, url: ProviderUrl, clock: Clock, http: HttpClient) -> None:
        """Raises `ConfigError` when the credentials cannot be used."""
        self.name = url.name
        self.connections = int(url.number("connections", CONNECTIONS))
        self.per_second = url.number("per_second", 0) or None
        self._timeout_seconds = url.number("timeout_seconds", TIMEOUT_SECONDS)
        endpoint = url.options.get("endpoint", ENDPOINT).rstrip("/")
        self._address = f"{endpoint}/v1/projects/{quote(url.host, safe='')}/messages:send"
        self._access = Access(Path(url.options["credentials"]).expanduser(), self._timeout_seconds)
        self._clock = clock
        self._http = http
        self._holds = True
        http.hold()

    async def send(self, message: Any, target: Target) -> Outcome:
        """Carry one `MobilePush` to one device."""
        token = await self._access.token()
        if isinstance(token, RetryAfter):
            return token
        now_us = self._clock.now_us()
        said = await self._http.post(
            self._address,
            body=_encode({"message": addressed(message.content, target, message.expires_at_us, now_us)}),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
            timeout_seconds=self._timeout_seconds,
        )
        if isinstance(said, Lost):
            if said.may_have_arrived:
                return Unclear(said.code, said.detail)
            return RetryAfter(said.code, said.detail)
        outcome = outcome_of(said, self._clock.now_us())
        if said.status == 401 and outcome.code != "THIRD_PARTY_AUTH_ERROR":
            self._access.forget()
        return outcome

    async def close(self) -> None:
        """Let go of the shared session."""
        if self._holds:
            self._holds = False
            await self._http.let_go()


class Access:
    """The access token of a service account, renewed in a thread before it ends, by one at a time."""

    def __init__(self, file: Path, timeout_seconds: float) -> None:
        """Raises `ConfigError`."""
        place = f"CLARION_MOBILE_PROVIDERS: the credentials in {file}"
        try:
            given = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        except OSError as error:
            raise ConfigError(f"{place} cannot be read: {error.strerror}.") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigError(f"{place} are not the JSON of a service account.") from None
        try:
            self._credentials: Any = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                given, scopes=[SCOPE]
            )
        except (ValueError, TypeError, KeyError, AttributeError, exceptions.GoogleAuthError):
            raise ConfigError(
                f"{place} are not those of a service account: client_email, token_uri or private_key is missing or wrong."
            ) from None
        self._timeout_seconds = timeout_seconds
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Future[None] | None = None

    async def token(self) -> str | RetryAfter:
        """A token that is good for some minutes, or why there is none."""
        if not self._is_good():
            async with self._lock:
                if not self._is_good() and (problem := await self._renew()) is not None:
                    return problem
        return str(self._credentials.token)

    def forget(self) -> None:
        """FCM refused the token: get another one the next time."""
        self._credentials.token = None

    def _is_good(self) -> bool:
        expiry = self._credentials.expiry
        if not self._credentials.token or expiry is None:
            return False
        now = datetime.now(UTC).replace(tzinfo=None)  # the library's own clock stamped it so
        return bool((expiry - now).total_seconds() > RENEW_BEFORE_SECONDS)

    async def _renew(self) -> RetryAfter | None:
        if self._renewing is None or self._renewing.done():
            ask = partial(Request(), timeout=self._timeout_seconds)
            self._renewing = asyncio.ensure_future(asyncio.to_thread(self._credentials.refresh, ask))
        if not await in_time(self._renewing, self._timeout_seconds):
            return RetryAfter(
                "token_failed", "No access token: Google's token server did not answer in time."
            )
        error = self._renewing.exception()
        if error is None:
            return None
        if isinstance(error, exceptions.RefreshError) and not error.retryable:
            said = printable(str(error.args[0])) if error.args else ""
            return RetryAfter("bad_credentials", f"Google's token server refused the service account: {said}")
        return RetryAfter("token_failed", f"No access token: {type(error).__name__}.")


def addressed(
    content: dict[str, Any], target: Target, expires_at_us: int | None, now_us: int
) -> dict[str, Any]:
    """The message for one device at one moment: with its token and the time that is left to it."""
    message = {**content, "token": target.address}
    if expires_at_us is None:
        return message
    seconds = min(max(round((expires_at_us - now_us) / 1_000_000), 0), LONGEST_LIFE_SECONDS)
    headers = {**content["apns"]["headers"], "apns-expiration": str(expires_at_us // 1_000_000)}
    message["android"] = {**content["android"], "ttl": f"{seconds}s"}
    message["apns"] = {**content["apns"], "headers": headers}
    message["webpush"] = {"headers": {**content["webpush"]["headers"], "TTL": str(seconds)}}
    return message


def outcome_of(answer: Answer, now_us: int) -> Outcome:
    """What an answer means (Firebase, "FCM error codes")."""
    said = _document(answer.body)
    if answer.status == 200:
        name = said.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 512:
            return Unclear("nonsense", "FCM answered 200 without the name of a message.")
        return Sent("accepted", "", name)
    error = said.get("error")
    error = error if isinstance(error, dict) else {}
    own = _error_code(error)
    status = error.get("status")
    code = own or (status[:60] if isinstance(status, str) and status else f"http_{answer.status}")
    detail = f"FCM answered {answer.status} {code}: {printable(str(error.get('message', '')))}"
    wait_seconds = retry_after_seconds(answer.headers.get("retry-after"), now_us)
    if _is_tokens_end(answer.status, own, error):
        return GiveUp(code, detail, target_is_gone=True)
    if answer.status == 429:
        wait_seconds = QUOTA_SECONDS if wait_seconds is None else wait_seconds
        return RetryAfter(code, detail, wait_seconds, is_providers_fault=False)
    if (
        own == "THIRD_PARTY_AUTH_ERROR"
    ):  # Apple's or a browser's push service refuses the project; Android goes on
        return RetryAfter(code, detail, wait_seconds, is_providers_fault=False)
    if answer.status in (400, 413):
        return GiveUp(code, detail)
    return RetryAfter(code, detail, wait_seconds)


def _is_tokens_end(status: int, own: str, error: dict[str, Any]) -> bool:
    if status == 404 and own == "UNREGISTERED":
        return True
    if (
        status == 403 and own == "SENDER_ID_MISMATCH"
    ):  # a token of another project: no message of ours can reach it
        return True
    if status != 400:
        return False
    fields = {
        violation.get("field")
        for detail in _details(error, _BAD_REQUEST)
        for violation in detail.get("fieldViolations") or ()
        if isinstance(violation, dict)
    }
    if fields:
        return fields == {"message.token"}
    # The documented answer to a malformed token names no field; its sentence is what tells it from other mistakes.
    return own == "INVALID_ARGUMENT" and "registration token" in str(error.get("message", "")).lower()


def _error_code(error: dict[str, Any]) -> str:
    codes = [detail.get("errorCode") for detail in _details(error, _FCM_ERROR)]
    return next((code[:60] for code in codes if isinstance(code, str)), "")


def _details(error: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    details = error.get("details")
    given = details if isinstance(details, list) else []
    return [one for one in given if isinstance(one, dict) and one.get("@type") == kind]


def _document(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return said if isinstance(said, dict) else {}
