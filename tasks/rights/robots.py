"""robots.txt by RFC 9309, and what else is said in it of a page's use: who may do what, and which line says so.

In the contracts, since the crawl decides by it and stored evidence is judged by it again later. Parsers of other
packages answer yes or no; evidence must name the rule, and every robot that a page is closed to.

Where parsers in use (Google's, Protego) read a file in different ways, the reading that fetches less is taken: a line
without its colon counts, misspelt closing lines count, misspelt opening ones do not, a list of robots in one line names
each of them, and what is no rule of the RFC (Crawl-delay, preferences, records nobody knows) does not end a group.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote, urlsplit

from tasks.contracts.urls import percent_form

ROBOTS_TXT, AI_TXT, TDMREP = "/robots.txt", "/ai.txt", "/.well-known/tdmrep.json"
"""Paths at which a host says, for all of its pages, who may use them."""
MOST_BYTES = 500 * 1024  # section 2.5: at least this much must be parsed; what is beyond it is ignored
MOST_STATEMENTS = 100  # preferences of a group that are read, and licences of a file; examples have two or three
EVERYONE = "*"
USAGE, SIGNAL, AI_TRAINING, NOINDEX = "content-usage", "content-signal", "ai-training", "noindex"
_PRINTABLE = bytes(range(0x21, 0x7F))
_PLAIN = re.compile(r"[/*][!-#&-~]*\$?")  # nothing to escape, and no escape to spell in another way
_LINES = re.compile(r"\r\n|\r|\n")
_PRODUCT = re.compile(r"[^\s/;(]+")
_ADDRESS = re.compile(r"https?://\S+|/\S+|\S+\.xml", re.I)
# Names of records, in lower case. Misspelt ones are those that Google's parser or Protego knows; where only one of the
# two does, it is here if it closes something. Google takes any name that begins with one of _BEGINNINGS.
_NAMES = {
    "user-agent": "user-agent",
    "allow": "allow",
    "disallow": "disallow",
    "crawl-delay": "crawl-delay",
    "crawl delay": "crawl-delay",
    "sitemap": "sitemap",
    "sitemaps": "sitemap",
    "site-map": "sitemap",
    "license": "license",  # RSL 1.0
    "licence": "license",
    "content-usage": USAGE,  # draft-ietf-aipref-attach
    "content-signal": SIGNAL,  # contentsignals.org
    "content-signals": SIGNAL,
    "disallowaitraining": AI_TRAINING,  # draft-canel-robots-ai-control-00
    "allowaitraining": AI_TRAINING,
    "noindex": NOINDEX,  # read by Google until 2019
}
_BEGINNINGS = {
    "user-agent": "user-agent",
    "useragent": "user-agent",
    "user agent": "user-agent",
    **dict.fromkeys(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"), "disallow"),
}
_ANY_BEGINNING = tuple(_BEGINNINGS)
# Of ai.txt only (draft-car-ai-txt-wellknown-00), which has blocks of agents and says what training may read.
_NAMES_OF_AI_TXT = {"training": "training", "agent": "agent", "training-deny": "disallow", "training-allow": "allow"}
# Parts of a User-Agent header that name a browser which the robot would pass for (RFC 9110, section 10.1.5).
_BROWSERS = frozenset({"mozilla", "compatible", "applewebkit", "khtml", "gecko", "chrome", "safari", "mobile", "like"})
_NAMED_IN_COMMENT = re.compile(r"[A-Za-z][\w.-]*(?:/[\w.-]+)?")


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
    agents: list[str]
    rules: list[Rule] = field(default_factory=list)
    said: list[tuple[str, str, str]] = field(default_factory=list)
    delay: float | None = None
    ended: bool = False
    ranked: list[Rule] | None = None

    def best(self, path: str) -> Rule | None:
        """Return the rule that decides here: the longest that matches, an allow line at equal length."""
        if self.ranked is None:
            self.ranked = sorted(self.rules, key=_rank, reverse=True)  # stable: of equals the first in the file
        return next((rule for rule in self.ranked if matches(rule.pattern, path)), None)

    def statements(self, path: str) -> dict[str, tuple[int, list[str]]]:
        """Return, by their name, the texts of the longest path that matches, and its length."""
        found: dict[str, tuple[int, list[str]]] = {}
        for name, pattern, text in self.said:
            longest, texts = found.get(name, (-1, []))
            if len(pattern) >= longest and matches(pattern, path):
                found[name] = (len(pattern), [*texts, text] if len(pattern) == longest else [text])
        return found


def _rank(rule: Rule) -> tuple[int, bool]:
    return len(rule.pattern), rule.allow


class Robots:
    """A parsed robots.txt.

    Attributes:
        licenses: addresses of its `License` records (RSL 1.0), which are said to everyone.

    >>> robots = Robots(b"User-agent: *\\nDisallow: /a\\nAllow: /a/open$\\n\\nUser-agent: GPTBot\\nDisallow: /")
    >>> robots.decide("Headwater/0.1", "http://h.example/a/x")
    Decision(allowed=False, agent='*', rule='Disallow: /a')
    >>> robots.decide("Headwater/0.1", "http://h.example/a/open").allowed, robots.closed_to("http://h.example/")
    (True, ('gptbot',))

    Args:
        ai_txt: it is an ai.txt: lines before the first robot are said to everyone, and it may speak of training.
    """

    def __init__(self, content: bytes, *, ai_txt: bool = False) -> None:
        self.sitemaps: list[str] = []
        self.licenses: list[str] = []
        self._groups: list[_Group] = list(self._parsed(_text(content), ai_txt))
        self._by_agent: dict[str, list[_Group]] = {}
        for group in self._groups:
            for agent in dict.fromkeys(group.agents):
                self._by_agent.setdefault(agent, []).append(group)

    def _parsed(self, text: str, ai_txt: bool) -> Iterator[_Group]:
        # What stands before the first robot is nobody's by the RFC; preferences there are taken for everyone's.
        group = _Group([EVERYONE], ended=True)
        preface = True
        for raw in _LINES.split(text):
            line = raw.partition("#")[0].strip()
            if (record := _record(line, ai_txt)) is None:
                continue
            name, value = record
            if name == "sitemap":
                self.sitemaps.append(value)
            elif name == "license":
                if len(self.licenses) < MOST_STATEMENTS and _ADDRESS.fullmatch(value):
                    self.licenses.append(value)
            elif name in ("user-agent", "agent"):
                if group.ended or name == "agent":
                    if not preface or group.rules or group.said:
                        yield group
                    group, preface = _Group([]), False
                group.agents += filter(None, map(product_token, value.split(",")))
            elif name in ("allow", "disallow"):
                if group.agents and (ai_txt or not preface):
                    group.ended = True
                    if value:  # an empty line of these closes and opens nothing
                        group.rules.append(Rule(name == "allow", pattern_path(value), line))
            elif name == "training":
                # Of ai.txt: a block of an agent is indented, and ends with the first line that is not.
                own = group if raw[:1].isspace() and not preface else _Group([EVERYONE])
                if value.lower() in ("deny", "conditional"):
                    own.rules.append(Rule(False, "/", line))
                if own is not group:
                    yield own
            elif group.agents:
                _state(group, name, value, line)
        if not preface or group.rules or group.said:
            yield group

    @property
    def agents(self) -> tuple[str, ...]:
        """Every robot named, in lower case, in the file's order; "*" among them where it stands."""
        return tuple(self._by_agent)

    def _groups_of(self, agent: str) -> dict[str, list[_Group]]:
        """Return the groups of each name by which a robot goes, or else those of everyone."""
        named = {name: self._by_agent[name] for name in names_of(agent) if name in self._by_agent}
        if not named and EVERYONE in self._by_agent:
            named = {EVERYONE: self._by_agent[EVERYONE]}
        return named

    def decide(self, agent: str, url: str) -> Decision:
        """Tell whether the robot that calls itself `agent` may fetch `url`, and by which line.

        The longest matching pattern decides, an allow line at equal length; all groups of one name count as one
        (sections 2.2.1 and 2.2.2). Of a robot with several names, each must be let in.
        """
        path = url_path(url)
        first = Decision(True)
        for name, groups in self._groups_of(agent).items():
            best = None if path == ROBOTS_TXT else _best(group.best(path) for group in groups)
            decision = Decision(True, name) if best is None else Decision(best.allow, name, best.line)
            if not decision.allowed:
                return decision
            first = first if first.agent else decision
        return first

    def closed_to(self, url: str) -> tuple[str, ...]:
        """Return the robots named in the file that may not fetch `url`, sorted; "*" where everyone else may not."""
        return tuple(self.closing(url))

    def closing(self, url: str) -> dict[str, str]:
        """Return the robots that may not fetch `url`, sorted, each with the line that closes it.

        Each group is asked once, however many robots it names and however many groups a robot has: linear in the file.
        """
        path = url_path(url)
        if path == ROBOTS_TXT:
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
        groups = [group for named in self._groups_of(agent).values() for group in named]
        return max((group.delay for group in groups if group.delay is not None), default=None)

    def statements(self, url: str) -> Iterator[tuple[str, str, str]]:
        """Yield (robot, name, text) of what is said of the use of `url` beside allow and disallow.

        Names are USAGE and SIGNAL, with the preferences for a text, and AI_TRAINING and NOINDEX, with the line. Of each
        name and robot those of the longest path that matches apply, separately (draft-ietf-aipref-attach, section 3.1).
        """
        path = url_path(url)
        by_group = {id(group): group.statements(path) for group in self._groups if group.said}
        for agent, groups in self._by_agent.items():
            stated = [by_group[id(group)] for group in groups if id(group) in by_group]
            for name in dict.fromkeys(name for one in stated for name in one):
                found = [one[name] for one in stated if name in one]
                longest = max(length for length, _ in found)
                texts = [text for length, texts in found if length == longest for text in texts]
                yield from ((agent, name, text) for text in dict.fromkeys(texts[:MOST_STATEMENTS]))

    def content_usage(self, url: str) -> tuple[tuple[str, str], ...]:
        """Return (robot, preferences) of the Content-Usage lines that apply to `url`."""
        return tuple((agent, text) for agent, name, text in self.statements(url) if name == USAGE)


def _record(line: str, ai_txt: bool) -> tuple[str, str] | None:
    """Return (name, value) of a line; a blank may stand for the colon, as Google and Protego read it.

    A name that is not known gives None: such a record neither says nor ends anything (section 2.2.4).
    """
    before, colon, value = line.partition(":")
    if colon and (name := _named(before.strip().lower(), ai_txt)):
        return name, value.strip()
    if colon and (not value or value[0].isspace()):
        return None  # a record of another name
    words = line.split(None, 2)
    for number in (1, 2):
        name = _named(" ".join(words[:number]).lower(), ai_txt)
        # An opening line must be plain: Google takes no more than two words.
        if name and len(words) > number and (name != "allow" or len(words) == 2):
            return name, line.split(None, number)[number].strip()
    return None


def _named(name: str, ai_txt: bool) -> str | None:
    if name in _NAMES:
        return _NAMES[name]
    if ai_txt and name in _NAMES_OF_AI_TXT:
        return _NAMES_OF_AI_TXT[name]
    if not name.startswith(_ANY_BEGINNING):
        return None
    return next(known for beginning, known in _BEGINNINGS.items() if name.startswith(beginning))


def _best(rules: Iterable[Rule | None]) -> Rule | None:
    best: Rule | None = None
    for rule in rules:
        if rule is not None and (best is None or _rank(rule) > _rank(best)):
            best = rule
    return best


def _state(group: _Group, name: str, value: str, line: str) -> None:
    """Add what is neither allowed nor forbidden to a group: a pause, a preference."""
    if name == "crawl-delay":
        try:
            delay = float(value)
        except ValueError:
            return
        if delay >= 0 and math.isfinite(delay):
            group.delay = max(delay, group.delay or 0.0)
    elif len(group.said) < MOST_STATEMENTS and value:
        if name in (AI_TRAINING, NOINDEX):
            group.said.append((name, pattern_path(value), line))
            return
        path, text = "/", value
        if value.startswith("/"):
            path, *rest = value.split(None, 1)  # SP or HTAB
            text = rest[0] if rest else ""
        group.said.append((name, pattern_path(path), text))


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


@lru_cache(maxsize=256)
def names_of(user_agent: str) -> tuple[str, ...]:
    """Return the names by which robots.txt may speak of the robot with this User-Agent header, in lower case.

    A header that begins like a browser's names the robot in a comment.

    >>> names_of("Headwater/0.1 (+https://h.example/bot)")
    ('headwater',)
    >>> names_of("Mozilla/5.0 (compatible; MyBot/1.0; +https://h.example/bot) Chrome/99")
    ('mybot',)
    """
    outside, comments = [], []
    for part in user_agent[:1000].split("("):
        inside, closed, after = part.partition(")")
        if closed:
            comments += inside.split(";")
        outside += (after if closed else part).split()
    products = [word for number, word in enumerate(outside) if number == 0 or "/" in word]
    commented = [one for one in map(str.strip, comments) if _NAMED_IN_COMMENT.fullmatch(one)]
    if product_token(user_agent) in _BROWSERS:
        products += [one for one in commented if "/" in one] or commented
    found = [token for token in map(product_token, products) if token and token not in _BROWSERS]
    return tuple(dict.fromkeys(found or filter(None, [product_token(user_agent)])))


def url_path(url: str) -> str:
    """Return what the patterns are matched against: path and query, normalised; "/" where it is no URL.

    The two characters that mean something in a pattern are escaped, as a pattern that means them is (section 2.2.3).
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "/"
    path = normal_path((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    return path.replace("*", "%2A").replace("$", "%24")


def pattern_path(pattern: str) -> str:
    """Return a pattern in its one spelling; a "$" that is not its end is an ordinary character.

    >>> pattern_path("/a$b$"), pattern_path("caf\u00e9*")
    ('/a%24b$', '/caf%C3%A9*')
    """
    normal = normal_path(pattern)
    return normal if "$" not in normal[:-1] else normal[:-1].replace("$", "%24") + normal[-1]


def normal_path(path: str) -> str:
    """Return a path or pattern in the one spelling in which two are compared (section 2.2.2).

    >>> normal_path("/caf\u00e9/%7ejoe%2fx"), normal_path("private")
    ('/caf%C3%A9/~joe%2Fx', '/private')
    """
    if _PLAIN.fullmatch(path):
        return path
    normal = percent_form(quote(path.encode("utf-8", "replace"), safe=_PRINTABLE))
    return normal if normal.startswith(("/", "*")) else f"/{normal}"


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
