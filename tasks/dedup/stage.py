"""The dedup stage: of documents that say the same, one stays, and the ledger names it for every one that goes.

Passes, each spread over shards or ranges of keys and each out of core:

1. `signatures`: keys, MinHash bands and shingle sets of each part (cached by part)
2. `candidates`: who shares a URL, payload, text or band, by ranges of keys
3. `verification`: the true Jaccard of every candidate, by ranges of pairs (remembered from run to run)
4. `survivors`: one survivor for every dropped document (in this process: documents that share something only), after
   `taken` has put aside what is near to a taken-down page
5. `frequency`: lines and paragraphs that too many survivors have, by ranges of keys; where a param asks for it
6. `writing`: each part from its own decisions (cached by part and decisions)

A pass with a single piece of work is done in this process, as starting it elsewhere would take longer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field, JsonValue, model_validator

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.code_hash import code_hash
from tasks.contracts.durable_files import sha256_file, sha256_json
from tasks.contracts.manifest import Manifest
from tasks.dedup.candidates import FEWEST_PAIRS, GROUP, PAIR, find_candidates
from tasks.dedup.corpus import Corpus, even_ranges
from tasks.dedup.decisions import count_hosts, mark_kept, write_decisions
from tasks.dedup.frequency import Cutting, Limits, find_common_blocks
from tasks.dedup.minhash import Backend, Sketch, choose_bands, found_with
from tasks.dedup.passages import BlockKind
from tasks.dedup.signatures import Criterion, Exact, Signing, sign_part
from tasks.dedup.survivors import RULES, Fates, choose_survivors
from tasks.dedup.taken_down_copies import find_taken, with_taken, without
from tasks.dedup.verification import EDGE, Memory, pairs_of, similarities, verify_candidates
from tasks.dedup.writing import STAGE, Writing, write_part
from tasks.engine.shards import ShardFunction, ShardWork
from tasks.engine.stage import Stage
from tasks.rights.takedowns import read_takedowns

logger = logging.getLogger(__name__)

DOES = "keeps one of each group of equal or nearly equal documents"
_SIGNING_CODE: Final = [
    f"tasks.dedup.{name}" for name in ("signatures", "shingles", "minhash", "passages", "table_shards")
]
_WRITING_CODE: Final = [
    f"tasks.dedup.{name}" for name in ("writing", "survivors", "taken_down_copies", "passages", "table_shards")
]


class Params(StageParams):
    """The `dedup` section of params.yaml."""

    exact: tuple[Exact, ...] = ("url", "payload", "text")
    """What makes two documents exact duplicates: the same URL, HTTP payload or normalised text."""
    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of the shingle sets from which two documents are near duplicates, 0 to 1."""
    shingle_words: int = Field(5, ge=1, le=50)
    """Words in a shingle; 5 as in FineWeb (Penedo et al. 2024). Texts with fewer words are compared exactly only."""
    num_perm: int = Field(128, ge=8, le=4096)
    """MinHash permutations; the signature's length where bands and rows are not given."""
    bands: int | None = Field(None, ge=1, le=4096)
    """LSH bands; null lets datasketch choose bands and rows for the threshold, num_perm and missed_weight."""
    rows: int | None = Field(None, ge=1, le=4096)
    """Rows of a band; given together with bands, bands x rows at most num_perm."""
    missed_weight: float = Field(0.95, ge=0, le=1)
    """How much a missed pair weighs against a useless comparison where bands are chosen, 0 to 1."""
    max_shingles: int = Field(20_000, ge=100)
    """Shingles kept of one text (4 bytes each). A longer text is verified by a sample spread over all of it."""
    seed: int = Field(1, ge=0, lt=2**32)
    """Seed of the MinHash permutations."""
    backend: Backend = "datasketch"
    """What makes the signatures: datasketch (MinHash proper) or rensa (R-MinHash, faster; other signatures)."""
    prefer: tuple[Criterion, ...] = ("hosts", "longest", "earliest")
    """By what the survivor is chosen, first to last: hosts, longest, shortest, earliest, latest. The smallest
    doc_id decides the rest."""
    prefer_hosts: tuple[str, ...] = ()
    """Hosts or patterns ("*.example.org") whose documents survive before others, best first."""
    line_documents: int | None = Field(None, ge=1)
    """A line in more documents than this is cut; null sets no limit."""
    line_host_share: float | None = Field(None, gt=0, le=1)
    """A line in more than this share of one host's documents is cut from that host's; null sets no limit."""
    paragraph_documents: int | None = Field(None, ge=1)
    """The same for paragraphs (between blank lines)."""
    paragraph_host_share: float | None = Field(None, gt=0, le=1)
    """The same for paragraphs (between blank lines)."""
    host_documents: int = Field(10, ge=2)
    """Hosts with fewer documents have no share that means anything."""
    common_keep: Literal["preferred", "none"] = "preferred"
    """Who keeps a common line or paragraph: the preferred document (of the host, where its share decides), or none."""
    common_min_characters: int = Field(20, ge=1)
    """Shorter lines and paragraphs are never cut: brackets of code, "Parameters", bullets."""
    rest_min_characters: int = Field(200, ge=0)
    """A document that is cut to fewer characters than this is dropped."""
    keys_in_memory: int = not_identity(1 << 18, ge=16)
    """How many keys (of URLs, payloads, texts, bands, lines) one worker sorts at a time, about 100 bytes each."""

    @model_validator(mode="after")
    def _fits(self) -> Params:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows are given together, or both left out")
        if self.bands is not None and self.rows is not None and self.bands * self.rows > self.num_perm:
            raise ValueError(f"bands x rows is {self.bands * self.rows}, more than num_perm, {self.num_perm}")
        if {"longest", "shortest"} <= set(self.prefer) or {"earliest", "latest"} <= set(self.prefer):
            raise ValueError("prefer names a criterion and its opposite")
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError("prefer names a criterion twice")
        if self.prefer_hosts and "hosts" not in self.prefer:
            raise ValueError('prefer_hosts has no effect unless prefer contains "hosts"')
        return self

    def sketch(self) -> Sketch:
        """Return how texts are sketched under these settings."""
        if self.bands is not None and self.rows is not None:
            bands, rows = self.bands, self.rows
        else:
            bands, rows = choose_bands(self.threshold, self.num_perm, self.missed_weight)
        return Sketch(
            shingle_words=self.shingle_words,
            max_shingles=self.max_shingles,
            bands=bands,
            rows=rows,
            seed=self.seed,
            backend=self.backend,
        )

    def cutting(self) -> Cutting:
        """Return how common lines and paragraphs are cut."""
        asked: dict[BlockKind, Limits] = {
            "paragraph": Limits(documents=self.paragraph_documents, host_share=self.paragraph_host_share),
            "line": Limits(documents=self.line_documents, host_share=self.line_host_share),
        }
        return Cutting(
            limits={kind: one for kind, one in asked.items() if one != Limits(documents=None, host_share=None)},
            host_documents=self.host_documents,
            keep_one=self.common_keep == "preferred",
        )


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Keep one document of each set of duplicates; the others become ledger rows that name it."""
    libraries = (*params.sketch().libraries(), "pyarrow")
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output, libraries=libraries)
    with stage.scratch() as scratch:
        dedup = _Run(stage, params, scratch)
        fates = dedup.choose()
        cuts = dedup.find_common(fates) if dedup.cutting.limits else []
        parts, decided = write_decisions(dedup.corpus, fates, cuts, dedup.work, scratch / "decisions")
        writing = Writing(
            threshold=params.threshold,
            block_characters=params.common_min_characters,
            rest_characters=params.rest_min_characters,
        )
        result = stage.map(partial(write_part, writing, decided), parts, params=asdict(writing), code=_WRITING_CODE)
    return stage.commit(result)


class _Run:
    """The passes of one run, up to the decisions."""

    def __init__(self, stage: Stage, params: Params, scratch: Path) -> None:
        self.stage, self.params, self.work, self.scratch = stage, params, stage.work(), scratch
        self.cutting = params.cutting()
        self.sketch = params.sketch()
        signing = Signing(
            sketch=self.sketch,
            exact=params.exact,
            prefer=params.prefer,
            prefer_hosts=params.prefer_hosts,
            blocks=self.cutting.kinds(),
            block_characters=params.common_min_characters if self.cutting.limits else 0,
        )
        self._signed = stage.map(
            partial(sign_part, signing),
            self.work,
            step="signatures",
            params={**asdict(signing), "sketch": self.sketch.identity()},
            code=_SIGNING_CODE,
        )
        self.corpus = Corpus.gather(
            [f"{folder}/{name}" for name, folder in self._signed.folders.items()], scratch / "documents.bin"
        )

    def choose(self) -> Fates:
        """Return the fate of every document that shares something with another."""
        params, corpus = self.params, self.corpus
        logger.info(
            "dedup: %d documents, %d bands of %d rows: a pair at the threshold is found with %.1f %%",
            len(corpus),
            self.sketch.bands,
            self.sketch.rows,
            100 * found_with(params.threshold, self.sketch.bands, self.sketch.rows),
        )
        folder = self.scratch / "candidates"
        ranges = self._ranges(corpus.count("keys"), 2 * params.keys_in_memory)
        self._spread(
            partial(find_candidates, corpus, ranges, params.threshold, params.keys_in_memory),
            self._work(ranges, self._arrays("docs", "keys")),
            folder,
        )
        groups = np.concatenate([np.fromfile(path, GROUP) for path in sorted(folder.glob("*.groups.bin"))])
        candidates = sorted(folder.glob("*.pairs.*.bin"))
        folder = self.scratch / "verified"
        memory = self._memory("pairs")
        pairs = sum(path.stat().st_size for path in candidates) // PAIR.itemsize
        ranges = self._ranges(pairs, max(params.keys_in_memory, FEWEST_PAIRS))
        self._spread(
            partial(verify_candidates, corpus, memory, ranges, params.threshold),
            self._work(ranges, [(path, sha256_file(path) if len(ranges) > 1 else "") for path in candidates]),
            folder,
        )
        memory.replace(sorted(folder.glob("*.verified.bin")))
        edges = np.concatenate([np.fromfile(path, EDGE) for path in sorted(folder.glob("*.edges.bin"))])
        taken = find_taken(corpus, read_takedowns(), threshold=params.threshold, shingle_words=params.shingle_words)
        fates = choose_survivors(corpus, *without(taken, groups, edges))
        self._compare_exact(fates)
        for number, rule in enumerate(RULES):
            logger.info("dedup: %s: %d documents", rule, int((fates.rule == number).sum()))
        return with_taken(fates, taken, corpus)

    def _compare_exact(self, fates: Fates) -> None:
        """Fill in how like its survivor a document of the same URL or payload is."""
        unknown = np.flatnonzero(np.isnan(fates.similarity))
        pairs = pairs_of(self.corpus, fates.numbers[fates.survivor[unknown]], fates.numbers[unknown])
        order = np.lexsort((pairs["key"][:, 1], pairs["key"][:, 0]))
        memory = self._memory("exact")
        found = similarities(self.corpus, pairs[order], memory)
        fates.similarity[unknown[order]] = found
        memory.store(pairs["key"][order], found)

    def find_common(self, fates: Fates) -> list[Path]:
        """Return the files that say which lines and paragraphs are cut from which document."""
        corpus, folder = self.corpus, self.scratch / "common"
        folder.mkdir(parents=True)
        kept, hosts = folder / "kept.bin", folder / "hosts.npz"
        mark_kept(corpus, fates, kept)
        count_hosts(corpus, kept, hosts)
        ranges = self._ranges(corpus.count("line_keys"), 2 * self.params.keys_in_memory)
        shared = [(path, sha256_file(path)) for path in (kept, hosts)]
        self._spread(
            partial(find_common_blocks, corpus, ranges, self.cutting, self.params.keys_in_memory, kept, hosts),
            self._work(ranges, [*self._arrays("docs", "line_keys"), *shared]),
            folder,
        )
        return sorted(folder.glob("*.cuts.bin"))

    def _ranges(self, entries: int, of_task: int) -> dict[str, tuple[int, int]]:
        """Return work names and ranges of keys, so many that each holds about as many entries as asked for."""
        ranges = even_ranges(max(1, -(-entries // of_task)))
        return {f"range-{number:05d}-of-{len(ranges):05d}": bounds for number, bounds in enumerate(ranges)}

    def _arrays(self, *names: str) -> list[tuple[Path, str]]:
        """Return the first pass's files of some kinds, with their hashes."""
        hashes = {file.name: file.sha256 for file in self._signed.files}
        return [
            (folder / f"{part}.{name}.bin", hashes[f"{part}.{name}.bin"])
            for part, folder in self._signed.folders.items()
            for name in names
        ]

    def _work(self, ranges: Mapping[str, object], files: Sequence[tuple[Path, str]]) -> list[ShardWork]:
        inputs, hashes = tuple(path for path, _ in files), tuple(digest for _, digest in files)
        return [ShardWork(name=name, inputs=inputs, input_hashes=hashes) for name in ranges]

    def _spread(self, function: ShardFunction, work: Sequence[ShardWork], folder: Path) -> None:
        if len(work) == 1:
            folder.mkdir(parents=True, exist_ok=True)
            function(work[0], folder)
            return
        settings: dict[str, JsonValue] = {
            "sketch": self.sketch.identity(),
            "threshold": self.params.threshold,
            "cutting": asdict(self.cutting),
            "keys_in_memory": self.params.keys_in_memory,
        }
        self.stage.map(function, work, step=folder.name, output=folder, params=settings)

    def _memory(self, name: str) -> Memory:
        """Return the memory of pairs verified with this way to make shingles."""
        identity: dict[str, JsonValue] = {
            "shingle_words": self.sketch.shingle_words,
            "max_shingles": self.sketch.max_shingles,
            "code": code_hash(
                "tasks.contracts.normal_form",
                "tasks.contracts.scripts",
                "tasks.dedup.shingles",
                "tasks.dedup.verification",
            ),
        }
        memory = Memory(self.stage.state / f"memory-{name}-{sha256_json(identity)[:16]}.bin")
        memory.discard_if_damaged()
        return memory
