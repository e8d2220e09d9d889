"""Drop documents by their address: hosts, words and patterns."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from pydantic import field_validator

from tasks.contracts.base import Drop, FrozenModel
from tasks.contracts.document import Document
from tasks.contracts.errors import ParamsError


class Url(FrozenModel):
    """What an address must not hold. Nothing is denied unless it is listed.

    It works as the URL filter of RefinedWeb (Penedo et al. 2023, arXiv:2306.01116, appendix G.1), without its lists.

    >>> page = dict(doc_id="1", record_id="1", source="x", text="…")
    >>> rule = Url(deny_hosts=["spam.example"], deny_words=["casino"])
    >>> rule(Document(**page, url="https://docs.example/casinos", host="docs.example"))
    >>> rule(Document(**page, url="https://a.spam.example/", host="a.spam.example")).rule
    'url.host'
    >>> rule(Document(**page, url="https://docs.example/best-casino", host="docs.example")).detail
    'casino'
    """

    deny_hosts: tuple[str, ...] = ()
    """Hosts, with everything below them: "spam.example" denies "a.spam.example" too."""
    deny_words: tuple[str, ...] = ()
    """Whole words of an address, whatever their case."""
    deny_patterns: tuple[str, ...] = ()
    """Regular expressions, searched in the whole address."""
    hosts_file: str | None = None
    """A file of more hosts, one a line; lines that begin with # do not count."""

    @field_validator("deny_patterns")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that decide what is denied."""
        return (self.hosts_file,) if self.hosts_file else ()

    @cached_property
    def _hosts(self) -> frozenset[str]:
        hosts = list(self.deny_hosts)
        for name in self.files:
            try:
                hosts += [line.strip() for line in Path(name).read_text("utf-8").splitlines()]
            except OSError as error:
                raise ParamsError(
                    "the file of denied hosts cannot be read", where=name, found=str(error), expected="one host a line"
                ) from error
        return frozenset(host.lower() for host in hosts if host and not host.startswith("#"))

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.deny_words)

    def __call__(self, document: Document) -> Drop | None:
        labels = document.host.lower().split(".")
        parents = (".".join(labels[start:]) for start in range(len(labels)))
        if denied := next((host for host in parents if host in self._hosts), None):
            return Drop(rule="url.host", detail=denied)
        if self._words:
            words = re.split(r"[^a-z0-9]+", document.url.lower())
            if denied := next((word for word in words if word in self._words), None):
                return Drop(rule="url.word", detail=denied)
        for pattern in self.deny_patterns:
            if re.search(pattern, document.url):
                return Drop(rule="url.pattern", detail=pattern)
        return None
