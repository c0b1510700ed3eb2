"""API keys: kept as hashes, with scopes, rotation and revocation."""

import pytest

from hub.errors import Refused
from hub.keys import FIRST_KEY_ID, SCOPES, Keys, hash_secret
from tests.support.clock import FakeClock
from tests.support.key_store import DictStore

FIRST = "the-first-key-of-the-settings"
pytestmark = pytest.mark.req("R34")


@pytest.fixture
def store() -> DictStore:
    return DictStore()


@pytest.fixture
def keys(store: DictStore, clock: FakeClock) -> Keys:
    return Keys(store, clock, FIRST)  # type: ignore[arg-type]


async def test_a_key_is_known_by_its_secret_alone_and_the_secret_is_not_kept(
    keys: Keys, store: DictStore
) -> None:
    key, secret = await keys.create("shop", ["publish"])
    assert secret.startswith("clk_")
    assert len(secret) >= 47  # 256 bits in base64
    assert secret not in str(store.keys)
    found = await keys.find(secret)
    assert found is not None
    assert (found.id, found.scopes) == (key.id, frozenset({"publish"}))
    for wrong in (
        "",
        "clk_",
        secret[:-1],
        secret + "x",
        secret.upper(),
        key.id,
        hash_secret(secret),
        "\ud800" * 20,
    ):
        assert await keys.find(wrong) is None


async def test_the_first_key_is_a_setting_with_all_scopes(keys: Keys, clock: FakeClock) -> None:
    first = await keys.find(FIRST)
    assert first is not None
    assert (first.id, first.scopes) == (FIRST_KEY_ID, frozenset(SCOPES))
    assert [key.id for key in await keys.list()] == [FIRST_KEY_ID]
    with pytest.raises(Refused) as refused:
        await keys.revoke(FIRST_KEY_ID)
    assert refused.value.status == 409
    assert await Keys(DictStore(), clock, None).find(FIRST) is None  # type: ignore[arg-type]


async def test_a_revoked_key_is_refused_at_once_here_and_within_the_bound_elsewhere(
    keys: Keys, store: DictStore, clock: FakeClock
) -> None:
    elsewhere = Keys(store, clock, None)  # type: ignore[arg-type]
    key, secret = await keys.create("shop", ["publish"])
    assert await keys.find(secret)
    assert await elsewhere.find(secret)
    await keys.revoke(key.id)
    assert await keys.find(secret) is None
    clock.advance(5.1)
    assert await elsewhere.find(secret) is None
    with pytest.raises(Refused) as refused:
        await keys.revoke("key_unknown")
    assert refused.value.status == 404


async def test_rotation_leaves_both_keys_working_for_the_overlap(keys: Keys, clock: FakeClock) -> None:
    old, old_secret = await keys.create("shop", ["publish", "read"])
    new, new_secret = await keys.rotate(old.id, overlap_seconds=60)
    assert (new.name, new.scopes) == (old.name, old.scopes)
    assert await keys.find(old_secret)
    assert await keys.find(new_secret)
    clock.advance(61)
    assert await keys.find(old_secret) is None
    assert await keys.find(new_secret)
    with pytest.raises(Refused):
        await keys.rotate(old.id)


async def test_a_key_without_known_scopes_is_not_made(keys: Keys) -> None:
    for scopes in ([], ["everything"], ["publish", "root"]):
        with pytest.raises(Refused) as refused:
            await keys.create("shop", scopes)
        assert refused.value.status == 422


async def test_an_expired_key_is_refused(keys: Keys, clock: FakeClock) -> None:
    _, secret = await keys.create("shop", ["publish"], clock.now_us() + 1_000_000)
    assert await keys.find(secret)
    clock.advance(1)
    assert await keys.find(secret) is None
    with pytest.raises(Refused):
        await keys.create("shop", ["publish"], clock.now_us())


async def test_checked_keys_cost_one_lookup_and_wrong_ones_are_not_remembered(
    keys: Keys, store: DictStore
) -> None:
    _, secret = await keys.create("shop", ["publish"])
    for _ in range(100):
        await keys.find(secret)
    assert store.lookups == 1
    for index in range(200):
        await keys.find(f"clk_{index:043d}")
    assert len(keys._cache) == 1
