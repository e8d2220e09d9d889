"""From what a model said back to its training text: the longest spans that stand in it, and the documents of each.

As OLMoTrace does it (Liu et al. 2025, arXiv 2504.07096): the output is split into tokens, for each place in it the
longest run that stands somewhere in the training text is looked up (`trace_tokens`), and what is reported is no part of
another. A span is verbatim, byte for byte. The same words are other tokens where the text around them differs, at a
span's edges above all; so a run of tokens only shows where to look, and how far the span goes is compared in the text
of each document. Long numbers, which are cut into threes from their first digit on, are tried in all three ways.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from flows.history.trace_index import Index
from flows.proof.trace import DocumentTrace, Subject, Tracer, TrainingFacts
from flows.proof.trace_tokens import LONGEST, Found, Part, TokenIndex
from flows.proof.trace_training import Seen
from tasks.contracts.errors import InputError, ManifestError, UsageError
from tasks.contracts.files import VALIDATION_NAME
from tasks.contracts.manifest import manifest_hash, read_manifest
from tasks.contracts.release import LINEAGE_NAME
from tasks.contracts.tokenizer_files import bytes_of_tokens, load_tokenizer

FEWEST_TOKENS: Final = 12
"""Shortest span that is reported, in tokens."""
SEED_TOKENS: Final = 4
"""Shortest run of equal tokens that is followed in the text; a span has a few more at its edges."""
MOST_PLACES: Final = 1000
"""Places of one run that are compared in the text."""
MOST_BYTES: Final = 1 << 20
"""Longest output that is traced."""
ANSWER_TOKENS: Final = 200
"""Longest answer that a release is asked for."""
_DIGITS: Final = re.compile(r"\d{4,}")
_GROUP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanSource:
    """A document in which a span stands.

    Attributes:
        shard: the token shard of its first copy, `offset` its first token there.
        steps: every time that training saw a part of the document.
        takedown: whether a release that holds it is marked by a takedown.
    """

    doc_id: str
    url: str
    title: str | None
    license: str | None
    shard: str
    offset: int
    steps: tuple[Seen, ...]
    releases: tuple[str, ...]
    takedown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the output that stands in the training text.

    Attributes:
        begin: its first character in the output, `end` the one after its last.
        tokens: how many tokens it is by itself.
        document_count: the documents in which it was found; `sources` says more of the first of them.
        complete: whether that is all of them; else it stands in more places than are compared.
    """

    begin: int
    end: int
    text: str
    tokens: int
    document_count: int
    complete: bool
    sources: tuple[SpanSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTrace:
    """What of an output stands in the training text.

    Attributes:
        span_count: how many spans there are; `spans` holds the longest of them.
        covered: the characters that stand in some span.
    """

    characters: int
    fewest_tokens: int
    span_count: int
    covered: int
    spans: tuple[Span, ...]
    training: TrainingFacts


def read_output(path: Path) -> str:
    """Read an output to be traced.

    Raises:
        UsageError: there is no such file.
        InputError: it is too long, or no text.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError("the file cannot be read", where=str(path), found=error.strerror) from error
    if len(raw) > MOST_BYTES:
        raise InputError(
            "the output is too long",
            where=str(path),
            expected=f"at most {MOST_BYTES:,} bytes",
            fix="trace it in pieces; a document that may be in the corpus is found by --text",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("the output is no text", where=str(path), expected="UTF-8", found=str(error)) from error
    if "\0" in text:
        raise InputError("the output is no text", where=str(path), expected="UTF-8", found="a NUL character")
    return text


def ask_release(prompt: str, data: Path, max_tokens: int | None = None) -> str:
    """Return what the release that stands in `data` answers, at each step its likeliest token.

    Raises:
        InputError: there is none, or it was trained on other token shards than stand here.
    """
    folder = data / "release"
    lineage = folder / LINEAGE_NAME
    if not lineage.is_file():
        raise InputError("there is no release to ask", where=str(folder), expected=LINEAGE_NAME, fix="headwater run")
    expected = json.loads(lineage.read_bytes())["stages"]["tokenize"]["manifest_sha256"]
    if expected != (found := manifest_hash(data / "tokenize")):
        raise InputError(
            "the release was trained on other text than stands here",
            where=str(data / "tokenize"),
            expected=f"the manifest {expected}",
            found=found,
            fix="`dvc checkout` with the dvc.lock of its commit brings it back",
        )
    from flows.services.released_model import ReleasedModel, Sampling

    model = ReleasedModel(folder)
    ids = model.encode(prompt)
    sampling = Sampling(max_tokens=ANSWER_TOKENS if max_tokens is None else max_tokens, temperature=0.0)
    return "".join(piece.text for piece in model.generate(ids, sampling))


class OutputTracer:
    """Finds spans of outputs in the training text of a workspace.

    Raises:
        InputError, ManifestError: the token shards or their tokenizer are not here.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.index = TokenIndex(data)
        folder = data / "tokenizer"
        expected = read_manifest(data / "tokenize").inputs.get("tokenizer")
        if expected != manifest_hash(folder):
            raise ManifestError(
                "the token shards were made by another tokenizer than stands here",
                where=str(folder),
                expected=f"the manifest {expected}",
                found=manifest_hash(folder),
                fix="`headwater run` makes them again, or `dvc checkout` brings the other back",
            )
        self.tokenizer = load_tokenizer(folder)
        self.token_bytes = bytes_of_tokens(self.tokenizer)

    def trace(self, text: str, documents: Index, *, fewest_tokens: int = FEWEST_TOKENS, limit: int = 20) -> OutputTrace:
        """Return the longest spans of `text`, at most `limit`, each with at most so many documents.

        Args:
            documents: the trace index of the workspace's stages.
        """
        spans = self.spans(text, fewest_tokens)
        tracer = Tracer(documents, self.data)
        shown = [
            Span(
                begin=begin,
                end=end,
                text=text[begin:end],
                tokens=tokens,
                document_count=len(places.found),
                complete=places.complete,
                sources=tuple(self._sources(tracer, list(places.found.values())[:limit])),
            )
            for begin, end, tokens, places in spans[:limit]
        ]
        covered: set[int] = set()
        for begin, end, *_ in spans:
            covered.update(range(begin, end))
        return OutputTrace(
            characters=len(text),
            fewest_tokens=fewest_tokens,
            span_count=len(spans),
            covered=len(covered),
            spans=tuple(shown),
            training=tracer.training_facts,
        )

    def spans(self, text: str, fewest_tokens: int = FEWEST_TOKENS) -> list[tuple[int, int, int, Places]]:
        """Return each span as (begin, end, tokens, its documents), the longest first, none within another.

        Raises:
            InputError: the text is empty.
        """
        if not text.strip():
            raise InputError("the output is empty", expected="some words")
        raw = text.encode("utf-8", "surrogatepass")
        found: dict[tuple[int, int], Places] = {}
        for ids, starts in self._tokenised(text):
            for part in self.index.parts:
                for begin, end, places in self._search(part, ids, starts, raw, min(SEED_TOKENS, fewest_tokens)):
                    found.setdefault((begin, end), Places({}, True)).add(places)
        characters = list(accumulate((byte & 0xC0 != 0x80 for byte in raw), initial=0))
        listed = []
        for begin, end in _not_within(found):
            # A span may begin or end inside a character's bytes.
            first = next((at for at in range(begin, end) if raw[at] & 0xC0 != 0x80), end)
            last = next(at for at in range(end, begin - 1, -1) if at == len(raw) or raw[at] & 0xC0 != 0x80)
            if last <= first:
                continue
            tokens = len(self.tokenizer.encode(raw[first:last].decode("utf-8", "replace"), add_special_tokens=False))
            if tokens >= fewest_tokens:
                listed.append((characters[first], characters[last], tokens, found[begin, end]))
        return sorted(listed, key=lambda one: (one[0] - one[1], one[0]))

    def _tokenised(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the output's tokens, and the byte at which each begins; again with long numbers cut otherwise."""
        for shift in range(_GROUP if _DIGITS.search(text) else 1):
            cuts = [0, *(match.start() + shift for match in _DIGITS.finditer(text) if shift), len(text)]
            pieces = [text[begin:end] for begin, end in pairwise(cuts)]
            ids = [
                number
                for one in self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
                for number in one.ids
            ]
            yield ids, list(accumulate((len(self.token_bytes[number]) for number in ids), initial=0))

    def _search(
        self, part: Part, ids: Sequence[int], starts: Sequence[int], raw: bytes, seed: int
    ) -> Iterator[tuple[int, int, Places]]:
        width, packed, furthest = part.width, self.index.bytes_of(ids), 0
        for at in range(len(ids)):
            length = part.longest(packed[at * width : (at + LONGEST) * width])
            if length < seed or starts[at + length] <= furthest:
                continue
            # A run without its first and last token: what other documents make of the same words at its edges.
            inner = 1 if length >= seed + 2 else 0
            reached: dict[tuple[int, int], Places] = {}
            for begin, end in dict.fromkeys([(at, at + length), (at + inner, at + length - inner)]):
                first, stop = part.range(packed[begin * width : end * width])
                complete = stop - first <= MOST_PLACES
                for document in part.found(first, min(stop, first + MOST_PLACES)):
                    span = self._extended(document, raw, starts[begin], starts[end])
                    reached.setdefault(span, Places({}, True)).add(Places({_key(document): document}, complete))
            for begin, end in _not_within(reached):
                whole = Places({}, True)
                for (other_begin, other_end), places in reached.items():
                    if other_begin <= begin and other_end >= end:
                        whole.add(places)
                yield begin, end, whole
                furthest = max(furthest, end)

    def _extended(self, document: Found, raw: bytes, begin: int, end: int) -> tuple[int, int]:
        """Return from where to where the output is equal to a document, around a run of tokens that it has.

        Raises:
            InputError: the document does not have it; the index is not of these shards.
        """
        tokens = self.index.tokens(document)
        right, at = begin, document.at
        while at < len(tokens) and (said := self.token_bytes[int(tokens[at])]):
            shared = _shared(said, raw[right : right + len(said)])
            right, at = right + shared, at + 1
            if shared < len(said):
                break
        if right < end:
            raise InputError(
                "the index of the training text does not fit the token shards",
                where=f"{self.index.folder / document.shard}, token {document.offset + document.at}",
                fix="remove .headwater/lineage/index and ask again; `headwater verify` checks the shards",
            )
        left, at = begin, document.at - 1
        while at >= 0 and (said := self.token_bytes[int(tokens[at])]):
            shared = _shared(said[::-1], raw[max(left - len(said), 0) : left][::-1])
            left, at = left - shared, at - 1
            if shared < len(said):
                break
        return left, right

    def _sources(self, tracer: Tracer, found: Sequence[Found]) -> Iterator[SpanSource]:
        names = [self.index.names(one) for one in found]
        traced = tracer.trace_documents([Subject(doc_id=doc_id, url=url) for doc_id, url in names], survivors=False)
        for place, (doc_id, url), document in zip(found, names, traced, strict=True):
            yield SpanSource(
                doc_id=doc_id,
                url=url,
                title=document.facts.get("title"),
                license=document.facts.get("license"),
                shard=place.shard,
                offset=place.offset,
                steps=_steps(document),
                releases=tuple(release.name for release in document.releases),
                takedown=any(release.takedown for release in document.releases),
            )


@dataclass(slots=True)
class Places:
    """The documents in which a span stands, and whether those are all."""

    found: dict[tuple[str, int], Found]
    complete: bool

    def add(self, other: Places) -> None:
        """Add others."""
        self.found |= {key: one for key, one in other.found.items() if key not in self.found}
        self.complete &= other.complete


def _shared(left: bytes, right: bytes) -> int:
    if left == right:
        return len(left)
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _key(found: Found) -> tuple[str, int]:
    return found.shard, found.row


def _not_within(spans: dict[tuple[int, int], Places]) -> list[tuple[int, int]]:
    """Return the spans that are no part of another, in order."""
    kept: list[tuple[int, int]] = []
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or end > kept[-1][1]:
            kept.append((begin, end))
    return kept


def _steps(document: DocumentTrace) -> tuple[Seen, ...]:
    seen = {one for token in document.tokens if token.shard != VALIDATION_NAME for one in token.seen}
    return tuple(sorted(seen, key=lambda one: (one.step, one.rank, one.sequence)))
