import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.inputs.guard import Refused, Target, allow_list, check_url, is_public

NONE = frozenset()


@pytest.mark.parametrize(
    "ip",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.1.1",
        "192.175.48.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "::ffff:93.184.216.34",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_the_internet(ip):
    """Loopback, private, metadata, tunnels, multicast and reserved are not public."""
    assert not is_public(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "1.1.1.1",
        "9.255.255.255",
        "93.184.216.34",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.15",
        "172.15.255.255",
        "172.32.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2606:4700:4700::1111",
        "2a00:1450:4001::200e",
    ],
)
def test_addresses_of_the_internet(ip):
    """Public addresses pass, also next to the borders of the blocks."""
    assert is_public(ip)


@given(st.ip_addresses())
def test_stricter_than_the_standard_library(address):
    """What the standard library knows to be private is never public here."""
    if is_public(str(address)):
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_reserved
        assert not address.is_link_local


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "http://HOST"),
        ("//127.0.0.1/x.png", "http://HOST"),
        ("http:///x.png", "http://HOST"),
        ("http:127.0.0.1/x.png", "http://HOST"),
        ("http://", "http://HOST"),
        ("http://?x", "http://HOST"),
        ("http://http://127.0.0.1/", "plain"),
        (" http://example.com/", "blank"),
        ("http://127.0.0.1/\0x.png", "blank"),
        ("http://127.0.0.1/\r\nX-A: b", "blank"),
        ("http://example.com/\n", "blank"),
        ("http://example.com/" + "a" * 5000, "over 4096"),
        ("http://①②⑦.⓪.⓪.①/x.png", "ASCII"),
        ("http://127。0。0。1/x.png", "ASCII"),
        ("http://ex\u200bample.com/", "ASCII"),
        ("http://127.0.0.1\\@example.com/", "backslash"),
        ("http://example.com\\@127.0.0.1/", "backslash"),
        ("http://user:pass@example.com/x.png", "user name"),
        ("http://example.com@127.0.0.1/x.png", "user name"),
        ("http://@example.com/", "user name"),
        ("http://example.com%40127.0.0.1/", "plain"),
        ("http://127.0.0.1%00.example.com/", "plain"),
        ("http://%31%32%37.0.0.1/x.png", "plain"),
        ("http://example.com:80:22/", "plain"),
        ("http://example.com:abc/", "plain"),
        ("http://example.com:/", "plain"),
        ("http://example.com:+80/", "plain"),
        ("http://[::1/", "plain"),
        ("http://::1/", "plain"),
        ("http://[fe80::1%25eth0]/", "plain"),
        ("http://a_b.example.com/", "plain"),
        ("http://example.com:22/", "80 or 443"),
        ("http://example.com:6379/", "80 or 443"),
        ("http://example.com:99999/", "port is not one"),
        ("http://example.com:0/", "port is not one"),
        ("http://2130706433/x.png", "odd form"),
        ("http://017700000001/x.png", "odd form"),
        ("http://0x7f000001/x.png", "odd form"),
        ("http://0x7f.0x0.0x0.0x1/", "odd form"),
        ("http://127.1/x.png", "odd form"),
        ("http://127.000.000.001/x.png", "odd form"),
        ("http://0/x.png", "odd form"),
        ("http://example.0x/", "odd form"),
        ("http://[:::]/", "odd form"),
        ("http://" + "a" * 64 + ".com/", "not a name"),
        ("http://" + "a." * 125 + "comm/", "not a name"),
        ("http://-a.com/", "not a name"),
        ("http://a..com/", "not a name"),
        ("http://example.com../", "not a name"),
        ("http://./", "not a name"),
        ("http://127.0.0.1/x.png", "not on the public"),
        ("http://127.0.0.1./x.png", "not on the public"),
        ("http://127.0.0.1?@example.com/", "not on the public"),
        ("http://169.254.169.254/latest/meta-data/", "not on the public"),
        ("http://[::1]/", "not on the public"),
        ("http://[0:0:0:0:0:0:0:1]/x.png", "not on the public"),
        ("http://[::ffff:7f00:1]/x.png", "not on the public"),
        ("http://[::127.0.0.1]/x.png", "not on the public"),
        ("http://localhost/x.png", "not on the public"),
        ("http://LOCALHOST./x.png", "not on the public"),
        ("http://a.localhost/x.png", "not on the public"),
        ("http://metadata.google.internal/", "not on the public"),
        ("http://printer.local/", "not on the public"),
        ("http://redis/", "not on the public"),
    ],
)
def test_refused_by_its_text(url, says):
    """A URL that is odd, inside or carries more than a place is refused by its text."""
    with pytest.raises(Refused, match=says):
        check_url(url, NONE)


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM:443/A?b=C#d", "https://example.com/A?b=C"),
        ("http://example.com.?x=http://127.0.0.1/", "http://example.com/?x=http://127.0.0.1/"),
        ("http://example.com:443/x", "http://example.com:443/x"),
        ("http://93.184.216.34/x%2e%2e/", "http://93.184.216.34/x%2e%2e/"),
        ("https://[2606:4700:4700:0::1111]/", "https://[2606:4700:4700::1111]/"),
        ("https://xn--bcher-kva.example/@me", "https://xn--bcher-kva.example/@me"),
    ],
)  # fmt: skip
def test_public_urls_pass(url, spelled):
    """A public URL passes with its query as it was signed, spelled one way."""
    target = check_url(url, NONE)

    assert target.url == spelled
    assert not target.exempt
    assert check_url(target.url, NONE) == target


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("http://127.0.0.1:18080/x", True),
        ("http://127.0.0.1:18081/x", False),
        ("http://127.0.0.1/x", False),
        ("http://127.1:18080/x", False),
        ("http://u:p@127.0.0.1:18080/x", False),
        ("http://nas/x", True),
        ("http://NAS.:9000/x", True),
        ("http://nas.evil.com:9000/x", False),
        ("http://[::1]:8000/", True),
        ("http://[0::1]:8000/", True),
        ("http://[::1]:8001/", False),
    ],
)
def test_listed_hosts_pass(url, passes):
    """The operator's hosts may be private and on any port, and nothing else may."""
    allow = allow_list(["127.0.0.1:18080", " NAS ", "[::1]:8000"])

    if passes:
        assert check_url(url, allow).exempt
    else:
        with pytest.raises(Refused):
            check_url(url, allow)


@pytest.mark.parametrize(
    "entry", ["", "http://nas", "nas/x", "nas:x", "127.1", "*", "10.0.0.0/8"]
)
def test_nonsense_in_the_list_is_refused(entry):
    """An entry that would never match is an error, not silence."""
    with pytest.raises(ValueError, match=r"(?i)host"):
        allow_list([entry])


@given(st.text(st.characters(max_codepoint=0x7F), max_size=30))
def test_any_host_is_judged_as_what_is_dialled(text):
    """Whatever follows http://, a URL that passes is dialled at the host we judged."""
    try:
        target = check_url(f"http://{text}", NONE)
    except Refused:
        return

    assert isinstance(target, Target)
    try:
        address = ipaddress.ip_address(target.host)
    except ValueError:
        assert "." in target.host
        assert not target.host.rpartition(".")[2].isdigit()
    else:
        assert is_public(str(address))
