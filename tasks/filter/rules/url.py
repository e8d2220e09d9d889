"""Drop documents by their address: hosts, words, patterns, and lists of domains and URLs."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from tasks.contracts.base import Drop, Rule
from tasks.contracts.document import Document
from tasks.filter.list_files import read_list, url_lists

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://(?:[^/@]*@)?", re.IGNORECASE)


class Url(Rule):
    """What an address must not hold. Nothing is denied unless it is listed.

    It works as the URL filter of RefinedWeb (Penedo et al. 2023, arXiv:2306.01116, appendix G.1), without its lists.

    >>> rule = Url(deny_hosts=["spam.example"], deny_words=["casino"])
    >>> rule(document(url="https://docs.example/casinos", host="docs.example"))
    >>> rule(document(url="https://a.spam.example/", host="a.spam.example")).rule
    'host'
    >>> rule(document(url="https://docs.example/best-casino", host="docs.example")).detail
    'casino'
    """

    paths: ClassVar[tuple[str, ...]] = ("hosts_file", "lists")

    deny_hosts: tuple[str, ...] = ()
    """Hosts, with everything below them: "spam.example" denies "a.spam.example" too."""
    deny_words: tuple[str, ...] = ()
    """Whole words of an address, whatever their case."""
    deny_patterns: tuple[str, ...] = ()
    """Regular expressions, searched in the whole address."""
    hosts_file: str | None = None
    """A file of more hosts, one a line; lines that begin with # do not count."""
    lists: tuple[str, ...] = ()
    """Files of domains and URLs, one a line, or folders in the layout of the UT1 lists: a folder a category, in it the
    files `domains` and `urls`, plain or gzip. A domain denies all below it, a URL all below its path."""
    categories: tuple[str, ...] = ()
    """The categories of `lists` that count; none: all."""

    @field_validator("deny_patterns")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns

    @cached_property
    def _hosts(self) -> frozenset[str]:
        more = read_list(Path(self.hosts_file), "one host a line") if self.hosts_file else []
        return frozenset(host.lower() for host in (*self.deny_hosts, *more))

    @cached_property
    def _listed(self) -> dict[str, str]:
        """Return the category of each listed domain and each listed address without its scheme."""
        listed: dict[str, str] = {}
        for name in self.lists:
            for category, path in url_lists(Path(name)):
                if not self.categories or category in self.categories:
                    entries = read_list(path, "one domain or URL a line")
                    listed.update((_plain(entry), category) for entry in entries)
        return listed

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.deny_words)

    def __call__(self, document: Document) -> Drop | None:
        labels = document.host.lower().split(".")
        parents = [".".join(labels[start:]) for start in range(len(labels))]
        if denied := next((host for host in parents if host in self._hosts), None):
            return Drop(rule="host", detail=denied)
        if self._listed and (entry := self._first_listed(document.url, parents)):
            return Drop(rule="list", detail=f"{self._listed[entry]}: {entry}")
        if self._words:
            words = re.split(r"[^a-z0-9]+", document.url.lower())
            if denied := next((word for word in words if word in self._words), None):
                return Drop(rule="word", detail=denied)
        for pattern in self.deny_patterns:
            if re.search(pattern, document.url):
                return Drop(rule="pattern", detail=pattern)
        return None

    def _first_listed(self, url: str, parents: list[str]) -> str | None:
        if domain := next((host for host in parents if host in self._listed), None):
            return domain
        address = _plain(url)
        steps = [match.start() for match in re.finditer(r"[/?#]", address)]
        return next((address[:end] for end in (*steps, len(address)) if address[:end] in self._listed), None)


def _plain(address: str) -> str:
    """Return an address as lists write it: in lower case, without scheme, "www." and the slash at its end."""
    return _SCHEME.sub("", address).lower().removeprefix("www.").rstrip("/")
