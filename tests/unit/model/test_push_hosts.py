"""Push endpoints by name: known services pass, everything that only looks like one does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.push_hosts import PushHosts, is_public_address

pytestmark = [pytest.mark.req("R35"), pytest.mark.req("R7")]

KNOWN = PushHosts()
NAMED = PushHosts(
    ["push.example.com", "*.edge.example.com", "127.0.0.1:9001", "[::1]:9001", "own.example.com:8443"]
)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://fcm.googleapis.com/fcm/send/d0:APA91bG-_x", "https://fcm.googleapis.com"),
        ("https://fcm.googleapis.com:443/wp/x", "https://fcm.googleapis.com"),
        (
            "https://updates.push.services.mozilla.com/wpush/v2/gAAAA=",
            "https://updates.push.services.mozilla.com",
        ),
        ("https://web.push.apple.com/QABC", "https://web.push.apple.com"),
        (
            "https://wns2-par02p.notify.windows.com/w/?token=BQY%2b&x=1",
            "https://wns2-par02p.notify.windows.com",
        ),
    ],
)
def test_the_services_of_the_browsers_pass(url: str, origin: str) -> None:
    found = KNOWN.endpoint(url)
    assert (found.url, found.origin, found.port, found.is_loopback) == (url, origin, 443, False)


@pytest.mark.parametrize(
    "url",
    [
        "http://fcm.googleapis.com/x",  # no TLS
        "https://fcm.googleapis.com:8443/x",  # another port
        "https://fcm.googleapis.com:0443/x",
        "https://user@fcm.googleapis.com/x",  # credentials
        "https://user:pass@fcm.googleapis.com/x",
        "https://fcm.googleapis.com@10.0.0.1/x",
        "https://10.0.0.1#@fcm.googleapis.com/x",
        "https://10.0.0.1\\@fcm.googleapis.com/x",
        "https://fcm.googleapis.com.evil.example/x",  # not below it
        "https://evilfcm.googleapis.com/x",
        "https://notify.windows.com/x",  # only below it
        "https://.notify.windows.com/x",
        "https://evil-notify.windows.com/x",
        "https://fcm.googleapis.com./x",
        "https://FCM.googleapis.com/x",  # browsers write hosts in lower case
        "https://fcm%2egoogleapis.com/x",
        "https://fcm.googleapis.com/x\r\nHost: internal",
        "https://fcm.googleapis.com/x y",
        "https://fcm.googleapis.com/x#y",
        "https://127.0.0.1/x",
        "https://127.0.0.1:9001/x",
        "https://[::1]/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://localhost/x",
        "https://metadata.google.internal/x",
        "https://169.254.169.254/latest",
        "https:fcm.googleapis.com/x",
        "//fcm.googleapis.com/x",
        "file:///etc/passwd",
        "ftp://fcm.googleapis.com/x",
        "",
        "https://",
        "https://fcm.googleapis.com/" + "x" * 2048,
        "https://fcm.googleapis.com/\u00e9",
        "https://\u2460fcm.googleapis.com/",
    ],
)
def test_what_only_looks_like_one_does_not(url: str) -> None:
    with pytest.raises(ValueError, match=r"^An endpoint |is no push service"):
        KNOWN.endpoint(url)


def test_hosts_of_the_settings_pass_exactly_as_named() -> None:
    assert NAMED.endpoint("https://push.example.com/x").origin == "https://push.example.com"
    assert NAMED.endpoint("https://a.b.edge.example.com/x").host == "a.b.edge.example.com"
    assert NAMED.endpoint("https://own.example.com:8443/x").origin == "https://own.example.com:8443"
    assert NAMED.endpoint("https://fcm.googleapis.com/x").host == "fcm.googleapis.com"
    for url in (
        "http://push.example.com/x",
        "https://a.push.example.com/x",
        "https://edge.example.com/x",
        "https://own.example.com/x",
        "http://own.example.com:8443/x",
    ):
        with pytest.raises(ValueError, match=r"endpoint|service"):
            NAMED.endpoint(url)


def test_a_loopback_host_needs_to_be_named_with_its_port_and_may_be_plain_http() -> None:
    found = NAMED.endpoint("http://127.0.0.1:9001/x")
    assert (found.origin, found.is_loopback) == ("http://127.0.0.1:9001", True)
    assert NAMED.endpoint("https://127.0.0.1:9001/x").origin == "https://127.0.0.1:9001"
    assert NAMED.endpoint("http://[::1]:9001/x").is_loopback
    for url in (
        "http://127.0.0.1:9002/x",
        "http://127.0.0.1/x",
        "http://localhost:9001/x",
        "http://127.0.0.2:9001/x",
    ):
        with pytest.raises(ValueError, match="service"):
            NAMED.endpoint(url)


def test_only_hosts_of_this_machine_that_are_named_may_lead_to_it() -> None:
    hosts = PushHosts(
        ["localhost:9001", "a.localhost:1", "127.0.0.1:2", "localhost.example.com", "*.example.com"]
    )
    assert hosts.loopback_names == {"localhost", "a.localhost", "127.0.0.1"}


@given(st.text(max_size=60), st.sampled_from(["", "@", ":", "/", "\\", "#", "?", "%00", "."]))
def test_no_text_around_a_known_host_leads_elsewhere(noise: str, between: str) -> None:
    from yarl import URL

    for url in (
        f"https://{noise}{between}fcm.googleapis.com/x",
        f"https://fcm.googleapis.com{between}{noise}",
    ):
        try:
            KNOWN.endpoint(url)
        except ValueError:
            continue
        assert URL(url, encoded=True).host == "fcm.googleapis.com"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1",
        "64:ff9b:1::1", "", "nonsense",
    ],
)  # fmt: skip
def test_internal_addresses_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "address",
    ["142.250.1.95", "34.107.243.93", "2a00:1450:4001:80b::200a", "::ffff:142.250.1.95", "64:ff9b::8efa:15f"],
)
def test_addresses_of_the_internet_are(address: str) -> None:
    assert is_public_address(address)
