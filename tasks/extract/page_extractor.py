"""One HTML page to text, title, licence, opt-out signals and language: what the killable child runs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace

from tasks.contracts.charset import decode
from tasks.contracts.markup import with_few_attributes
from tasks.extract.engines import content_of
from tasks.extract.language_id import identify, languages_by_line
from tasks.extract.warc_pages import Page
from tasks.extract.worker_messages import Extracted, Settings
from tasks.rights.evidence import html_signals
from tasks.rights.licences import absolute

# Payloads whose result is kept for an exact repeat; a shard of the crawl holds some hundred pages.
REMEMBERED_PAYLOADS = 2_000


class PageExtractor:
    """Extracts pages one by one; a payload that was seen before is not extracted again."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[bytes, str, Settings], Extracted] = OrderedDict()

    def prepare(self) -> None:
        """Load the language model, which takes a second or two."""
        identify("")

    def __call__(self, page: Page, settings: Settings) -> Extracted:
        """Return a page's main text with what its head says about it.

        Raises:
            ValueError: the body is not HTML that can be parsed; the engines' own errors also come through.
        """
        headers = page.signals
        if not page.body.strip():
            return Extracted(text="", opt_out=headers)
        # By the body itself: the archive's digest may be of the encoded payload, missing or wrong.
        key = (hashlib.sha256(page.body).digest(), page.content_type, settings)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = _extracted(page, settings)
            if len(self._seen) > REMEMBERED_PAYLOADS:
                self._seen.popitem(last=False)
        if found.license:
            license = absolute(found.license, page.url)
            found = replace(found, license=None if license in page.terms else license)
        return replace(found, opt_out=tuple(sorted({*headers, *found.opt_out}))) if headers else found


extract_page = PageExtractor()


def _extracted(page: Page, settings: Settings) -> Extracted:
    html, _ = decode(page.body, page.content_type)
    content = content_of(with_few_attributes(html), settings)
    if content is None:
        return Extracted(text="")
    text = content.text.strip()
    language, score = identify(text) if text else (None, None)
    return Extracted(
        text=text,
        title=content.metadata.title,
        author=content.metadata.author,
        published=content.metadata.published,
        license=content.metadata.license,
        opt_out=tuple(sorted({str(signal) for signal in html_signals(html, settings.robot)})),
        language=language,
        language_score=score,
        line_languages=languages_by_line(text) if settings.language_by_line else {},
        truncated_depth=content.truncated,
    )
