"""What only the owner of a release can say: `release.statement` in params.yaml. All of it may be left out.

What is left out is marked in the papers as missing, with the setting's name, so that nobody takes silence for "none".
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator

from tasks.contracts.base import FrozenModel


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


# Text, in quotes in params.yaml: DVC does not take YAML's own dates.
Day = Annotated[str, AfterValidator(_day)]


class Statement(FrozenModel):
    """The owner's own words; an answer that is left out (null) is marked as missing in every paper that asks for it."""

    provider_name: str | None = None
    """Who provides the model: a person's or company's full name."""
    provider_contact: str | None = None
    """How to reach the provider: an e-mail address, URL or postal address."""
    authorised_representative: str | None = None
    """Name and contact of the representative in the European Union (AI Act, Art. 54); "none" where none is needed."""
    sme: bool | None = None
    """Whether the provider is a small or medium-sized enterprise: a shorter list of domains is asked of it."""
    purposes: str | None = None
    """What the model is for."""
    limits: str | None = None
    """What it must not be used for, and its known weaknesses."""
    placed_on_market: Day | None = None
    """Day on which it is placed on the market of the European Union, in quotes: "2026-01-31"."""
    data_first_used: Day | None = None
    """Day on which the training text was first used in development, in quotes: "2026-01-31"."""
    collection_ongoing: bool | None = None
    """Whether more text is being collected for later versions."""
    content_description: str | None = None
    """Types of content of the training text: fiction, news, scientific text, code, …"""
    crawler_purposes: str | None = None
    """What the crawler is run for."""
    given_files: Literal["public", "licensed", "third_party"] | None = None
    """Where crawl.source is `warc` or `text`: a public dataset, licensed by the rightsholders, or had from others."""
    given_files_details: str | None = None
    """Those files' names, versions, addresses and owners."""
    licensed_data: bool | None = None
    """Whether data was bought or licensed from rightsholders or their representatives."""
    private_data: bool | None = None
    """Whether other data that is not public was had from third parties."""
    user_data: bool | None = None
    """Whether data of the users of the provider's services or models was used."""
    synthetic_data: bool | None = None
    """Whether text was made by AI models to train this one."""
    other_data: str | None = None
    """Sources of any other kind (offline sources, own digitisation); "none" if there are none."""
    data_details: str | None = None
    """More on the licensed, private, user or synthetic data: which, from whom, when."""
    copyright_status: str | None = None
    """What of the training text is protected by copyright, trade mark or patent, or in the public domain."""
    personal_information: str | None = None
    """Whether personal information is left in the training text, and of which kinds."""
    consumer_information: bool | None = None
    """Whether it holds aggregate consumer information (California Civil Code § 1798.140 (b))."""
    code_of_practice: bool | None = None
    """Whether the provider signed the European Code of Practice for general-purpose AI models (copyright chapter)."""
    opt_out_measures: str | None = None
    """Measures to respect reservations of rights besides those that the pipeline took."""
    illegal_content: str | None = None
    """Measures to keep out or remove illegal content besides those that the pipeline took."""
    comments: str | None = None
    """Anything else that the public should know."""


def answer(statement: Statement, name: str) -> str:
    """Return the owner's answer as text, or that it is missing.

    >>> answer(Statement(sme=True), "sme"), answer(Statement(), "sme")
    ('Yes', 'MISSING: set release.statement.sme in params.yaml')
    """
    value = getattr(statement, name)
    if value is None:
        return f"MISSING: set release.statement.{name} in params.yaml"
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value).strip()
