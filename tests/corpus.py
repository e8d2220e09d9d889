"""Small corpora for tests: documents of made-up prose, written as a stage's folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tasks.contracts.document import Document, make_doc_id, write_documents
from tasks.contracts.manifest import Counts, Manifest, commit_manifest

_SYLLABLES = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er")]

ALPHABETS = {
    "latin": "abcdefghijklmnopqrstuvwxyz",
    "accents": "abcdéèêàçñöüßåø",
    "cyrillic": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "chinese": "".join(map(chr, range(0x4E00, 0x4F00))),
    "japanese": "".join(map(chr, range(0x3042, 0x3094))),
    "korean": "".join(map(chr, range(0xAC00, 0xAD00, 3))),
    "hindi": "".join(map(chr, [*range(0x0905, 0x0939), *range(0x093E, 0x094D)])),
    "arabic": "".join(map(chr, range(0x0627, 0x063A))),
    "digits": "0123456789",
}
UNSPACED = ("chinese", "japanese", "digits")


def prose(seed: int, sentences: int = 20, words: int = 14) -> str:
    """Return paragraphs of made-up words, no two seeds alike."""
    generator = random.Random(seed)
    lines = []
    for _ in range(sentences):
        line = " ".join("".join(generator.choices(_SYLLABLES, k=generator.randint(1, 3))) for _ in range(words))
        lines.append(line.capitalize() + ".")
    return "\n".join(" ".join(lines[i : i + 4]) for i in range(0, len(lines), 4))


def writing(generator: random.Random, script: str, characters: int) -> str:
    """Return made-up text of a script, in words where it has them."""
    letters = ALPHABETS[script]
    if script in UNSPACED:
        return "".join(generator.choices(letters, k=characters))
    text = ""
    while len(text) < characters:
        text += "".join(generator.choices(letters, k=generator.randint(1, 9))) + generator.choice(
            [" ", " ", ", ", "\n"]
        )
    return text[:characters]


def document(text: str, *, name: str, host: str = "a.example", source: str = "test", language: str = "en") -> Document:
    return Document(
        doc_id=make_doc_id(source, name),
        url=f"https://{host}/{name}",
        host=host,
        record_id=name,
        source=source,
        text=text,
        language=language,
    )


def write_stage(folder: Path, parts: Sequence[Sequence[Document]], stage: str = "before") -> Manifest:
    """Write documents as the folder of the stage before; the parts that stood there are gone."""
    for old in folder.glob("part-*.parquet"):
        old.unlink()
    for k, documents in enumerate(parts):
        write_documents(folder / f"part-{k:05d}.parquet", documents)
    total = sum(map(len, parts))
    return commit_manifest(
        folder, stage=stage, unit="documents", params={}, inputs={}, counts=Counts(in_=total, out=total)
    )


def corpus(count: int, parts: int = 2, **settings: str) -> list[list[Document]]:
    """Return `count` different documents in `parts` shards."""
    documents = [document(prose(i), name=f"page-{i}", **settings) for i in range(count)]
    return [documents[k::parts] for k in range(parts)]
