"""Check which addresses BrowserAct can call, and which hosts are private."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any
from urllib.parse import quote, urlsplit

from airflow_provider_browseract.exceptions import InputError

URL_LENGTH = 2048
"""The longest callback address that the API accepts, in characters."""

_PART = r"(?:[\w.~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
URI = re.compile(rf"(?:\w+://[\w.~!$&'()*+,;=:@\[\]%-]*)?{_PART}(?:#{_PART})?", re.ASCII)
"""The beginning of a text that can be one of a URI (RFC 3986)."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that map to the IPv4 address in their last four bytes."""

NEAR_IPV4 = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
"""IPv4 addresses that Python counts as public: Azure's own services for a machine, and those for protocols."""

NEAR_IPV6 = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "2002::/16", "::/96", "fec0::/10")))
"""IPv6 addresses that a local gateway maps to an IPv4 address, or that are deprecated."""


def check_callback_url(argument: str, url: Any, *, api_base_url: str) -> str | None:
    """Check a callback address as the API does.

    :param url: the address; ``None`` or an empty string for none.
    :param api_base_url: address of the API. If it is private, the callback address may be private too.
    :returns: the address, or None.
    :raises InputError: the address is not http(s), longer than 2,048 characters, not ASCII, or private.
    """
    if url is None or url == "":
        return None
    # The messages do not repeat the address, because it can contain a token.
    if not isinstance(url, str):
        raise InputError(f"{argument} is of type {type(url).__name__}. Use an address that begins with https://.")
    if len(url) > URL_LENGTH:
        raise InputError(f"{argument} has {len(url)} characters. BrowserAct accepts at most {URL_LENGTH}.")
    end = URI.match(url).end()  # type: ignore[union-attr]
    if odd := url[end : end + 1]:
        raise InputError(
            f"{argument} contains the character {odd!a}, which is not allowed in a URL. Write it percent-encoded "
            f"({quote(odd, errors='replace')}) or, in the host name, in the ASCII form of the name (xn--...)."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"{argument} is not an http or https address. Use one like https://example.com/path.")
    if is_private(host) and not is_private(urlsplit(api_base_url).hostname or ""):
        raise InputError(f"{argument} has a private host, which BrowserAct cannot reach. Use a public address.")
    return url


def is_private(host: str) -> bool:
    """Return whether a host is private, judging by its name or IP address without a DNS lookup."""
    name = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            # Resolvers also accept addresses such as 127.1 and 0x7f000001.
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, ValueError):
            return "." not in name or name.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        elif any(address in network for network in NEAR_IPV6):
            return True
    near = any(address in network for network in NEAR_IPV4)
    return near or not address.is_global or address.is_multicast
