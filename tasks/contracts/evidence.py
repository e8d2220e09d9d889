"""What a page and its host say about being used: read once into signals, judged by a policy as often as one likes.

The crawl reads them at fetch time and stores them beside the response; extract reads those, and from pages of
other archives what their headers and HTML hold; `headwater policy check` judges the stored ones again. All three
use this module, so one page gets one verdict. It needs no parse tree: a scan for a few tags works for any engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydantic import Field, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.licences import absolute, is_creative_commons, is_licence, marked_licence
from tasks.contracts.markup import tags
from tasks.contracts.robots import EVERYONE, Robots, matches, url_path

Action = Literal["drop", "mark", "keep"]
Place = Literal["header", "meta", "robots.txt", "tdmrep.json", "ai.txt"]

CONTENT_TYPE = "application/vnd.headwater.evidence+json"
ROBOT_WORDS = frozenset({"noai", "noimageai", "noindex", "nosnippet"})
# Preferences that speak of training a model on text, the most specific first (draft-ietf-aipref-vocab; the first two
# names are of its successive versions, the last two cover all automated processing).
TRAINING_USES = ("train-genai", "train-ai", "ai", "bots", "all")
# What a site says of these uses it says to whoever trains a model, whichever robot it names.
ABOUT_AI = frozenset({"noai", "noimageai", "tdm-reservation", "content-usage"})
AI_ROBOTS = (
    "GPTBot", "CCBot", "Google-Extended", "ClaudeBot", "anthropic-ai", "Applebot-Extended", "Meta-ExternalAgent",
    "FacebookBot", "Bytespider", "cohere-training-data-crawler", "Amazonbot", "AI2Bot", "Diffbot", "omgili",
)  # fmt: skip
_ASKED_ABOUT = frozenset({EVERYONE, "headwater", *(robot.lower() for robot in AI_ROBOTS)})
# Directives of robots metas that have a value behind a colon, and so are no robot's name.
VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_ROBOT_NAME = re.compile(r"robots|[\w-]*(?:bot|crawler|spider|-extended|-ai|externalagent)", re.I)
_STOP_OF_LINK = re.compile(r'[,<"]')
_OF_LINK = {name: re.compile(rf'\b{name}\s*=\s*"?([^";]*)', re.I) for name in ("rel", "type")}
# Enough to look closer: a page in other capitals than these has not been seen.
_LICENSE_WORDS = ("license", "License", "LICENSE", "rights", "Rights", "RIGHTS", "creativecommons")
MOST_LICENSES = 8
MOST_LICENSE_CHARACTERS = 500
MOST_SIGNALS = 200  # kept of one page; those to everyone and to known robots of AI first
MOST_SIGNAL_CHARACTERS = 500  # of a robot's name, and of the words behind a signal
_META = frozenset({"meta"})
_OF_LICENSES = frozenset({"meta", "link", "a", "area"})


@dataclass(frozen=True, slots=True, order=True)
class Signal:
    """One reservation, as it was said.

    Attributes:
        name: "noai", "noimageai", "noindex", "nosnippet", "tdm-reservation", "content-usage" or "disallow".
        agent: whom it addresses, in lower case; "*" is everyone.
        value: the words behind it: a rule's line, the preferences, a TDM policy's URL.
    """

    place: Place
    name: str
    agent: str = EVERYONE
    value: str = ""

    def __str__(self) -> str:
        """Return it as `Document.opt_out` holds it: "meta:noai", "header:noindex@googlebot"."""
        return f"{self.place}:{self.name}" + ("" if self.agent == EVERYONE else f"@{self.agent}")

    @classmethod
    def parse(cls, text: str) -> Signal:
        """Read it back from `Document.opt_out`; the value is not in there.

        >>> Signal.parse("robots.txt:disallow@gptbot")
        Signal(place='robots.txt', name='disallow', agent='gptbot', value='')
        """
        place, _, rest = text.partition(":")
        name, _, agent = rest.partition("@")
        return cls(place, name, agent or EVERYONE)  # type: ignore[arg-type]


class OptOutPolicy(FrozenModel):
    """What each signal does to a document: drop it, mark it (a note in the ledger), or keep it as it is."""

    noai: Action = "drop"
    """`noai` in X-Robots-Tag or a robots meta element."""
    noimageai: Action = "drop"
    """`noimageai` there: of the page's pictures only, by its words."""
    noindex: Action = "drop"
    """`noindex` (or `none`) there: not to be found by search."""
    nosnippet: Action = "mark"
    """`nosnippet` there: not to be quoted in search results."""
    tdm_reservation: Action = "drop"
    """TDMRep: `tdm-reservation: 1` as a header, a meta element or in /.well-known/tdmrep.json."""
    content_usage: Action = "drop"
    """AIPREF: `Content-Usage: train-ai=n` as a header or in robots.txt."""
    ai_txt: Action = "drop"
    """/ai.txt closes the page, or texts."""
    robots_txt: Action = "drop"
    """robots.txt closes the page to one of `agents`, though not to this crawler."""
    agents: tuple[str, ...] = ("Headwater", *AI_ROBOTS)
    """Robots whose noindex, nosnippet and disallow count besides what is said to everyone."""

    def action(self, signal: Signal) -> Action:
        """Return what this policy does at one signal."""
        if signal.name == "disallow":
            # "*" in robots.txt is what the crawl itself obeyed, or (other archives) its crawler did.
            named = signal.agent in self._agents() or (signal.place == "ai.txt" and signal.agent == EVERYONE)
            return (self.ai_txt if signal.place == "ai.txt" else self.robots_txt) if named else "keep"
        if signal.name not in ABOUT_AI and signal.agent != EVERYONE and signal.agent not in self._agents():
            return "keep"
        found: Action = getattr(self, signal.name.replace("-", "_"), "keep")
        return found

    def _agents(self) -> frozenset[str]:
        return frozenset(agent.lower() for agent in self.agents)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy makes of a page's signals: the strictest action, and the signals that ask for it."""

    action: Action
    because: tuple[Signal, ...] = ()


def judge(signals: Iterable[Signal | str], policy: OptOutPolicy) -> Verdict:
    """Return the verdict on signals as read, or as `Document.opt_out` holds them.

    >>> judge(["meta:noai", "header:nosnippet"], OptOutPolicy()).because
    (Signal(place='meta', name='noai', agent='*', value=''),)
    """
    by_action: dict[Action, list[Signal]] = {"drop": [], "mark": [], "keep": []}
    for each in signals:
        signal = Signal.parse(each) if isinstance(each, str) else each
        by_action[policy.action(signal)].append(signal)
    for action in ("drop", "mark"):
        if by_action[action]:
            return Verdict(action, tuple(by_action[action]))
    return Verdict("keep")


class RobotsVerdict(FrozenModel):
    """How robots.txt was obeyed for one URL."""

    record_id: str = ""
    """The WARC record that holds the file; "" where the host has none."""
    user_agent: str
    allowed: bool
    agent: str = ""
    rule: str = ""


class Certificate(FrozenModel):
    """The certificate that the page's server showed."""

    sha256: str
    """Fingerprint: the SHA-256 (hex) of the certificate in DER."""
    problem: str = ""
    """What is wrong with it, where crawl.insecure_hosts let it pass; "" where it was checked and right."""


class Evidence(FrozenModel):
    """What was seen when a page was fetched: the content of its metadata record."""

    url: str
    robots: RobotsVerdict
    files: dict[str, str] = Field(default={})
    """Name of a policy file ("ai.txt") → the WARC record that holds it."""
    certificate: Certificate | None = None
    """None for a page that came without TLS."""
    signals: tuple[Signal, ...] = ()
    licenses: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Return it as canonical JSON."""
        fields = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(fields, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_evidence(content: bytes) -> Evidence | None:
    """Read a metadata record's content; None where it is something else."""
    try:
        return Evidence.model_validate_json(content)
    except ValidationError:
        return None


def most_telling(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """Return signals sorted, each once and short; of very many, first those that policies ask about."""
    short = {
        Signal(s.place, s.name, s.agent[:MOST_SIGNAL_CHARACTERS], s.value[:MOST_SIGNAL_CHARACTERS]) for s in signals
    }
    if len(short) > MOST_SIGNALS:
        short = set(sorted(short, key=lambda signal: (signal.agent not in _ASKED_ABOUT, signal))[:MOST_SIGNALS])
    return tuple(sorted(short))


def page_signals(headers: Iterable[tuple[str, str]], text: str) -> tuple[Signal, ...]:
    """Return what a page's HTTP headers and HTML reserve, sorted, each once."""
    return most_telling([*header_signals(headers), *html_signals(text)])


def header_signals(headers: Iterable[tuple[str, str]]) -> Iterator[Signal]:
    """Yield the signals of HTTP headers: X-Robots-Tag, TDM-Reservation, Content-Usage."""
    pairs = [(name.lower(), value) for name, value in headers]
    policy = next((value.strip() for name, value in pairs if name == "tdm-policy"), "")
    for name, value in pairs:
        yield from _said("header", name, value, policy)


@lru_cache(maxsize=1)  # a page's signals and what it says about itself are asked for one after the other
def meta_elements(text: str) -> tuple[Mapping[str, str], ...]:
    """Return the attributes of each meta element of a page; comments, scripts and styles are left out."""
    return tuple(attributes for _, attributes in tags(text, _META))


def html_signals(text: str) -> Iterator[Signal]:
    """Yield the signals of a page's meta elements."""
    metas = meta_elements(text)
    named = [((m.get("name") or m.get("http-equiv") or "").strip().lower(), m.get("content") or "") for m in metas]
    policy = next((content.strip() for name, content in named if name == "tdm-policy"), "")
    for name, content in named:
        yield from _said("meta", name, content, policy)


def _said(place: Place, name: str, value: str, tdm_policy: str) -> Iterator[Signal]:
    if name == "tdm-reservation":
        if value.strip() == "1":
            yield Signal(place, "tdm-reservation", value=tdm_policy)
    elif name == "content-usage":
        if refuses_training(value):
            yield Signal(place, "content-usage", value=value.strip())
    elif name == "x-robots-tag" or (place == "meta" and _ROBOT_NAME.fullmatch(name)):
        general = name in ("x-robots-tag", "robots")
        for agent, word in _robot_words(value, EVERYONE if general else name):
            yield Signal(place, word, agent)


def _robot_words(value: str, agent: str) -> Iterator[tuple[str, str]]:
    """Yield (robot, word) of a list such as "googlebot: noindex, noai": a name holds until the next one."""
    for part in value.lower().split(","):
        name, colon, word = part.rpartition(":")
        name = name.strip()
        if colon and name and name.partition(":")[0].strip() not in VALUED:
            agent = EVERYONE if name in ("*", "robots") else name
        word = word.strip()
        if word == "none":
            yield agent, "noindex"
        elif word in ROBOT_WORDS:
            yield agent, word


def refuses_training(preferences: str) -> bool:
    """Tell whether AIPREF preferences say no to training; the most specific use that is named decides.

    >>> refuses_training("train-ai=n, search=y"), refuses_training("bots=n, train-ai=y")
    (True, False)
    """
    stated: dict[str, str] = {}
    for part in preferences.lower().split(","):
        use, _, answer = part.partition("=")
        stated[use.strip()] = answer.partition(";")[0].strip()
    return next((stated[use] == "n" for use in TRAINING_USES if use in stated), False)


def host_signals(robots: Robots | None, tdmrep: bytes | None, ai_txt: bytes | None, url: str) -> Iterator[Signal]:
    """Yield what a host's files reserve for one of its pages; None stands for a file that is not there."""
    if robots is not None:
        yield from (Signal("robots.txt", "disallow", agent, rule) for agent, rule in robots.closing(url).items())
        for agent, preferences in robots.content_usage(url):
            if refuses_training(preferences):
                yield Signal("robots.txt", "content-usage", agent, preferences)
    if tdmrep is not None and (found := _tdm_location(tdmrep, url)) is not None:
        yield Signal("tdmrep.json", "tdm-reservation", value=found)
    if ai_txt is not None:
        rules = _rules_of(ai_txt)
        # The file's usual lines close kinds of files ("Disallow: *.txt"); a page is text, whatever its path ends in.
        base = url.split("?")[0].rstrip("/")
        closing = [rules.closing(one) for one in (url, f"{base}/x.txt", f"{base}/x.html")]
        for agent in rules.agents:
            if closed := next((one[agent] for one in closing if agent in one), None):
                yield Signal("ai.txt", "disallow", agent, closed)


# A host's files are asked about each of its pages.
_rules_of = lru_cache(maxsize=8)(Robots)


def _tdm_location(content: bytes, url: str) -> str | None:
    """Return the TDM policy's URL ("" for none) where /.well-known/tdmrep.json reserves a page, else None.

    The longest matching location decides, a reservation at equal length (TDMRep, section 6.1, which takes its
    patterns from robots.txt).
    """
    path = url_path(url)
    for (_, reserved, policy), location in _tdm_entries(content):
        if matches(location, path):
            return policy if reserved else None
    return None


@lru_cache(maxsize=8)
def _tdm_entries(content: bytes) -> tuple[tuple[tuple[int, bool, str], str], ...]:
    """Return the entries of a tdmrep.json by rank, the deciding one first: (length, reserved, policy), location."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return ()
    ranked = []
    for entry in entries if isinstance(entries, list) else []:
        location = entry.get("location") if isinstance(entry, dict) else None
        if isinstance(location, str):
            reserved = str(entry.get("tdm-reservation")) == "1"
            ranked.append(((len(location), reserved, str(entry.get("tdm-policy") or "")), location))
    return tuple(sorted(ranked, reverse=True))


def find_licenses(headers: Iterable[tuple[str, str]], text: str, url: str) -> tuple[str, ...]:
    """Return the licences that a page at `url` links to, the plainest statement first.

    The order: elements with rel=license, the Link header, licence meta elements, links to Creative Commons.
    """
    stated: list[str] = []
    metas: list[str] = []
    linked: list[str] = []
    if any(word in text for word in _LICENSE_WORDS):
        for tag, attributes in tags(text, _OF_LICENSES, of_licenses=frozenset({"a", "area"})):
            if tag == "meta":
                if (attributes.get("name") or "").strip().lower() in ("license", "dc.rights", "dcterms.license"):
                    metas.append((attributes.get("content") or "").strip())
            elif (target := marked_licence(attributes)) is not None:
                stated.append(target)
            elif is_creative_commons(href := (attributes.get("href") or "").strip()):
                linked.append(href)
    for name, value in headers:
        if name.lower() == "link":
            for target, parameters in _linked(value):
                said = {name: match[1] for name, one in _OF_LINK.items() if (match := one.search(parameters))}
                if (marked := marked_licence({"href": target, **said})) is not None:
                    stated.append(marked)
    found = [absolute(one, url)[:MOST_LICENSE_CHARACTERS] for one in (*stated, *metas, *linked) if is_licence(one)]
    return tuple(dict.fromkeys(found))[:MOST_LICENSES]


def _linked(value: str) -> Iterator[tuple[str, str]]:
    """Yield (target, parameters) of each link of a Link header field (RFC 8288, section 3)."""
    position = 0
    while (start := value.find("<", position)) >= 0 and (end := value.find(">", start)) >= 0:
        position = _end_of_parameters(value, end + 1)
        yield value[start + 1 : end], value[end + 1 : position]


def _end_of_parameters(value: str, position: int) -> int:
    """Return where a link's parameters end: at a comma or a "<" that no quotes are around."""
    while (stop := _STOP_OF_LINK.search(value, position)) is not None:
        if stop[0] != '"':
            return stop.start()
        close = value.find('"', stop.end())
        if close < 0:
            break
        position = close + 1
    return len(value)
