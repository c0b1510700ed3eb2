"""The Centrifuge protocol's server side as a state machine: text in, effects and lines out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import Refused
from hub.live.centrifuge import codes, replies
from hub.live.centrifuge.codes import BAD, FLOOD, UNAVAILABLE, Disconnect
from hub.live.centrifuge.commands import (
    Connect,
    History,
    Position,
    Refresh,
    Reply,
    Rpc,
    Subscribe,
    Unsubscribe,
)
from hub.live.centrifuge.replies import Subscription
from hub.live.centrifuge.session import BURST, Session

NOW = 1_000.0


def feed(session: Session, *commands: object) -> bool:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in commands]
    return session.receive("\n".join(lines), NOW)


def connected(user_id: str = "alice") -> Session:
    session = Session()
    feed(session, {"id": 1, "connect": {"token": "t"}})
    assert isinstance(session.next_effect(), Connect)
    session.connected(user_id)
    return session


def answer(session: Session, command: object) -> object:
    """The effect of one command; replies are decoded."""
    feed(session, command)
    effect = session.next_effect()
    return json.loads(effect.line) if isinstance(effect, Reply) else effect


def error(number: int, code: int) -> dict[str, object]:
    found = json.loads(replies.error_line(number, code))
    assert isinstance(found, dict)
    return found


# ---------------------------------------------------------------- connect


def test_connect_carries_its_token_and_the_positions_to_recover():
    subs = {
        "#alice": {"recover": True, "offset": 43, "epoch": "k7"},
        "broadcasts": {"recover": True},  # absent: from the beginning (§15.7)
        "other": {"offset": 5, "epoch": "x"},  # no wish to recover
    }
    session = Session()
    feed(session, {"id": 9, "connect": {"token": "t", "subs": subs, "name": "js", "flag": 1, "unknown": [1]}})
    expected = {"#alice": Position("k7", 43), "broadcasts": Position("", 0)}
    assert session.next_effect() == Connect(9, "t", expected)


@pytest.mark.parametrize("request_", [{}, {"token": None, "subs": None}, {"token": ""}])
def test_connect_without_token(request_):
    session = Session()
    feed(session, {"id": 1, "connect": request_})
    assert session.next_effect() == Connect(1, "", {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "x",
        "[]",
        "1",
        "null",
        '"{}"',
        "{",
        "{}",  # a pong that nobody asked for
        '{"id":1}',
        '{"id":0,"connect":{}}',  # without an id it reads as a pong
        '{"connect":{}}',
        '{"id":-1,"connect":{}}',
        '{"id":4294967296,"connect":{}}',
        '{"id":1.5,"connect":{}}',
        '{"id":"1","connect":{}}',
        '{"id":1,"connect":[]}',
        '{"id":1,"connect":{"token":7}}',
        '{"id":1,"connect":{"subs":{"a":{"recover":true,"offset":-1}}}}',
        '{"id":1,"connect":{"token":"\\ud800"}}',
        '{"id":1,"connect":{"data":' + "[" * 20_000 + "]" * 20_000 + "}}",
        '{"id":1,"subscribe":{"channel":"log"}}',
        '{"id":1,"rpc":{"method":"x"}}',
        '{"id":1,"refresh":{"token":"t"}}',
        '{"send":{}}',
        '{"id":1,"ping":{}}',
    ],
)
@pytest.mark.req("R35")
def test_whatever_is_no_connect_ends_a_new_connection(text):
    session = Session()
    assert session.receive(text, NOW) is False
    assert session.next_effect() == BAD
    feed(session, {"id": 1, "connect": {"token": "t"}})
    assert session.next_effect() is None


def test_a_second_connect_ends_the_connection():
    session = connected()
    assert answer(session, {"id": 2, "connect": {"token": "t"}}) == BAD


def test_connect_is_finished_before_the_next_line_is_touched():
    session = Session()
    feed(session, {"id": 1, "connect": {"token": "t"}}, {"id": 2, "rpc": {"method": "m"}})
    assert isinstance(session.next_effect(), Connect)
    assert session.next_effect() is None
    session.connected("alice")
    assert session.next_effect() == Rpc(2, "m", None)


def test_after_an_error_reply_to_connect_later_lines_are_ignored():
    session = Session()
    feed(session, {"id": 1, "connect": {"token": "t"}}, {"id": 2, "rpc": {"method": "m"}})
    session.next_effect()
    session.refuse()
    assert session.next_effect() is None
    feed(session, "garbage", {"id": 3, "rpc": {"method": "m"}})
    assert session.next_effect() is None


def test_lines_before_a_bad_one_are_done_first_and_nothing_after_it():
    session = connected()
    feed(session, {"id": 2, "rpc": {"method": "m"}}, "garbage", {"id": 3, "rpc": {"method": "n"}})
    assert session.next_effect() == Rpc(2, "m", None)
    session.finish()
    assert session.next_effect() == BAD
    assert session.next_effect() is None


def test_one_trailing_line_break_is_allowed():
    session = connected()
    session.receive('{"id":2,"rpc":{"method":"m"}}\n', NOW)
    assert session.next_effect() == Rpc(2, "m", None)
    session.finish()
    session.receive('{"id":3,"rpc":{"method":"m"}}\n\n', NOW)
    assert session.next_effect() == Rpc(3, "m", None)
    session.finish()
    assert session.next_effect() == BAD


# ---------------------------------------------------------------- pongs


def test_a_pong_is_taken_once_and_also_while_something_is_awaited():
    session = connected()
    feed(session, {"id": 2, "rpc": {"method": "slow"}})
    session.next_effect()
    session.awaits_pong = True
    assert feed(session, "{}") is True
    assert session.awaits_pong is False
    assert session.next_effect() is None
    session.finish()
    assert session.next_effect() is None


@pytest.mark.parametrize("text", ["{}", " { } ", '{"id":0}', '{"rpc":{"method":"x"}}'])
def test_a_command_without_id_is_a_pong_and_an_unasked_one_ends_the_connection(text):
    session = connected()
    session.awaits_pong = True
    assert feed(session, text) is True
    assert session.next_effect() is None
    assert feed(session, text) is False
    assert session.next_effect() == BAD


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ({"subscribe": {"channel": "log"}}, Subscribe(7, "log", None, False)),
        (
            {"subscribe": {"channel": "log", "recover": True, "epoch": "e", "offset": 5, "flag": 3}},
            Subscribe(7, "log", Position("e", 5), True),
        ),
        ({"subscribe": {"channel": "log", "delta": "fossil", "flag": 1}}, Subscribe(7, "log", None, False)),
        ({"subscribe": {"channel": ""}}, BAD),
        ({"subscribe": {}}, BAD),
        ({"subscribe": {"channel": "x" * 256}}, error(7, 107)),
        ({"subscribe": {"channel": "x", "tf": {"key": "k"}}}, error(7, 107)),
        ({"subscribe": {"channel": "x", "tf": None}}, Subscribe(7, "x", None, False)),
        ({"subscribe": {"channel": "x", "type": 1}}, error(7, 108)),
        ({"subscribe": {"channel": "#alice"}}, error(7, 105)),
        ({"subscribe": {"channel": "broadcasts"}}, error(7, 105)),
        ({"subscribe": {"channel": "#bob"}}, Subscribe(7, "#bob", None, False)),
        ({"unsubscribe": {"channel": "never"}}, {"id": 7, "unsubscribe": {}}),
        ({"unsubscribe": {"channel": "#alice"}}, {"id": 7, "unsubscribe": {}}),
        ({"unsubscribe": {}}, BAD),
        ({"publish": {"channel": "#alice", "data": {}}}, error(7, 103)),
        ({"publish": {"data": {}}}, BAD),
        ({"presence": {"channel": "broadcasts"}}, error(7, 108)),
        ({"presence_stats": {"channel": "broadcasts"}}, error(7, 108)),
        ({"sub_refresh": {"channel": "log", "token": "t"}}, error(7, 108)),
        ({"history": {"channel": "#alice"}}, History(7, "#alice", 0, None, False)),
        ({"history": {"channel": "#alice", "limit": -1}}, History(7, "#alice", 300, None, False)),
        ({"history": {"channel": "#alice", "limit": 10_000}}, History(7, "#alice", 300, None, False)),
        (
            {"history": {"channel": "#a", "limit": 5, "since": {"offset": 2, "epoch": "e"}, "reverse": True}},
            History(7, "#a", 5, Position("e", 2), True),
        ),
        ({"history": {"channel": "#a", "since": {"epoch": "e"}, "reverse": True}}, error(7, 107)),
        ({"history": {}}, BAD),
        ({"rpc": {"method": "m", "data": {"a": [1, None]}}}, Rpc(7, "m", {"a": [1, None]})),
        ({"rpc": {"method": "m", "data": None}}, Rpc(7, "m", None)),
        ({"rpc": {}}, Rpc(7, "", None)),
        ({"refresh": {"token": "t"}}, Refresh(7, "t")),
        ({"refresh": {}}, BAD),
        ({"send": {"data": 1}}, UNAVAILABLE),
        ({"ping": {}}, BAD),
        ({"rpc": None}, BAD),
        # Of several payloads the first in the protocol's order counts.
        ({"rpc": {"method": "m"}, "publish": {"channel": "c"}}, error(7, 103)),
    ],
)
def test_command(command, expected):
    assert answer(connected(), {**command, "id": 7}) == expected


def test_a_subscription_can_be_made_once_and_ended():
    session = connected("root")
    assert isinstance(answer(session, {"id": 2, "subscribe": {"channel": "log"}}), Subscribe)
    session.subscribed("log")
    session.finish()
    assert answer(session, {"id": 3, "subscribe": {"channel": "log"}}) == error(3, 105)
    ended = answer(session, {"id": 4, "unsubscribe": {"channel": "log"}})
    assert ended == Unsubscribe("log", b'{"id":4,"unsubscribe":{}}')
    assert isinstance(answer(session, {"id": 5, "subscribe": {"channel": "log"}}), Subscribe)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_rpc_data_arrives_as_it_was_sent(data):
    assert answer(connected(), {"id": 2, "rpc": {"method": "m", "data": data}}) == Rpc(2, "m", data)


@pytest.mark.req("R35")
@given(
    st.one_of(
        st.text(),
        st.dictionaries(
            st.sampled_from(["id", "rpc", "connect", "send", "x"]),
            st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.text()),
            max_size=4,
        ).map(json.dumps),
    )
)
def test_nothing_that_a_client_sends_raises(text):
    for session in (Session(), connected()):
        session.receive(text, NOW)
        for _ in range(300):
            if session.next_effect() is None:
                break


# ---------------------------------------------------------------- floods


@pytest.mark.req("I14")
def test_a_burst_passes_more_gets_error_111_and_far_more_ends_the_connection():
    session = connected()
    effects: list[object] = []
    for number in range(2, 1_000):
        feed(session, {"id": number, "presence": {"channel": "c"}})
        effect = session.next_effect()
        effects.append(json.loads(effect.line)["error"]["code"] if isinstance(effect, Reply) else effect)
        if isinstance(effect, Disconnect):
            break
    assert effects[: BURST - 2] == [108] * (BURST - 2)
    assert 111 in effects
    assert effects[-1] == FLOOD
    assert len(effects) <= 2 * BURST + 1


@pytest.mark.req("I14")
def test_a_frame_full_of_commands_is_not_kept():
    session = connected()
    text = "\n".join('{"id":5,"rpc":{"method":"m"}}' for _ in range(2_000))
    session.receive(text, NOW)
    effects = []
    while (effect := session.next_effect()) is not None:
        effects.append(effect)
        session.finish()
    assert effects[-1] == FLOOD
    assert len(effects) <= 2 * BURST + 1


@pytest.mark.req("I14")
@pytest.mark.parametrize("size", [1, 60_000])
def test_a_flood_while_a_command_is_awaited_ends_the_connection_at_once(size):
    session = connected()
    feed(session, {"id": 2, "rpc": {"method": "slow"}})
    assert isinstance(session.next_effect(), Rpc)
    command = json.dumps({"id": 3, "rpc": {"method": "m", "data": "x" * size}})
    received = 0
    while (effect := session.next_effect()) is None:
        session.receive(command, NOW)
        received += 1
    assert effect == FLOOD
    assert received <= (2 * BURST if size == 1 else 5)
    session.receive(command, NOW + 100)
    assert session.next_effect() is None


def test_what_comes_after_a_broken_line_is_not_kept_while_a_command_is_awaited():
    session = connected()
    feed(session, {"id": 2, "rpc": {"method": "slow"}}, "garbage")
    session.next_effect()
    session.awaits_pong = True
    assert feed(session, "{}") is False
    feed(session, {"id": 3, "rpc": {"method": "m"}})
    session.finish()
    assert session.next_effect() == BAD
    assert session.next_effect() is None


def test_a_client_that_slows_down_is_served_again():
    session = connected()
    for number in range(2, 2 + BURST + 20):
        feed(session, {"id": number, "presence": {"channel": "c"}})
        session.next_effect()
    session.receive('{"id":900,"presence":{"channel":"c"}}', NOW + 3)
    effect = session.next_effect()
    assert isinstance(effect, Reply)
    assert json.loads(effect.line) == error(900, 108)


# ---------------------------------------------------------------- lines


def test_the_connect_reply_leaves_zero_values_out():
    line = replies.connect_line(
        1,
        "c",
        "v",
        ping_seconds=25,
        ttl_seconds=None,
        subs=[Subscription("#a", "e", 0), Subscription("b", "f", 7)],
    )
    assert json.loads(line) == {
        "id": 1,
        "connect": {
            "client": "c",
            "version": "v",
            "ping": 25,
            "pong": True,
            "subs": {
                "#a": {"recoverable": True, "positioned": True, "epoch": "e"},
                "b": {"recoverable": True, "positioned": True, "epoch": "f", "offset": 7},
            },
        },
    }


def test_a_recovered_subscription_carries_what_was_missed():
    subscription = Subscription("#a", "e", 43, True, True, [(44, b'{"n":9}'), (45, b'{"n":10}')])
    result = json.loads(replies.subscribe_line(3, subscription))["subscribe"]
    assert result == {
        "recoverable": True,
        "positioned": True,
        "epoch": "e",
        "offset": 43,
        "was_recovering": True,
        "recovered": True,
        "publications": [{"data": {"n": 9}, "offset": 44}, {"data": {"n": 10}, "offset": 45}],
    }


def test_an_unrecoverable_one_carries_neither_recovered_nor_publications():
    result = json.loads(replies.subscribe_line(3, Subscription("#a", "e", 9, True)))["subscribe"]
    assert result == {
        "recoverable": True,
        "positioned": True,
        "epoch": "e",
        "offset": 9,
        "was_recovering": True,
    }


@pytest.mark.parametrize("ttl", [-30, 0, 1])
def test_a_ttl_is_at_least_one_second_since_zero_would_be_left_out(ttl):
    assert json.loads(replies.refresh_line(1, "c", "v", ttl))["refresh"]["ttl"] == 1


def test_history_and_rpc_always_have_their_fields():
    assert json.loads(replies.history_line(1, "e", 0, [])) == {
        "id": 1,
        "history": {"publications": [], "epoch": "e", "offset": 0},
    }
    assert json.loads(replies.rpc_line(1, b"null")) == {"id": 1, "rpc": {"data": None}}


def test_a_line_stays_one_line_even_with_pretty_json():
    line = replies.rpc_line(1, b'{\n  "a": "x\\ny"\r\n}')
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["rpc"]["data"] == {"a": "x\ny"}


@pytest.mark.parametrize(
    ("status", "code", "temporary"),
    [
        (404, 104, False),
        (401, 103, False),
        (403, 103, False),
        (422, 107, False),
        (400, 107, False),
        (429, 111, True),
        (503, 100, True),
        (500, 100, True),
        (409, 100, True),
    ],
)
def test_refusals_have_their_codes(status, code, temporary):
    found = json.loads(replies.error_line(1, codes.error_code(Refused(status, "c", "d"))))["error"]
    assert (found["code"], found.get("temporary", False)) == (code, temporary)
    assert found["message"]


@pytest.mark.parametrize(
    "disconnect", [value for value in vars(codes).values() if isinstance(value, Disconnect)], ids=str
)
def test_reasons_are_plain_words_because_sdks_parse_json_in_them(disconnect):
    with pytest.raises(ValueError):
        json.loads(disconnect.reason)
    assert len(disconnect.reason.encode()) <= 123
