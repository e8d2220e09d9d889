"""How much of each group goes into training: shares asked for, what there is, and what comes of it.

The total is given or as much as there is once. Each group gets its share of it; a group with too little is
repeated up to its `max_epochs`, and what is then still missing is shared among the others in the ratio of their
weights. So the ratio among the groups that are not exhausted holds exactly (up to the sampling of whole documents).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document

REST = "rest"
HASH_RANGE = 1 << 64


class Group(FrozenModel):
    """Documents that get one weight. A document belongs to the first group whose every given condition holds."""

    name: str = Field(min_length=1)
    """Unique name; "rest" takes what no other group took, wherever it is listed."""
    sources: tuple[str, ...] = ()
    """Sources, exactly; none means any."""
    hosts: tuple[str, ...] = ()
    """Host names, with * and ? as in file names; none means any."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes; none means any."""
    weight: float = Field(1.0, ge=0)
    """Share asked for of the resulting bytes, relative to the other groups' weights; 0 leaves the group out."""
    max_epochs: float = Field(2.0, ge=1)
    """Most times a document of this group goes into training."""

    def takes(self, document: Document) -> bool:
        """Say whether the document meets every condition."""
        return (
            (not self.sources or document.source in self.sources)
            and (not self.hosts or any(fnmatchcase(document.host, glob) for glob in self.hosts))
            and (not self.languages or document.language in self.languages)
        )


def complete_groups(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups with "rest" last; where it is not listed it has weight 1 and is not repeated."""
    rest = next((group for group in groups if group.name == REST), Group(name=REST, max_epochs=1))
    return (*(group for group in groups if group.name != REST), rest)


def group_index(document: Document, groups: Sequence[Group]) -> int:
    """Return the index of the document's group in what `complete_groups` returned."""
    return next((i for i, group in enumerate(groups[:-1]) if group.takes(document)), len(groups) - 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes and epochs that each group gets; epochs is a real number, 0.25 takes a quarter of the documents."""

    bytes: tuple[float, ...]
    epochs: tuple[float, ...]


def plan_mixture(groups: Sequence[Group], available: Sequence[int], total_bytes: int | None) -> Plan:
    """Share out `total_bytes` (None: the sum of what is available) by weight, within each group's limit.

    >>> small, large = Group(name="small", weight=1, max_epochs=2), Group(name="large", weight=1, max_epochs=1)
    >>> plan_mixture([small, large], [100, 1000], 600).bytes
    (200.0, 400.0)
    """
    total = float(sum(available) if total_bytes is None else total_bytes)
    limits = [size * group.max_epochs for group, size in zip(groups, available, strict=True)]
    given = [0.0] * len(groups)
    open_ = {i for i, group in enumerate(groups) if group.weight > 0 and available[i] > 0}
    left = total
    while open_:
        weights = sum(groups[i].weight for i in sorted(open_))
        full = [i for i in sorted(open_) if left * (groups[i].weight / weights) >= limits[i]]
        if not full:
            for i in sorted(open_):
                given[i] = left * (groups[i].weight / weights)
            break
        for i in full:
            given[i] = limits[i]
            open_.remove(i)
        left -= sum(limits[i] for i in full)
    epochs = tuple(got / size if size else 0.0 for got, size in zip(given, available, strict=True))
    return Plan(tuple(given), epochs)


def copies(document: Document, epochs: float, seed: int) -> int:
    """Return how many times a document goes into training, on average `epochs`, decided by its doc_id alone."""
    digest = hashlib.blake2b(f"{seed}\n{document.doc_id}".encode(), digest_size=8, person=b"mixture").digest()
    draw = int.from_bytes(digest, "big") / HASH_RANGE
    whole = int(epochs)
    return whole + (1 if draw < epochs - whole else 0)


def shares(sizes: Mapping[str, float]) -> dict[str, float]:
    """Return each value's share of the sum, to six digits; all 0 where the sum is 0."""
    total = sum(sizes.values())
    return {name: round(size / total, 6) if total else 0.0 for name, size in sizes.items()}
