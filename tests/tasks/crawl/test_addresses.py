"""Only public addresses, whatever their spelling."""

import pytest

from tasks.crawl.addresses import is_public, named


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "::ffff:7f00:1",
     "2002:7f00:1::", "64:ff9b::7f00:1", "ff02::1", "192.0.2.1"],
)  # fmt: skip
def test_private_and_special_addresses_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


def test_a_pattern_names_its_own_domain_and_hosts_below_it_only() -> None:
    assert named("A.b.Example", ["*.b.example"])
    assert named("b.example", ["*.b.example"])
    assert not named("evil-b.example", ["*.b.example"])
    assert not named("b.example.org", ["b.example"])
