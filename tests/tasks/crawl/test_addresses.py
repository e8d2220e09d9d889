"""Only public addresses, whatever their spelling."""

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from tasks.contracts.urls import named
from tasks.crawl.addresses import GuardedResolver, is_public


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "::ffff:7f00:1",
     "2002:7f00:1::", "64:ff9b::7f00:1", "ff02::1", "192.0.2.1", "fec0::1", "64:ff9b:1::a00:1", "::7f00:1", "3fff::1",
     "2001:db8::1", "2001:0:a00:1::", "5f00::1", "198.18.0.1", "192.0.0.8"],
)  # fmt: skip
def test_private_and_special_addresses_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


def test_a_pattern_names_its_own_domain_and_hosts_below_it_only() -> None:
    assert named("A.b.Example", ["*.b.example"])
    assert named("b.example", ["*.b.example"])
    assert not named("evil-b.example", ["*.b.example"])
    assert not named("b.example.org", ["b.example"])


class Names:
    """A name service whose answers are listed beforehand: one list of addresses for each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    def resolveHostName(self, receiver: Any, name: str, *_: Any) -> Any:  # noqa: N802
        receiver.resolutionBegan(object())
        for address in self.answers.pop(0):
            family = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(family("TCP", address, 80))
        receiver.resolutionComplete()
        return receiver


class Connection:
    """What a connection gets to know: the addresses that it may try."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.complete = False

    def resolutionBegan(self, _: Any) -> None:  # noqa: N802
        """Nothing to do."""

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        self.addresses.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: N802
        self.complete = True


def resolver(names: Names, allowed: tuple[str, ...] = (), **places: Any) -> GuardedResolver:
    reactor = type("Reactor", (), {"nameResolver": names})()
    return GuardedResolver(reactor, allowed, places)


def connect(guard: GuardedResolver, host: str) -> list[str]:
    connection = Connection()
    guard.resolveHostName(connection, host, 80)
    assert connection.complete
    return connection.addresses


def test_a_name_that_turns_private_after_the_first_answer_is_refused_at_the_second() -> None:
    guard = resolver(Names(["93.184.216.34"], ["127.0.0.1"], ["::ffff:10.0.0.1", "fc00::1"]))
    GuardedResolver.refused.clear()
    assert connect(guard, "rebind.example") == ["93.184.216.34"]
    assert "rebind.example" not in guard.refused
    assert connect(guard, "rebind.example") == []
    assert connect(guard, "rebind.example") == []
    assert "rebind.example" in guard.refused


def test_of_mixed_answers_only_the_public_ones_are_tried() -> None:
    assert connect(resolver(Names(["10.0.0.1", "8.8.8.8", "::1"])), "mixed.example") == ["8.8.8.8"]


def test_hosts_that_are_allowed_may_be_private_and_others_of_the_same_address_may_not() -> None:
    guard = resolver(Names(["10.0.0.1"], ["10.0.0.1"]), allowed=("wiki.example",))
    assert connect(guard, "wiki.example") == ["10.0.0.1"]
    assert connect(guard, "other.example") == []
