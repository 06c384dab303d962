"""
Which URLs and addresses we let a caller make us fetch.

Pure. A URL is judged by its text, then each address that its host resolves to; only
what is public passes, so that no request reaches ComfyUI, a database, a neighbour or
a cloud's metadata through us.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

MAX_URL_CHARS = 4096  #: presigned URLs with a session token pass 2,000
PORTS = {"http": 80, "https": 443}
ANY_PORT = 0  #: in an allow list

# `ipaddress.is_global` is no help: Python 3.11 calls 224.0.0.1, fec0::1, 2002:7f00:1::
# and ::127.0.0.1 global. So: the IPv4 blocks that are not the public internet …
_NOT_PUBLIC_V4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata, Tailscale
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent: a public number inside each machine
        "169.254.0.0/16",  # link-local; the metadata of AWS, Azure, Google, ECS
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# … and of IPv6 the one block that is in use, without what tunnels or documents.
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries any IPv4 address
        "3fff::/20",  # documentation
    )
)
# Names that only mean something inside a network or a machine.
_INSIDE = ("localhost", "local", "internal", "home.arpa", "lan", "intranet", "corp")

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<path>[^#]*)(?:#.*)?", re.IGNORECASE
)
_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9.-]{1,254}))(?::(?P<port>\d{1,5}))?"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Refused(ValueError):
    """The guard's verdict; the text is for people and names no address."""


@dataclass(frozen=True)
class Target:
    """A URL that passed: what to ask, and of whom."""

    scheme: str
    host: str  #: lower case; an IPv6 address without brackets; no trailing dot
    port: int
    path: str  #: with the query, as given; begins with "/"
    exempt: bool  #: the operator listed it: addresses are not judged

    @property
    def url(self) -> str:
        """Return the URL, spelled in one way only."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def allow_list(entries: Iterable[str]) -> frozenset[tuple[str, int]]:
    """
    Read the hosts that the operator exempts: "host", "host:port", "[v6]:port".

    Raises:
        ValueError: an entry of another form.

    >>> sorted(allow_list(["nas", "127.0.0.1:8000", "::1"]))
    [('127.0.0.1', 8000), ('::1', 0), ('nas', 0)]
    """
    return frozenset(_allowed(entry.strip().lower()) for entry in entries)


def check_url(url: str, allow: frozenset[tuple[str, int]]) -> Target:
    """
    Judge a URL by its text.

    One strict grammar for the parts where parsers disagree (`\\`, `@`, percent signs,
    odd forms of addresses): what it does not know is refused, not repaired.

    Raises:
        Refused: saying which part is the reason.
    """
    if len(url) > MAX_URL_CHARS:
        raise Refused(f"the URL is over {MAX_URL_CHARS} characters")
    if not re.fullmatch(r"[!-\[\]-~]*", url):
        raise Refused("the URL has a blank, a backslash or a character beyond ASCII")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise Refused("the URL must be http://HOST/… or https://HOST/…")
    if "@" in parts["authority"]:
        raise Refused("the URL must not carry a user name or password")
    authority = _AUTHORITY.fullmatch(parts["authority"].lower())
    if authority is None:
        raise Refused("the URL's host or port is not a plain one")

    scheme = parts["scheme"].lower()
    port = int(authority["port"] or PORTS[scheme])
    if not 0 < port < 2**16:
        raise Refused("the URL's port is not one")
    host = _host(authority["v6"], authority["name"])
    path = parts["path"] if parts["path"].startswith("/") else f"/{parts['path']}"
    exempt = not allow.isdisjoint({(host, port), (host, ANY_PORT)})
    if not exempt:
        if port not in PORTS.values():
            raise Refused("the URL's port must be 80 or 443")
        if not _may_be_public(host):
            raise Refused("the URL's host is not on the public internet")
    return Target(scheme, host, port, path, exempt)


def is_public(ip: str) -> bool:
    """Tell whether an address is of the public internet; IPv4 within IPv6 is not."""
    address = ip_address(ip.partition("%")[0])
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(
        address in block for block in _NOT_PUBLIC_V6
    )


def _host(v6: str | None, name: str | None) -> str:
    """
    Return the host in its one spelling.

    The system's resolver takes 2130706433, 0x7f.1, 0177.0.0.1 and 127.1 for 127.0.0.1,
    so a name whose last label could be a number must be the plain dotted form.
    """
    try:
        if v6 is not None:
            return str(IPv6Address(v6))
        host = (name or "").removesuffix(".")
        labels = host.split(".")
        if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
            return str(IPv4Address(host))
    except ValueError:
        raise Refused("the URL's host is an odd form of an address") from None
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise Refused("the URL's host is not a name")
    return host


def _may_be_public(host: str) -> bool:
    """Judge an address; a name passes unless it can only be an inside one."""
    try:
        return is_public(host)
    except ValueError:
        inside = any(host.endswith(f".{suffix}") for suffix in _INSIDE)
        return "." in host and not inside


def _allowed(entry: str) -> tuple[str, int]:
    bare_v6 = entry.count(":") > 1 and not entry.startswith("[")
    parts = _AUTHORITY.fullmatch(f"[{entry}]" if bare_v6 else entry)
    if parts is None:
        raise ValueError(f"{entry!r} is not HOST or HOST:PORT")
    return _host(parts["v6"], parts["name"]), int(parts["port"] or ANY_PORT)
