"""robots.txt by RFC 9309, with Crawl-delay and Content-Usage: who may fetch what, and which line says so.

In the contracts, since the crawl decides by it and stored evidence is judged by it again later. Parsers of other
packages answer yes or no; evidence must name the rule, and every robot that a page is closed to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

MOST_BYTES = 500 * 1024  # section 2.5: at least this much must be parsed; what is beyond it is ignored
MOST_USAGE_LINES = 100  # Content-Usage lines of a group that are read; the draft's examples have two or three
EVERYONE = "*"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PRINTABLE = bytes(range(0x21, 0x7F))
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PLAIN = re.compile(r"[/*][!-$&-~]*")  # nothing to escape, and no escape to spell in another way
_LINES = re.compile(r"\r\n|\r|\n")
_PRODUCT = re.compile(r"[^\s/;(]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """One allow or disallow line: `pattern` normalised, `line` as it stands in the file."""

    allow: bool
    pattern: str
    line: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a URL may be fetched.

    Attributes:
        agent: the group that applies: a product token in lower case, "*", or "" where no group does.
        rule: the deciding line, "" where none matches.
    """

    allowed: bool
    agent: str = ""
    rule: str = ""


@dataclass(slots=True)
class _Group:
    agents: tuple[str, ...]
    rules: list[Rule]
    usage: list[tuple[str, str]]
    delay: float | None = None
    ranked: list[Rule] | None = None

    def best(self, path: str) -> Rule | None:
        """Return the rule that decides here: the longest that matches, an allow line at equal length."""
        if self.ranked is None:
            self.ranked = sorted(self.rules, key=_rank, reverse=True)  # stable: of equals the first in the file
        return next((rule for rule in self.ranked if matches(rule.pattern, path)), None)

    def preferences(self, path: str) -> tuple[int, list[str]]:
        """Return the length of the longest path of a Content-Usage line that matches, and what those lines say."""
        lines = [line for line in self.usage if matches(line[0], path)]
        longest = max((len(pattern) for pattern, _ in lines), default=-1)
        return longest, [text for pattern, text in lines if len(pattern) == longest]


def _rank(rule: Rule) -> tuple[int, bool]:
    return len(rule.pattern), rule.allow


class Robots:
    """A parsed robots.txt.

    >>> robots = Robots(b"User-agent: *\\nDisallow: /a\\nAllow: /a/open$\\n\\nUser-agent: GPTBot\\nDisallow: /")
    >>> robots.decide("Headwater/0.1", "http://h.example/a/x")
    Decision(allowed=False, agent='*', rule='Disallow: /a')
    >>> robots.decide("Headwater/0.1", "http://h.example/a/open").allowed, robots.closed_to("http://h.example/")
    (True, ('gptbot',))
    """

    def __init__(self, content: bytes) -> None:
        self.sitemaps: list[str] = []
        self._groups: list[_Group] = list(self._parsed(_text(content)))
        self._by_agent: dict[str, list[_Group]] = {}
        for group in self._groups:
            for agent in dict.fromkeys(group.agents):
                self._by_agent.setdefault(agent, []).append(group)

    def _parsed(self, text: str) -> Iterator[_Group]:
        agents: list[str] = []
        group: _Group | None = None
        for raw in _LINES.split(text):
            line = raw.partition("#")[0].strip()
            name, colon, value = (part.strip() for part in line.partition(":"))
            name = name.lower()
            if not colon:
                continue
            if name == "sitemap":
                self.sitemaps.append(value)
            elif name == "user-agent":
                if group is not None:
                    yield group
                    agents, group = [], None
                agents.append(product_token(value))
            elif name in ("allow", "disallow", "crawl-delay", "content-usage") and agents:
                group = group or _Group(tuple(agents), [], [])
                _add(group, name, value, line)
        if group is not None:
            yield group
        elif agents:
            yield _Group(tuple(agents), [], [])

    @property
    def agents(self) -> tuple[str, ...]:
        """Every robot named, in lower case, in the file's order; "*" among them where it stands."""
        return tuple(self._by_agent)

    def _groups_of(self, agent: str) -> tuple[str, list[_Group]]:
        token = product_token(agent)
        for name in (token, EVERYONE):
            if name in self._by_agent:
                return name, self._by_agent[name]
        return "", []

    def decide(self, agent: str, url: str) -> Decision:
        """Tell whether the robot that calls itself `agent` may fetch `url`, and by which line.

        The longest matching pattern decides, an allow line at equal length; all groups of one name count as one
        (sections 2.2.1 and 2.2.2).
        """
        name, groups = self._groups_of(agent)
        path = url_path(url)
        if path == "/robots.txt":
            return Decision(True, name)
        best = _best(group.best(path) for group in groups)
        return Decision(True, name) if best is None else Decision(best.allow, name, best.line)

    def closed_to(self, url: str) -> tuple[str, ...]:
        """Return the robots named in the file that may not fetch `url`, sorted; "*" where everyone else may not."""
        return tuple(self.closing(url))

    def closing(self, url: str) -> dict[str, str]:
        """Return the robots that may not fetch `url`, sorted, each with the line that closes it.

        Each group is asked once, however many robots it names and however many groups a robot has: linear in the file.
        """
        path = url_path(url)
        if path == "/robots.txt":
            return {}
        by_group = {id(group): group.best(path) for group in self._groups}
        closed = {}
        for agent, groups in self._by_agent.items():
            best = _best(by_group[id(group)] for group in groups)
            if best is not None and not best.allow:
                closed[agent] = best.line
        return dict(sorted(closed.items()))

    def crawl_delay(self, agent: str) -> float | None:
        """Return the pause between requests that the robot is asked for, in seconds."""
        delays = [group.delay for group in self._groups_of(agent)[1] if group.delay is not None]
        return max(delays, default=None)

    def content_usage(self, url: str) -> tuple[tuple[str, str], ...]:
        """Return (robot, preferences) of the Content-Usage lines that apply to `url` (draft-ietf-aipref-attach)."""
        path = url_path(url)
        by_group = {id(group): group.preferences(path) for group in self._groups if group.usage}
        stated = []
        for agent, groups in self._by_agent.items():
            said = [by_group[id(group)] for group in groups if id(group) in by_group]
            longest = max((length for length, _ in said), default=-1)
            if longest >= 0:
                texts = [text for length, lines in said if length == longest for text in lines]
                stated.append((agent, ", ".join(texts[:MOST_USAGE_LINES])))
        return tuple(stated)


def _best(rules: Iterable[Rule | None]) -> Rule | None:
    best: Rule | None = None
    for rule in rules:
        if rule is not None and (best is None or _rank(rule) > _rank(best)):
            best = rule
    return best


def _add(group: _Group, name: str, value: str, line: str) -> None:
    if name == "crawl-delay":
        try:
            delay = float(value)
        except ValueError:
            return
        if delay >= 0 and math.isfinite(delay):
            group.delay = max(delay, group.delay or 0.0)
    elif name == "content-usage":
        if len(group.usage) == MOST_USAGE_LINES:
            return
        path, _, preferences = value.partition(" ") if value.startswith("/") else ("/", "", value)
        group.usage.append((normal_path(path), preferences.strip()))
    elif value:  # an empty line of these closes and opens nothing
        group.rules.append(Rule(name == "allow", normal_path(value), line))


def _text(content: bytes) -> str:
    """Decode a robots.txt: UTF-8 by the standard, UTF-16 where its mark says so; never an error."""
    if len(content) > MOST_BYTES:
        # A line that is cut would say something else than it meant.
        content = content[: content.rfind(b"\n", 0, MOST_BYTES) + 1] or content[:MOST_BYTES]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").replace("\0", "")
    return content.decode("utf-8-sig", "replace").replace("\ufeff", "").replace("\0", "")


@lru_cache(maxsize=256)
def product_token(agent: str) -> str:
    """Return the name by which robots.txt speaks of a robot, in lower case.

    >>> product_token("Headwater/0.1 (+https://h.example/bot)"), product_token("*")
    ('headwater', '*')
    """
    found = _PRODUCT.match(agent.strip())
    token = found[0].lower() if found else ""
    return token if token == EVERYONE else token.rstrip("*")


def url_path(url: str) -> str:
    """Return what the patterns are matched against: path and query, normalised; "/" where it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "/"
    return normal_path((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def normal_path(path: str) -> str:
    """Return a path or pattern in the one spelling in which two are compared (section 2.2.2).

    >>> normal_path("/caf\u00e9/%7ejoe%2fx"), normal_path("private")
    ('/caf%C3%A9/~joe%2Fx', '/private')
    """
    if _PLAIN.fullmatch(path):
        return path
    escaped = quote(path.encode("utf-8", "replace"), safe=_PRINTABLE).encode()
    normal = _ESCAPE.sub(_unescape, escaped).decode("ascii")
    return normal if normal.startswith(("/", "*")) else f"/{normal}"


def _unescape(found: re.Match[bytes]) -> bytes:
    byte = int(found[1], 16)
    return bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte


def matches(pattern: str, path: str) -> bool:
    """Tell whether a pattern with "*" (anything) and a final "$" (the end) matches a path from its start.

    >>> matches("/*.php$", "/a/x.php"), matches("/*.php$", "/x.php5"), matches("/fish*", "/fishheads/y")
    (True, False, True)
    """
    anchored = pattern.endswith("$")
    if len(pattern) - pattern.count("*") - anchored > len(path):
        return False
    first, *parts = (pattern[:-1] if anchored else pattern).split("*")
    if not path.startswith(first):
        return False
    if not parts:
        return not anchored or path == first
    position = len(first)
    for part in parts[:-1]:
        position = path.find(part, position)
        if position < 0:
            return False
        position += len(part)
    last = parts[-1]
    if anchored:
        return len(path) - len(last) >= position and path.endswith(last)
    return path.find(last, position) >= 0
