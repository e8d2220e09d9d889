"""Which addresses a crawl may connect to: a resolver that refuses private and special ones.

The check is made on what a name resolves to at the moment of connecting, and on address literals, so neither a
rebinding name nor a redirect gets around it. The same resolver sends the sample's host names to its own server.
"""

# ruff: noqa: N802, N803 (names that Twisted asks for)
from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer, provider

from tasks.contracts.urls import named
from tasks.crawl.scrapy_settings import ALLOW_HOSTS_SETTING, PLACES_SETTING

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291
# What Python's own list lacks in some versions: documentation (RFC 3849, 9637), protocol assignments (RFC 6890), the
# old 6to4 relays (RFC 7526).
SPECIAL = tuple(
    ipaddress.ip_network(network) for network in ("2001:db8::/32", "3fff::/20", "192.0.0.0/24", "192.88.99.0/24")
)


class RefusedAddressError(Exception):
    """The host is at a private or special address, and crawl.allow_hosts does not name it; no try would change that."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is at a private or special address, and crawl.allow_hosts does not name it")


def is_public(address: str) -> bool:
    """Tell whether an IPv4 or IPv6 address is on the public internet; an IPv4 address inside IPv6 counts as itself.

    >>> [is_public(a) for a in ("93.184.216.34", "10.1.2.3", "::ffff:127.0.0.1", "169.254.169.254", "64:ff9b::a00:1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inside is None and ip in NAT64:
            inside = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
        if ip not in GLOBAL_UNICAST:
            return False
    if any(ip in network for network in SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nothing is under way that could be cancelled."""


@implementer(IHostnameResolver)
class GuardedResolver:
    """Twisted's resolver, less the addresses that may not be crawled, plus fixed places for some hosts.

    Attributes:
        refused: hosts of which every address was refused when they were last asked for, so that the failure that
            follows, to which Twisted gives the name of a DNS failure, can be called what it is.
    """

    refused: set[str] = set()  # noqa: RUF012 - one resolver a process; Scrapy makes it, the spider reads it here

    def __init__(self, reactor: Any, allowed: Sequence[str], places: Mapping[str, Sequence[Any]]) -> None:
        self.reactor = reactor
        self.inner = reactor.nameResolver
        self.allowed = allowed
        self.places = places

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: Any) -> GuardedResolver:
        """Make it from Scrapy's settings, as Scrapy does with its own resolvers."""
        settings = crawler.settings
        return cls(reactor, settings.getlist(ALLOW_HOSTS_SETTING), settings.getdict(PLACES_SETTING))

    def install_on_reactor(self) -> None:
        """Make every later connection of this process go through it."""
        self.reactor.installNameResolver(self)

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Resolve a name, leaving out what is refused."""
        for pattern, (address, port) in self.places.items():
            if named(hostName, [pattern]):
                resolution = _Resolution(hostName)
                resolutionReceiver.resolutionBegan(resolution)
                resolutionReceiver.addressResolved(IPv4Address("TCP", address, int(port)))
                resolutionReceiver.resolutionComplete()
                return resolution
        receiver = (
            resolutionReceiver if named(hostName, self.allowed) else self._only_public(resolutionReceiver, hostName)
        )
        return self.inner.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)

    def _only_public(self, receiver: Any, host: str) -> Any:
        refused = self.refused

        @provider(IResolutionReceiver)
        class OnlyPublic:
            passed = 0
            held = 0

            @classmethod
            def resolutionBegan(cls, resolution: Any) -> None:
                receiver.resolutionBegan(resolution)

            @classmethod
            def addressResolved(cls, address: Any) -> None:
                if isinstance(address, IPv4Address | IPv6Address) and is_public(address.host):
                    cls.passed += 1
                    receiver.addressResolved(address)
                else:
                    cls.held += 1

            @classmethod
            def resolutionComplete(cls) -> None:
                if cls.held and not cls.passed:
                    refused.add(host.lower())
                else:
                    refused.discard(host.lower())
                receiver.resolutionComplete()

        return OnlyPublic
