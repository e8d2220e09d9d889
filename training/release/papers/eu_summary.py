"""eu_ai_act_summary.md and .json: the public summary of the training content, Regulation (EU) 2024/1689, Art. 53(1)(d).

Its sections are those of the European Commission's template: C(2025) 8311 final of 5 December 2025, as it was first
published on 24 July 2025. Both files are made from one tree, so they say the same. What the pipeline knows is filled
in; what only the provider knows is taken from `release.statement`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from training.release.papers.data_card import filter_rules, opt_out_policy, withheld
from training.release.papers.facts import Facts
from training.release.papers.markdown import counted, many, page, share_of, table
from training.release.papers.sources import Share

# The template's size classes of text, and its share of domains; SMEs may name fewer (whichever is lower).
BILLION, TEN_TRILLION = 10**9, 10**13
DOMAINS_SHARE, SME_DOMAINS_SHARE, SME_DOMAINS = 0.10, 0.05, 1000
CRAWLED = ("sample", "sites")
# "Explanatory Notice and Template for the Public Summary of Training Content for general-purpose AI models required by
# Article 53(1)(d) of Regulation (EU) 2024/1689", a communication from the Commission.
TEMPLATE, TEMPLATE_DATE, TEMPLATE_DAY = "C(2025) 8311 final", "2025-12-05", "5 December 2025"
# Of the notice: every six months, sooner where new training data warrants it.
UPDATES = (
    "Due every six months where the model is trained further on other data, sooner where that changes this summary. "
    "Each release of this pipeline has a summary of its own"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question of the template with its answer, and a table where the answer is a list."""

    asks: str
    answer: str
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str | int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One numbered section of the template."""

    number: str
    title: str
    items: tuple[Item, ...] = ()


def eu_summary_markdown(facts: Facts) -> bytes:
    """Return eu_ai_act_summary.md."""
    lines = [f"# Public summary of the training content of {facts.name}", ""]
    lines += [
        "Regulation (EU) 2024/1689 (AI Act), Article 53(1)(d), in the sections of the European Commission's template, "
        f"{TEMPLATE} of {TEMPLATE_DAY}. Figures are written from the manifests of the release; what only the provider "
        "can say is marked MISSING until `release.statement` in params.yaml says it.",
        "",
    ]
    for section in summary(facts):
        lines += [f"{'#' * (2 + section.number.count('.'))} {section.number} {section.title}", ""]
        if section.items:
            lines += table(["asked", "answer"], ((item.asks, item.answer) for item in section.items))
        for item in section.items:
            if item.headers:
                lines += [f"{item.asks}:", "", *table(item.headers, item.rows, right=1)]
    return page(lines)


def eu_summary_json(facts: Facts) -> bytes:
    """Return eu_ai_act_summary.json."""
    found = {
        "release": str(facts.serial),
        "template": {"reference": TEMPLATE, "date": TEMPLATE_DATE},
        "sections": [asdict(section) for section in summary(facts)],
    }
    return json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n"


def summary(facts: Facts) -> tuple[Section, ...]:
    """Return the whole summary."""
    return (
        Section(number="1", title="General information", items=_version(facts)),
        Section(number="1.1", title="Provider identification", items=_provider(facts)),
        Section(number="1.2", title="Model identification", items=_model(facts)),
        Section(
            number="1.3",
            title="Modalities, overall size and other characteristics of the training data",
            items=_size(facts),
        ),
        Section(number="2", title="List of data sources"),
        Section(number="2.1", title="Publicly available datasets", items=_public(facts)),
        Section(number="2.2", title="Private, not publicly available datasets obtained from third parties"),
        Section(
            number="2.2.1", title="Commercially licensed by rightsholders or representatives", items=_licensed(facts)
        ),
        Section(number="2.2.2", title="Obtained from other third parties", items=_third_party(facts)),
        Section(number="2.3", title="Data crawled and scraped from online sources", items=_crawled(facts)),
        Section(number="2.4", title="User data", items=_asked(facts, "Data of users was used", "user_data")),
        Section(
            number="2.5",
            title="Synthetic data",
            items=_asked(facts, "Text made by AI models was used", "synthetic_data"),
        ),
        Section(number="2.6", title="Other sources of data", items=(_said(facts, "Other sources", "other_data"),)),
        Section(number="3", title="Data processing aspects"),
        Section(
            number="3.1", title="Respect of reservation of rights from text and data mining", items=_reserved(facts)
        ),
        Section(number="3.2", title="Removal of illegal content", items=_illegal(facts)),
        Section(number="3.3", title="Other information", items=_other(facts)),
    )


def _said(facts: Facts, asks: str, name: str) -> Item:
    return Item(asks=asks, answer=facts.said(name))


def _asked(facts: Facts, asks: str, name: str) -> tuple[Item, ...]:
    """Return a yes or no of the provider, with the details that a yes asks for."""
    first = _said(facts, asks, name)
    return (first, _said(facts, "Description", "data_details")) if getattr(facts.statement, name) else (first,)


def _version(facts: Facts) -> tuple[Item, ...]:
    return (
        Item(asks="Template", answer=f"{TEMPLATE} of {TEMPLATE_DAY}"),
        Item(asks="Version of this summary", answer=f"That of release {facts.serial}"),
        Item(asks="Updates", answer=UPDATES),
    )


def _provider(facts: Facts) -> tuple[Item, ...]:
    return (
        _said(facts, "Name of the provider", "provider_name"),
        _said(facts, "Contact", "provider_contact"),
        _said(facts, "Authorised representative in the Union", "authorised_representative"),
        _said(facts, "Small or medium-sized enterprise", "sme"),
    )


def _model(facts: Facts) -> tuple[Item, ...]:
    return (
        Item(asks="Name and version of the model", answer=f"{facts.name}, release {facts.serial}"),
        *(Item(asks=f"SHA-256 of {file.name}", answer=file.sha256) for file in facts.weight_files),
        Item(asks="Tensor hash", answer=str(facts.training["weights_sha256"])),
        Item(asks="Models that it is made from", answer=_bases(facts)),
        _said(facts, "Placed on the Union market", "placed_on_market"),
    )


def _bases(facts: Facts) -> str:
    if facts.base is None:
        return "None: trained from random weights"
    return (
        f"{facts.base.name} (release {facts.base.release}), whose own summary tells its training content: this one "
        "tells what was added"
    )


def size_class(tokens: int) -> str:
    """Return the template's size class of text.

    >>> size_class(5), size_class(10**9), size_class(2 * 10**13)
    ('Less than 1 billion tokens', '1 billion to 10 trillion tokens', 'More than 10 trillion tokens')
    """
    if tokens < BILLION:
        return "Less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if tokens <= TEN_TRILLION else "More than 10 trillion tokens"


def _size(facts: Facts) -> tuple[Item, ...]:
    total, tokens = facts.sources.total, facts.tokens
    return (
        Item(asks="Modality", answer="Text only: no images, audio or video"),
        Item(asks="Size class of the text", answer=size_class(tokens["tokens"])),
        Item(
            asks="Size of the text",
            answer=f"{tokens['tokens']:,} tokens in the shards, {tokens['bytes']:,} bytes of {total.documents:,} "
            f"documents, repeated copies included; {facts.training['tokens_seen']:,} tokens trained on",
        ),
        _said(facts, "Types of content", "content_description"),
        Item(
            asks="Latest date of acquisition",
            answer=facts.sources.last_captured or "Not known: the records of this source hold no time",
        ),
        Item(
            asks="Linguistic characteristics",
            answer=f"{many(len(facts.sources.languages), 'language')}, by share of tokens",
            headers=("language", "documents", "tokens", "share of tokens"),
            rows=tuple(
                (share.name, share.documents, share.tokens, share_of(share.tokens, total.tokens))
                for share in facts.sources.languages
            ),
        ),
    )


def _given(facts: Facts, kind: str) -> tuple[Item, ...]:
    """Return the given files, where the owner says that they are of this kind."""
    if facts.crawl["source"] in (*CRAWLED, "common_crawl") or facts.statement.given_files != kind:
        return ()
    return (
        _said(facts, "Files that were given: names, versions, owners", "given_files_details"),
        Item(
            asks="Files that were given, as the pipeline saw them",
            answer=many(len(facts.crawl["sources"]), "file"),
            headers=("name", "SHA-256"),
            rows=tuple((str(file.get("name", "")), str(file.get("sha256", ""))) for file in facts.crawl["sources"]),
        ),
        _domains(facts),
    )


def _public(facts: Facts) -> tuple[Item, ...]:
    source = facts.crawl["source"]
    if source == "common_crawl":
        snapshot = facts.manifests["crawl"].params.get("snapshot")
        return (
            Item(asks="Publicly available datasets were used", answer="Yes"),
            Item(asks="Large public datasets", answer=f"Common Crawl, snapshot {snapshot}, https://commoncrawl.org"),
            Item(asks="Size taken from it", answer=_outcome(facts)),
            _domains(facts),
        )
    if source in CRAWLED:
        return (Item(asks="Publicly available datasets were used", answer="No: everything was crawled (2.3)"),)
    if facts.statement.given_files is None:
        return (_said(facts, "Where the given files are from (public, licensed, third_party)", "given_files"),)
    used = "Yes" if facts.statement.given_files == "public" else "No"
    return (Item(asks="Publicly available datasets were used", answer=used), *_given(facts, "public"))


def _licensed(facts: Facts) -> tuple[Item, ...]:
    return (*_asked(facts, "Licensed data was used", "licensed_data"), *_given(facts, "licensed"))


def _third_party(facts: Facts) -> tuple[Item, ...]:
    return (*_asked(facts, "Private data of third parties was used", "private_data"), *_given(facts, "third_party"))


def _outcome(facts: Facts) -> str:
    counts, unit = facts.manifests["crawl"].counts, facts.manifests["crawl"].unit
    return f"{counts.out:,} of {counts.in_:,} {unit} taken; dropped: {counted(dict(counts.dropped))}"


def _crawled(facts: Facts) -> tuple[Item, ...]:
    source, params = facts.crawl["source"], facts.manifests["crawl"].params
    if source not in CRAWLED:
        return (Item(asks="Crawlers were run by or for the provider", answer="No crawler of this pipeline was run"),)
    contact = f", contact {params['contact']}" if params.get("contact") else ""
    behaviour = (
        "Obeys robots.txt (RFC 9309; unreachable means disallowed), asks each host for ai.txt and tdmrep.json"
        if params.get("policy_files")
        else "Obeys robots.txt (RFC 9309; unreachable means disallowed)"
    )
    online = "public web sites, reached by links and sitemaps, without logging in or filling in forms"
    pause = (
        "no pause between requests, since this machine served it"
        if source == "sample"
        else (
            f"a pause of {params.get('delay_seconds')} s or the host's own Crawl-delay between two requests to a host"
        )
    )
    place = "the sample site that comes with the software, on this machine" if source == "sample" else online
    return (
        Item(asks="Crawlers were run by or for the provider", answer="Yes"),
        Item(asks="Names of the crawlers", answer=f"{params.get('user_agent')}{contact}"),
        _said(facts, "Purposes of the crawlers", "crawler_purposes"),
        Item(asks="Behaviour of the crawlers", answer=f"{behaviour}; {pause}"),
        Item(asks="Period of collection", answer=_period(facts)),
        Item(asks="Kind of sources", answer=place),
        Item(asks="What was fetched", answer=_outcome(facts)),
        _said(facts, "Types of content", "content_description"),
        _domains(facts),
    )


def _period(facts: Facts) -> str:
    if facts.sources.first_captured is None:
        return "Not known: the records hold no time"
    return f"{facts.sources.first_captured} to {facts.sources.last_captured}"


def top_domains(domains: Sequence[Share], *, sme: bool) -> list[Share]:
    """Return the largest domains by bytes of text: the top 10 %, for an SME the top 5 % or 1,000 if that is fewer."""
    share = SME_DOMAINS_SHARE if sme else DOMAINS_SHARE
    number = math.ceil(share * len(domains))
    ranked = sorted(domains, key=lambda domain: (-domain.bytes, domain.name))
    return ranked[: min(number, SME_DOMAINS) if sme else number]


def _domains(facts: Facts) -> Item:
    sme = facts.statement.sme
    shown = top_domains(facts.sources.domains, sme=bool(sme))
    rule = "top 5 %, at most 1,000 (SME)" if sme else "top 10 %"
    return Item(
        asks="Most relevant domains",
        answer=f"{len(shown):,} of {many(len(facts.sources.domains), 'registered domain')} ({rule}), by bytes of text",
        headers=("domain", "documents", "bytes"),
        rows=tuple((share.name, share.documents, share.bytes) for share in shown),
    )


def _reserved(facts: Facts) -> tuple[Item, ...]:
    policy = opt_out_policy(facts)
    agents = policy.pop("agents", [])
    drops = ", ".join(sorted(name for name, action in policy.items() if action == "drop"))
    others = ", ".join(f"{name} ({action})" for name, action in sorted(policy.items()) if action != "drop")
    return (
        _said(facts, "Signatory of the Code of Practice", "code_of_practice"),
        Item(asks="Signals for which a page was dropped", answer=drops or "None"),
        Item(asks="Signals for which it was not", answer=others or "None"),
        Item(
            asks="Robots' names that count as addressed",
            answer=", ".join(("everyone (*)", "the crawler's own", *map(str, agents))),
        ),
        Item(
            asks="Effect",
            answer=f"{facts.dropped('crawl').get('robots', 0):,} URLs not fetched for robots.txt, "
            f"{facts.dropped('extract').get('opt_out', 0):,} fetched pages dropped, "
            f"{facts.taken_down:,} documents left out because of a takedown, {withheld(facts)}",
        ),
        _said(facts, "Further measures", "opt_out_measures"),
    )


def _illegal(facts: Facts) -> tuple[Item, ...]:
    rules = filter_rules(facts)
    words = rules.get("url", {}).get("deny_words", [])
    lists = rules.get("url", {}).get("lists", [])
    return (
        _said(facts, "Measures of the provider", "illegal_content"),
        Item(
            asks="Measures of the pipeline",
            answer=f"Filters: {', '.join(rules) or 'none'}. URLs with these words are dropped: "
            f"{', '.join(map(str, words)) or 'none'}; lists of hosts: {', '.join(map(str, lists)) or 'none'}",
        ),
        Item(
            asks="Personal data and secrets masked",
            answer=f"{counted(facts.edits.masked['pii'])}; secrets: {counted(facts.edits.masked['secrets'])}",
        ),
    )


def _other(facts: Facts) -> tuple[Item, ...]:
    items = sum(found["items"] for found in facts.protection.values())
    missing = sum(found["not_protected"] for found in facts.protection.values())
    return (
        Item(
            asks="Benchmark items kept out of the training content",
            answer=f"{items - missing:,} of {items:,} items of the tasks and files that data_card.md lists; "
            f"{missing:,} are too short or too common to be looked for",
        ),
        Item(
            asks="More in this folder", answer="data_card.md, croissant.json, mlbom.cdx.json, prov.jsonld, manifests/"
        ),
        Item(asks="Comments of the provider", answer=facts.statement.comments or "None"),
    )
