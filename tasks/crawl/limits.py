"""The limits that keep a crawl out of traps: a calendar or a session id in the path would be fetched for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.contracts.urls import host_of
from tasks.rights.takedowns import RULE as TAKEDOWN
from tasks.rights.takedowns import Takedowns


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a crawl, of a host and of a URL is allowed; see stage.Params for the fields of the same name."""

    max_pages_per_host: int
    max_depth: int
    max_url_length: int
    max_path_segments: int
    max_repeated_segments: int
    max_query_parameters: int
    max_queries_per_path: int
    takedowns: Takedowns = field(default_factory=Takedowns)
    """Addresses that must not be fetched again."""


class Counted:
    """Counts the URLs taken up by host and by path, and names the limit that one more would break."""

    def __init__(self, limits: Limits, taken: Iterable[str] = ()) -> None:
        self.limits = limits
        self.per_host: Counter[str] = Counter()
        self.per_path: Counter[str] = Counter()
        for url in taken:
            self.add(url)

    def add(self, url: str) -> None:
        """Count a URL as taken up."""
        self.per_host[host_of(url)] += 1
        path, mark, _ = url.partition("?")
        if mark:
            self.per_path[path] += 1

    def refusal(self, url: str, depth: int) -> str | None:
        """Return the rule that keeps a URL out, None where nothing does.

        >>> limits = Limits(max_pages_per_host=9, max_depth=9, max_url_length=60, max_path_segments=6,
        ...                 max_repeated_segments=2, max_query_parameters=2, max_queries_per_path=1)
        >>> counted = Counted(limits, ["http://h.example/find?q=1"])
        >>> [counted.refusal(f"http://h.example/{rest}", 1) for rest in ("a/b/a/b/a", "x?a&b&c", "find?q=2", "ok")]
        ['path_repeats', 'query_parameters', 'query_variants', None]
        """
        limits = self.limits
        if limits.takedowns.covers_address(url, host_of(url)):
            return TAKEDOWN
        if depth > limits.max_depth:
            return "max_depth"
        if len(url) > limits.max_url_length:
            return "url_too_long"
        path, _, query = url.partition("?")
        segments = [segment for segment in path.split("/")[3:] if segment]
        if len(segments) > limits.max_path_segments:
            return "path_too_deep"
        if segments and max(Counter(segments).values()) > limits.max_repeated_segments:
            return "path_repeats"
        if query and query.count("&") + 1 > limits.max_query_parameters:
            return "query_parameters"
        if query and self.per_path[path] >= limits.max_queries_per_path:
            return "query_variants"
        if self.per_host[host_of(url)] >= limits.max_pages_per_host:
            return "max_pages_per_host"
        return None


LIMIT_RULES = frozenset(
    {"max_pages", "max_depth", "max_pages_per_host", "url_too_long", "path_too_deep", "path_repeats",
     "query_parameters", "query_variants", "too_many_links", TAKEDOWN}
)  # fmt: skip
