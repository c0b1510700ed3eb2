"""One client's side of the conversation, as a state machine.

`Session.receive` takes the text of one frame, `next_effect` says what to do, one thing at a time and in order; after
an `Ask` nothing follows until `finish` (or `connected`, `refuse`) is called. Nothing a client sends raises; what breaks
the protocol becomes a `Disconnect`.
"""

from collections import deque
from enum import Enum
from typing import Any, Final

import msgspec

from hub.live.centrifuge.codes import (
    ALREADY_SUBSCRIBED,
    BAD,
    BAD_REQUEST,
    FLOOD,
    NOT_AVAILABLE,
    PERMISSION,
    TOO_MANY,
    UNAVAILABLE,
    Disconnect,
)
from hub.live.centrifuge.commands import (
    NULL,
    Ask,
    ChannelRequest,
    Command,
    Connect,
    ConnectRequest,
    Effect,
    History,
    HistoryRequest,
    Position,
    Refresh,
    Reply,
    Rpc,
    Subscribe,
    SubscribeRequest,
    Unsubscribe,
    decode_command,
)
from hub.live.centrifuge.replies import error_line, unsubscribe_line
from hub.model.vocabulary import BROADCASTS, personal_channel

MAX_CHANNEL_LENGTH: Final = 255
HISTORY_LIMIT: Final = 300
MAX_PENDING: Final = 128  # commands that wait for one that is being answered; beyond it error 111 …
MAX_PENDING_CHARACTERS: Final = 256 * 1024  # … and beyond this the connection ends
BURST: Final = 200  # commands at once …
PER_SECOND: Final = 50  # … and then at this rate; beyond it error 111, far beyond it 3013

_NO_CHANNELS: Final[frozenset[str]] = frozenset()
_decode_any = msgspec.json.Decoder(Any).decode


class _State(Enum):
    NEW = 1  # nothing but connect is taken
    CONNECTING = 2
    CONNECTED = 3
    REFUSED = 4  # an error reply to connect: all later lines are ignored
    CLOSED = 5


class Session:
    """One client's side of the conversation."""

    __slots__ = (
        "_allowance",
        "_busy",
        "_channels",
        "_doom",
        "_moment",
        "_pending",
        "_pending_characters",
        "_state",
        "awaits_pong",
        "user_id",
    )

    def __init__(self) -> None:
        self._state = _State.NEW
        self._pending: deque[Command | Disconnect] | None = None
        self._pending_characters = 0  # what came since nothing waited
        self._doom: Disconnect | None = None  # the client broke the protocol: nothing more is read
        self._busy = False
        self._channels = _NO_CHANNELS  # client-side subscriptions
        self._allowance = float(BURST)
        self._moment = 0.0
        self.awaits_pong = False
        self.user_id = ""

    @property
    def is_new(self) -> bool:
        """Whether the client has not even asked to connect."""
        return self._state is _State.NEW

    @property
    def is_connected(self) -> bool:
        """Whether `connect` succeeded and nothing ended it since."""
        return self._state is _State.CONNECTED

    # ------------------------------------------------------------ what comes in

    def receive(self, text: str, now: float) -> bool:
        """Take the text of one frame; `now` in seconds. Returns whether it held the pong that was due."""
        if self._doom is not None or self._state in (_State.REFUSED, _State.CLOSED):
            return False
        lines = text.split("\n")
        if len(lines) > 1 and not lines[-1]:
            lines.pop()
        ponged = False
        for line in lines:
            command = self._read(line, now)
            if command is None:
                ponged = True
                continue
            if self._pending is None:
                self._pending = deque()
                self._pending_characters = 0
            self._pending.append(command)
            self._pending_characters += len(line)
            if self._pending_characters > MAX_PENDING_CHARACTERS:
                command = FLOOD
            if command is FLOOD:  # at once, whatever is being awaited: what waits must not grow
                self._pending = deque([FLOOD])
                self._busy = False
            if isinstance(command, Disconnect):
                self._doom = command
                break
        return ponged

    def spend(self, now: float) -> bool:
        """Count one command or control frame against the rate. False: far beyond it."""
        refill = (now - self._moment) * PER_SECOND if self._moment else 0.0
        self._moment = now
        self._allowance = min(self._allowance + refill, float(BURST)) - 1
        return self._allowance >= -BURST

    def _read(self, line: str, now: float) -> Command | Disconnect | None:
        """One line; None is the awaited pong."""
        if not self.spend(now):
            return FLOOD
        if line == "{}" and self.awaits_pong:
            self.awaits_pong = False
            return None
        try:
            command = decode_command(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return BAD
        if command.id == 0 and command.send is None:
            # Without an id it is a pong, and one that nobody asked for is an error (§5).
            if not self.awaits_pong:
                return BAD
            self.awaits_pong = False
            return None
        return command

    # ------------------------------------------------------------ what is to be done

    def next_effect(self) -> Effect | None:
        """The next thing to do; None while an ask is open or nothing waits."""
        if not self._pending or self._busy:
            return None
        command = self._pending.popleft()
        try:
            effect = command if isinstance(command, Disconnect) else self._take(command)
        except RecursionError:  # nested data that passed as raw JSON just so
            effect = BAD
        if not self._pending:
            self._pending = None
        if isinstance(effect, Disconnect):
            self.close()
        self._busy = isinstance(effect, Ask)
        return effect

    def finish(self) -> None:
        """The open ask was answered."""
        self._busy = False

    def connected(self, user_id: str) -> None:
        """The reply to connect is written."""
        if self._state is _State.CONNECTING:
            self._state = _State.CONNECTED
        self.user_id = user_id
        self._busy = False

    def refuse(self) -> None:
        """An error was replied to connect: what the client sends from now on is ignored."""
        self._state = _State.REFUSED
        self._pending = None
        self._busy = False

    def subscribed(self, channel: str) -> None:
        """A client-side subscription began."""
        self._channels |= {channel}

    def unsubscribed(self, channel: str) -> None:
        """A client-side subscription ended."""
        self._channels -= {channel}

    def close(self) -> None:
        """The connection is over; nothing more comes out."""
        self._state = _State.CLOSED
        self._pending = None

    def _take(self, command: Command) -> Effect:
        number = command.id
        if command.connect is not None:
            return self._connect(number, command.connect)
        if self._state is not _State.CONNECTED:
            return BAD
        if self._allowance < 0 or (self._pending and len(self._pending) > MAX_PENDING):
            return Reply(error_line(number, TOO_MANY)) if number else FLOOD
        # One payload a command; of several the first in the protocol's order counts (§3).
        if command.subscribe is not None:
            return self._subscribe(number, command.subscribe)
        if command.unsubscribe is not None:
            return self._unsubscribe(number, command.unsubscribe.channel)
        if command.publish is not None:
            return _named(command.publish, number, PERMISSION)
        if command.presence is not None:
            return _named(command.presence, number, NOT_AVAILABLE)
        if command.presence_stats is not None:
            return _named(command.presence_stats, number, NOT_AVAILABLE)
        if command.history is not None:
            return _history(number, command.history)
        if command.rpc is not None:
            return Rpc(number, command.rpc.method, _decode_any(command.rpc.data))
        if command.send is not None:
            return UNAVAILABLE
        if command.refresh is not None:
            return Refresh(number, command.refresh.token) if command.refresh.token else BAD
        if command.sub_refresh is not None:
            return _named(command.sub_refresh, number, NOT_AVAILABLE)
        return BAD

    def _connect(self, number: int, request: ConnectRequest) -> Effect:
        if self._state is not _State.NEW:
            return BAD
        self._state = _State.CONNECTING
        positions = {
            channel: Position(asked.epoch, asked.offset)
            for channel, asked in (request.subs or {}).items()
            if asked.recover
        }
        return Connect(number, request.token or "", positions)

    def _subscribe(self, number: int, request: SubscribeRequest) -> Effect:
        channel = request.channel
        if not channel:
            return BAD
        if len(channel) > MAX_CHANNEL_LENGTH or request.tf != NULL:
            return Reply(error_line(number, BAD_REQUEST))
        if request.type:
            return Reply(error_line(number, NOT_AVAILABLE))
        if channel in self._channels or channel in (BROADCASTS, personal_channel(self.user_id)):
            return Reply(error_line(number, ALREADY_SUBSCRIBED))
        position = Position(request.epoch, request.offset) if request.recover else None
        return Subscribe(number, channel, position, bool(request.flag & 2))

    def _unsubscribe(self, number: int, channel: str) -> Effect:
        if not channel:
            return BAD
        line = unsubscribe_line(number)
        if channel not in self._channels:  # never an error: it would make SDKs reconnect (§4)
            return Reply(line)
        self.unsubscribed(channel)
        return Unsubscribe(channel, line)


def _named(request: ChannelRequest, number: int, code: int) -> Effect:
    return Reply(error_line(number, code)) if request.channel else BAD


def _history(number: int, request: HistoryRequest) -> Effect:
    if not request.channel:
        return BAD
    since = request.since
    if len(request.channel) > MAX_CHANNEL_LENGTH or (
        request.reverse and since is not None and not since.offset
    ):
        return Reply(error_line(number, BAD_REQUEST))
    limit = HISTORY_LIMIT if request.limit < 0 else min(request.limit, HISTORY_LIMIT)
    position = None if since is None else Position(since.epoch, since.offset)
    return History(number, request.channel, limit, position, request.reverse)
