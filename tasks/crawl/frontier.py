"""What a crawl knows of URLs that it will not fetch: the first ones by name, the others of a host by their number.

A page may hold sixty thousand links, and a host endless pages: a row for each would fill memory, disk and ledger with
what one row says as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.contracts.urls import host_of, named

MOST_NAMED = 100  # URLs of one host that one rule keeps out and that have a ledger row each
MOST_NAMED_IN_ALL = 20_000
MOST_HOSTS = 5_000  # of which refusals are counted one by one; of more, by the domain that lets them in


@dataclass(slots=True)
class Beyond:
    """Links of one host that one rule kept out and that have no row each.

    Attributes:
        url: the first of them.
        links: how often such links stood on pages; one that stands on two pages counts twice.
    """

    url: str
    links: int = 0


class Refusals:
    """Decides which refused URL gets a row of its own, and counts the others.

    Args:
        named: (URL, rule) of those that have one already.
        allowed: names of the hosts that belong to the crawl, such as "*.farm.example".

    >>> refusals = Refusals([(f"http://h.example/{n}", "max_depth") for n in range(99)], ["h.example"])
    >>> [refusals.has_row(f"http://h.example/{n}", "max_depth") for n in (99, 100, 101)]
    [True, False, False]
    >>> refusals.beyond
    {('h.example', 'max_depth'): Beyond(url='http://h.example/100', links=2)}
    """

    def __init__(self, named: Iterable[tuple[str, str]], allowed: Sequence[str]) -> None:
        self.allowed = allowed
        self.beyond: dict[tuple[str, str], Beyond] = {}
        self._named: Counter[tuple[str, str]] = Counter()
        self._hosts: set[str] = set()
        self._told: dict[tuple[str, str], Beyond] = {}
        self._all = 0
        for url, rule in named:
            self._named[self._place(url), rule] += 1
            self._all += 1

    def has_row(self, url: str, rule: str) -> bool:
        """Return whether a refused URL gets a row of its own; else it is counted."""
        key = (self._place(url), rule)
        if key not in self.beyond and self._named[key] < MOST_NAMED and self._all < MOST_NAMED_IN_ALL:
            self._named[key] += 1
            self._all += 1
            return True
        self.count(url, rule, 1, key)
        return False

    def changed(self) -> dict[tuple[str, str], Beyond]:
        """Return what was counted since the last call: a copy of `beyond`'s entries that grew."""
        grown = {key: Beyond(one.url, one.links) for key, one in self.beyond.items() if one != self._told.get(key)}
        self._told.update(grown)
        return grown

    def count(self, url: str, rule: str, links: int, key: tuple[str, str] | None = None) -> None:
        """Count links that get no row of their own, `url` being one of them or the page they stand on."""
        key = key or (self._place(url), rule)
        self.beyond.setdefault(key, Beyond(url)).links += links

    def _place(self, url: str) -> str:
        host = host_of(url)
        if host in self._hosts:
            return host
        if len(self._hosts) < MOST_HOSTS:
            self._hosts.add(host)
            return host
        return next((pattern for pattern in self.allowed if named(host, [pattern])), "*")
