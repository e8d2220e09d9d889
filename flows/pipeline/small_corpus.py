"""Says after dedup, all at once, what the later stages' settings ask for that a small corpus does not hold.

Each stage refuses by itself what is too little for it; one after another, that is a run for each. Nothing is guessed
of a corpus of more than `MOST_DOCUMENTS` documents, which is no small one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from tasks.contracts.base import StageParams
from tasks.contracts.document import Document, read_documents
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.manifest import read_manifest, text_shards

AFTER = "dedup"
MOST_DOCUMENTS = 3000
MOST_LEARNT_BYTES = 4_000_000
BYTES_PER_TOKEN = 4.0  # of usual English, where no tokenizer is tried
FEW_STEPS = 3  # times the warm-up
PROFILE = "small"


@dataclass(frozen=True, slots=True)
class Shortage:
    """What one stage lacks.

    Attributes:
        settings: those that help, by their keys.
        stops: whether the stage would stop; else its result would say little.
    """

    stage: str
    said: str
    settings: tuple[str, ...]
    stops: bool = True

    def __str__(self) -> str:
        return f"{self.stage}: {self.said} ({', '.join(self.settings)})"


def foresee(data: Path, checked: Mapping[str, StageParams], stages: Collection[str]) -> list[Shortage]:
    """Return what would say little in the end; the corpus of `data/dedup` is enough for every stage to run.

    Args:
        checked: the settings of all stages.
        stages: those of this run.

    Raises:
        CorpusTooSmallError: a stage to come would stop; names all that is short, and the settings that help.
    """
    folder = data / AFTER
    if not 0 < read_manifest(folder).counts.out <= MOST_DOCUMENTS:
        return []
    documents = [document for shard in text_shards(folder) for document in read_documents(folder / shard.name)]
    found = [one for one in _shortages(documents, checked) if one.stage in stages]
    if any(one.stops for one in found):
        listed = [f"{number}. {one}" for number, one in enumerate(found, start=1)]
        raise CorpusTooSmallError(
            f"{len(documents)} documents are too few for these settings, and a stage to come would stop",
            where=str(folder),
            found="\n    ".join(["", *listed]),
            fix=f"`headwater params apply {PROFILE}` sets all of them for some dozens of pages; or crawl more pages, "
            "or loosen the filters (data/*/dropped says what they removed)",
        )
    return found


def _shortages(documents: Sequence[Document], checked: Mapping[str, Any]) -> Iterator[Shortage]:
    yield from _reference(documents, checked["perplexity"])
    held, questions, shortages = _holdout(documents, checked["holdout"])
    yield from shortages
    ids = {document.doc_id for document in held}
    yield from _training([document for document in documents if document.doc_id not in ids], checked)
    if questions:
        yield from _gate(questions, checked["gate"])


def _reference(documents: Sequence[Document], params: Any) -> Iterator[Shortage]:
    from tasks.perplexity.reference import WHOLE_CORPUS

    reference = params.to_train_on()
    if reference is None or reference.files_of():
        return
    words = _words(documents, reference, params.by_language)
    if words < params.min_reference_words and reference.otherwise == "corpus":
        words = _words(documents, WHOLE_CORPUS, params.by_language)
    if words < params.min_reference_words:
        said = f"half of the reference holds {words:,} words, {params.min_reference_words:,} are asked for"
        yield Shortage("perplexity", said, ("perplexity.min_reference_words", "perplexity.reference"))


def _words(documents: Sequence[Document], reference: Any, by_language: bool) -> int:
    """Return the words of the smaller half of the reference, in the language that has most."""
    from tasks.perplexity.model_text import fold_of, lines_of
    from tasks.perplexity.reference import FOLDS, language_of

    words: Counter[tuple[str, int]] = Counter()
    for document in documents:
        if reference.holds(document):
            lines = lines_of(document.text)
            words[language_of(document, by_language), fold_of(lines)] += sum(line.count(" ") + 1 for line in lines)
    languages = {language for language, _ in words}
    return max((min(words[language, fold] for fold in range(FOLDS)) for language in languages), default=0)


def _holdout(documents: Sequence[Document], params: Any) -> tuple[list[Document], int, list[Shortage]]:
    """Return the documents that would be held out, how many questions they make, and what is short."""
    from tasks.holdout.stage import held_out, make_tasks

    held = held_out(documents, params)
    short = len(held) < params.min_documents
    shortages = []
    if short:
        said = f"{len(held)} of {len(documents)} documents would be held out, {params.min_documents} are asked for"
        shortages.append(Shortage("holdout", said, ("holdout.fraction", "holdout.min_documents")))
    texts, questions = make_tasks(held, params)
    if not texts or len(questions) < params.min_items:
        said = f"{len(questions)} continuation items could be made, {params.min_items} are asked for"
        keys = ("items_per_document", "min_context_words", "context_words", "min_items")
        shortages.append(Shortage("holdout", said, ("holdout.fraction", *(f"holdout.{key}" for key in keys))))
    return held, len(questions), shortages


def _training(documents: Sequence[Document], checked: Mapping[str, Any]) -> Iterator[Shortage]:
    from tasks.tokenizer.byte_level import train_tokenizer

    tokenizer, train = checked["tokenizer"], checked["train"]
    copies = max((ceil(group.max_epochs) for group in checked["mix"].groups), default=1)
    size = sum(len(document.text.encode()) for document in documents)
    bytes_per_token = BYTES_PER_TOKEN
    if size * copies <= MOST_LEARNT_BYTES and train.start_from is None:
        learnt = train_tokenizer(
            (document.text for document in documents for _ in range(copies)),
            vocab_size=tokenizer.vocab_size,
            pre_tokenization=tokenizer.pre_tokenization,
            special_tokens=tokenizer.special_tokens,
        )
        entries = learnt.get_vocab_size()
        if entries < tokenizer.vocab_size:
            said = f"the text gives {entries:,} entries, {tokenizer.vocab_size:,} are asked for"
            yield Shortage("tokenizer", said, ("tokenizer.vocab_size",))
        tokens = sum(len(one.ids) for one in learnt.encode_batch_fast([document.text for document in documents]))
        bytes_per_token = size / max(tokens, 1)
    sequences = ceil(size * copies / bytes_per_token / train.seq_len)
    steps = sequences * train.epochs // train.batch_size
    if not steps:
        said = f"{sequences} sequences of {train.seq_len} tokens fill no step of {train.batch_size}"
        yield Shortage("train", said, ("train.epochs", "train.batch_size", "train.seq_len"))
    elif train.start_from is None and min(steps, train.max_steps or steps) < FEW_STEPS * train.warmup_steps:
        said = f"about {min(steps, train.max_steps or steps)} steps, {train.warmup_steps} of them warm-up, teach little"
        keys = ("train.epochs", "train.max_steps", "train.batch_size", "train.warmup_steps")
        yield Shortage("train", said, keys, stops=False)


def _gate(questions: int, params: Any) -> Iterator[Shortage]:
    from training.gate.stage import enough_to_tell

    if not enough_to_tell(questions, params):
        said = f"{questions} continuation items are too few to tell a small model from guessing"
        keys = ("holdout.items_per_document", "holdout.continuation_items", "holdout.fraction")
        yield Shortage("gate", said, keys, stops=False)
