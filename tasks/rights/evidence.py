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
from tasks.contracts.markup import tags
from tasks.rights.ai_robots import AI_ROBOTS, GATHERERS
from tasks.rights.licences import absolute, is_creative_commons, is_licence, is_terms, marked_licence, target_of
from tasks.rights.preferences import refuses_by_signal, refuses_training
from tasks.rights.robot_words import RESERVING, robot_words
from tasks.rights.robots import AI_TRAINING, EVERYONE, NOINDEX, SIGNAL, USAGE, Robots, names_of, product_token
from tasks.rights.tdmrep import reservation_of, reserved

Action = Literal["drop", "mark", "keep"]
Place = Literal["header", "meta", "html", "robots.txt", "tdmrep.json", "ai.txt"]

OWN_CRAWLS = ("sample", "sites")
"""Sources whose records we wrote: evidence, and the files of hosts that it names, stand in the snapshot."""
CONTENT_TYPE = "application/vnd.headwater.evidence+json"
READER = 2
"""Raised whenever these readers see more, or less, in the same bytes: evidence of older ones is read anew."""
# What a site says of these uses it says to whoever trains a model, whichever robot it names.
ABOUT_AI = frozenset({
    "noai", "noimageai", "noml", "disallowaitraining", "tdm-reservation", "content-usage", "content-signal", "rsl",
})  # fmt: skip
# Signals that are judged as another one.
_JUDGED_AS = {"noml": "noai", "disallowaitraining": "noai", "nocache": "noarchive"}
OWN_NAME = "Headwater"  # of this software; what is said to it counts, whatever name a crawl goes by
_ASKED_ABOUT = frozenset({EVERYONE, *map(product_token, (OWN_NAME, *GATHERERS))})
_ROBOT_NAME = re.compile(r"robots|[\w-]*(?:bot|crawler|spider|-extended|-ai|externalagent)", re.I)
_AI_NAMES = frozenset(name.lower() for name in (OWN_NAME, *AI_ROBOTS))
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
_OF_RSL = frozenset({"link", "a", "area", "script"})


@dataclass(frozen=True, slots=True, order=True)
class Signal:
    """One reservation, as it was said.

    Attributes:
        name: a robot's word ("noai", "noindex", …), "tdm-reservation", "content-usage", "content-signal", "rsl" or
            "disallow".
        agent: whom it addresses, a product token in lower case; "*" is everyone.
        value: the words behind it: a rule's line, the preferences, the URL of a TDM policy or of RSL terms.
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
    """`noai` or `noml` in X-Robots-Tag or a robots meta element; `DisallowAITraining` there or in robots.txt."""
    noimageai: Action = "drop"
    """`noimageai` there: of the page's pictures only, by its words."""
    noindex: Action = "drop"
    """`noindex` (or `none`) there: not to be found by search."""
    nosnippet: Action = "mark"
    """`nosnippet` there: not to be quoted in search results."""
    noarchive: Action = "mark"
    """`noarchive` or `nocache` there: no copy in search results; Bing trains no model on such pages."""
    tdm_reservation: Action = "drop"
    """TDMRep: `tdm-reservation: 1` as a header, a meta element or in /.well-known/tdmrep.json."""
    content_usage: Action = "drop"
    """AIPREF: `Content-Usage: train-ai=n` as a header, a meta element or in robots.txt."""
    content_signal: Action = "drop"
    """Content Signals: `Content-Signal: ai-train=no` there."""
    rsl: Action = "drop"
    """RSL 1.0: terms to be agreed on first, named in robots.txt, a Link header or the page's HTML, or written in it."""
    ai_txt: Action = "drop"
    """/ai.txt closes the page, or texts."""
    robots_txt: Action = "drop"
    """robots.txt closes the page to one of `agents`, though not to this crawler."""
    agents: tuple[str, ...] = (OWN_NAME, *GATHERERS)
    """Robots whose noindex, nosnippet and disallow count besides what is said to everyone."""

    def of_crawl(self, user_agent: str) -> OptOutPolicy:
        """Return it with the names of the crawl's own robot among the agents."""
        return self.model_copy(update={"agents": tuple(dict.fromkeys((*self.agents, *names_of(user_agent))))})

    def action(self, signal: Signal) -> Action:
        """Return what this policy does at one signal."""
        named = product_token(signal.agent) in _tokens(self.agents)
        if signal.name == "disallow":
            # "*" in robots.txt is what the crawl itself obeyed, or (other archives) its crawler did.
            if not named and not (signal.place == "ai.txt" and signal.agent == EVERYONE):
                return "keep"
            return self.ai_txt if signal.place == "ai.txt" else self.robots_txt
        if signal.name not in ABOUT_AI and signal.agent != EVERYONE and not named:
            return "keep"
        field = _JUDGED_AS.get(signal.name, signal.name).replace("-", "_")
        known = field != "agents" and field in type(self).model_fields
        return getattr(self, field) if known else "keep"


@lru_cache(maxsize=8)
def _tokens(agents: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(product_token, agents))


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
    reader: int = 1
    """Which `READER` read it; records that do not say so are of the first."""
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


def most_telling(signals: Iterable[Signal], names: tuple[str, ...] = ()) -> tuple[Signal, ...]:
    """Return signals sorted, each once and short; of very many, first those that policies ask about.

    Args:
        names: of the crawl's own robot.
    """
    short = {
        Signal(s.place, s.name, s.agent[:MOST_SIGNAL_CHARACTERS], s.value[:MOST_SIGNAL_CHARACTERS]) for s in signals
    }
    if len(short) > MOST_SIGNALS:
        asked = _ASKED_ABOUT.union(names)
        short = set(sorted(short, key=lambda signal: (signal.agent not in asked, signal))[:MOST_SIGNALS])
    return tuple(sorted(short))


def page_signals(headers: Iterable[tuple[str, str]], text: str, names: tuple[str, ...] = ()) -> tuple[Signal, ...]:
    """Return what a page's HTTP headers and HTML reserve, sorted, each once.

    Args:
        names: of the crawl's own robot, whom a meta element may address.
    """
    return most_telling([*header_signals(headers), *html_signals(text, names)], names)


def header_signals(headers: Iterable[tuple[str, str]]) -> Iterator[Signal]:
    """Yield the signals of HTTP headers: X-Robots-Tag, TDM-Reservation, Content-Usage, Content-Signal, Link."""
    pairs = [(name.lower(), value) for name, value in headers]
    policy = next((value.strip() for name, value in pairs if name == "tdm-policy"), "")
    for name, value in pairs:
        yield from _said("header", name, value, policy)
        if name == "link":
            for target, parameters in _linked(value):
                if is_terms(_said_of(parameters)):
                    yield Signal("header", "rsl", value=target.strip())


@lru_cache(maxsize=1)  # a page's signals and what it says about itself are asked for one after the other
def meta_elements(text: str) -> tuple[Mapping[str, str], ...]:
    """Return the attributes of each meta element of a page; comments, scripts and styles are left out."""
    return tuple(attributes for _, attributes in tags(text, _META))


def html_signals(text: str, names: tuple[str, ...] = ()) -> Iterator[Signal]:
    """Yield the signals of a page's elements: metas, links to RSL terms, scripts that hold them.

    Args:
        names: of the crawl's own robot, whom a meta element may address.
    """
    named = [(name, m.get("content") or "") for m in meta_elements(text) for name in _names_of_meta(m)]
    policy = next((content.strip() for name, content in named if name in ("tdm-policy", "tdm:policy")), "")
    for name, content in named:
        yield from _said("meta", name, content, policy, names)
    if "rsl" in text.lower():
        for _, attributes in tags(text, _OF_RSL):
            if is_terms(attributes):
                yield Signal("html", "rsl", value=(attributes.get("href") or "").strip())


def _names_of_meta(attributes: Mapping[str, str]) -> Iterator[str]:
    for attribute in ("name", "http-equiv", "property"):
        for name in attributes.get(attribute, "").lower().split(","):
            if name.strip():
                yield name.strip()


def _said(place: Place, name: str, value: str, tdm_policy: str, names: tuple[str, ...] = ()) -> Iterator[Signal]:
    if name in ("tdm-reservation", "tdm:reservation"):
        if reserved(value):
            yield Signal(place, "tdm-reservation", value=tdm_policy)
    elif name == "content-usage":
        if refuses_training(value):
            yield Signal(place, "content-usage", value=value.strip())
    elif name in ("content-signal", "content-signals"):
        if refuses_by_signal(value):
            yield Signal(place, "content-signal", value=value.strip())
    elif name == "x-robots-tag" or (place == "meta" and _names_a_robot(name, names)):
        general = name in ("x-robots-tag", "robots")
        for agent, word in robot_words(value, EVERYONE if general else product_token(name)):
            if word in RESERVING:
                yield Signal(place, word, agent)


def _names_a_robot(name: str, names: tuple[str, ...]) -> bool:
    bare = name.partition("/")[0].strip()
    return bare in names or bare in _AI_NAMES or _ROBOT_NAME.fullmatch(bare) is not None


def host_signals(robots: Robots | None, tdmrep: bytes | None, ai_txt: bytes | None, url: str) -> Iterator[Signal]:
    """Yield what a host's files reserve for one of its pages; None stands for a file that is not there."""
    if robots is not None:
        yield from (Signal("robots.txt", "disallow", agent, rule) for agent, rule in robots.closing(url).items())
        yield from (Signal("robots.txt", "rsl", value=address) for address in robots.licenses)
        for agent, name, text in robots.statements(url):
            if (name == USAGE and refuses_training(text)) or (name == SIGNAL and refuses_by_signal(text)):
                yield Signal("robots.txt", name, agent, text)
            elif name == AI_TRAINING and text.lower().startswith("disallow"):
                yield Signal("robots.txt", "disallowaitraining", agent, text)
            elif name == NOINDEX:
                yield Signal("robots.txt", "noindex", agent, text)
    if tdmrep is not None and (policy := reservation_of(tdmrep, url)) is not None:
        yield Signal("tdmrep.json", "tdm-reservation", value=policy)
    if ai_txt is not None:
        rules = _ai_txt(ai_txt)
        # The file's usual lines close kinds of files ("Disallow: *.txt"); a page is text, whatever its path ends in.
        base = url.split("?")[0].rstrip("/")
        closing = [rules.closing(one) for one in (url, f"{base}/x.txt", f"{base}/x.html")]
        for agent in rules.agents:
            if closed := next((one[agent] for one in closing if agent in one), None):
                yield Signal("ai.txt", "disallow", agent, closed)
        for agent, name, text in rules.statements(url):
            if (name == USAGE and refuses_training(text)) or (name == SIGNAL and refuses_by_signal(text)):
                yield Signal("ai.txt", name, agent, text)


@lru_cache(maxsize=8)  # a host's file is asked about each of its pages
def _ai_txt(content: bytes) -> Robots:
    return Robots(content, ai_txt=True)


def find_licenses(
    headers: Iterable[tuple[str, str]], text: str, url: str, terms: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the licences that a page at `url` links to, the plainest statement first.

    The order: elements with rel=license, the Link header, licence meta elements, links to Creative Commons. Terms by
    RSL are no licence, whatever names them: they reserve.

    Args:
        terms: addresses of RSL terms that the page's host names.
    """
    stated: list[str] = []
    metas: list[str] = []
    linked: list[str] = []
    reserving = {absolute(target_of({"href": one}), url) for one in terms}
    if any(word in text for word in _LICENSE_WORDS):
        for tag, attributes in tags(text, _OF_LICENSES, of_licenses=frozenset({"a", "area"})):
            if tag == "meta":
                if (attributes.get("name") or "").strip().lower() in ("license", "dc.rights", "dcterms.license"):
                    metas.append((attributes.get("content") or "").strip())
            elif is_terms(attributes):
                reserving.add(absolute(target_of(attributes), url))
            elif (target := marked_licence(attributes)) is not None:
                stated.append(target)
            elif is_creative_commons(href := (attributes.get("href") or "").strip()):
                linked.append(href)
    for name, value in headers:
        if name.lower() == "link":
            for target, parameters in _linked(value):
                said = {"href": target, **_said_of(parameters)}
                if is_terms(said):
                    reserving.add(absolute(target_of(said), url))
                elif (marked := marked_licence(said)) is not None:
                    stated.append(marked)
    found = [absolute(one, url) for one in (*stated, *metas, *linked) if is_licence(one)]
    found = [one[:MOST_LICENSE_CHARACTERS] for one in found if one not in reserving]
    return tuple(dict.fromkeys(found))[:MOST_LICENSES]


def _said_of(parameters: str) -> dict[str, str]:
    """Return what a link's parameters in a Link header say of its relation and type."""
    return {name: match[1] for name, one in _OF_LINK.items() if (match := one.search(parameters))}


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
