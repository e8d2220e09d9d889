"""ab2013.md: the documentation that California's AB 2013 (Civil Code § 3111) asks for, item by item."""

from __future__ import annotations

from tasks.contracts.stages import does
from training.release.papers.facts import Facts
from training.release.papers.markdown import counted, many, page, share_of, table

NAMES_SHOWN = 10


def ab2013(facts: Facts) -> bytes:
    """Return ab2013.md."""
    lines = [
        f"# Training data of {facts.name}: California Civil Code § 3111(a)",
        "",
        "Figures are written from the manifests of the release; what only the developer can say is marked MISSING "
        "until `release.statement` in params.yaml says it. Hosts, licences and rules in full: `data_card.md`.",
        "",
        *table(["(a)", "asked", "answer"], ((f"({n})", *row) for n, row in enumerate(_items(facts), 1))),
    ]
    return page(lines)


def _items(facts: Facts) -> list[tuple[str, str]]:
    total, tokens, sources = facts.sources.total, facts.tokens, facts.sources
    hosts = ", ".join(f"{host.name} ({share_of(host.tokens, total.tokens)})" for host in sources.hosts[:NAMES_SHOWN])
    licences = ", ".join(f"{found.name} ({found.documents:,})" for found in sources.licenses[:NAMES_SHOWN])
    languages = ", ".join(
        f"{found.name} ({share_of(found.tokens, total.tokens)})" for found in sources.languages[:NAMES_SHOWN]
    )
    steps = "; ".join(f"{stage} {does(stage)}" for stage in facts.text_stages[1:])
    masked = f"{counted(facts.edits.masked['pii'])}; secrets: {counted(facts.edits.masked['secrets'])}"
    return [
        (
            "sources or owners",
            f"{many(len(sources.hosts), 'host')} of {many(len(sources.domains), 'registered domain')}, "
            f"by share of tokens: {hosts}. "
            f"Collected by: {facts.crawl['source']}. Developer: {facts.said('provider_name')}",
        ),
        ("how they further the purpose", f"Purpose: {facts.said('purposes')}. The model learns to continue such text."),
        (
            "number of data points",
            f"{total.documents:,} documents, {tokens['bytes']:,} bytes, {tokens['tokens']:,} tokens in the shards, "
            "repeated copies included",
        ),
        ("types of data points", f"Texts without labels. Languages: {languages}. {facts.said('content_description')}"),
        (
            "copyright, trademark, patent, public domain",
            f"{facts.said('copyright_status')}. Licences that the pages name, with documents: {licences}",
        ),
        ("bought or licensed", facts.said("licensed_data")),
        ("personal information", f"{facts.said('personal_information')}. Found and masked by filters: {masked}"),
        ("aggregate consumer information", facts.said("consumer_information")),
        (
            "cleaning, processing, other modification",
            f"{steps}. {facts.manifests['crawl'].counts.out:,} {facts.manifests['crawl'].unit} were collected, "
            f"{total.documents:,} documents are left; of their tokens in the shards the model was trained on "
            f"{facts.training['tokens_seen']:,}",
        ),
        (
            "period of collection",
            f"{sources.first_captured or 'not known'} to {sources.last_captured or 'not known'}. "
            f"Collection goes on: {facts.said('collection_ongoing')}",
        ),
        ("first used", facts.said("data_first_used")),
        ("synthetic data", facts.said("synthetic_data")),
    ]
