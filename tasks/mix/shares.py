"""How much of each group goes into training: shares asked for, what there is, and what comes of it.

The total is given or as much as there is once. Each group gets its share of it; a group with too little is
repeated up to its `max_epochs`, and what is then still missing is shared among the others in the ratio of their
weights. So the ratio among the groups that are not exhausted holds exactly (up to the sampling of whole documents).

Where no group has a weight, its share follows from its size and a temperature T: size ** (1 / T). T = 1 leaves
the groups as they are, a higher one makes small groups larger (as mBERT and XLM do for languages; Conneau and
Lample 2019, arXiv 1901.07291, take an exponent of 0.7, so T = 1.43).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document
from tasks.contracts.draws import DRAW_RANGE, draw
from tasks.contracts.languages import LanguageCode, same_code
from tasks.contracts.urls import named

REST = "rest"


class Group(FrozenModel, allow_inf_nan=False):
    """Documents that get one weight. A document belongs to the first group whose every given condition holds."""

    name: str = Field(min_length=1)
    """Unique name; "rest" takes what no other group took, wherever it is listed."""
    sources: tuple[str, ...] = ()
    """Sources, exactly; none means any."""
    hosts: tuple[str, ...] = ()
    """Host names, with * and ? as in file names ("*.a.example" means a.example too); none means any."""
    languages: tuple[LanguageCode, ...] = ()
    """Languages, as codes (en, eng), tags (en-US, eng_Latn) or English names; none means any."""
    weight: float | None = Field(None, ge=0)
    """Share asked for of the resulting bytes, relative to the other groups' weights; 0 leaves the group out.

    Not given is 1 where another group has a weight, and follows from the temperature where none has.
    """
    max_epochs: float = Field(2.0, ge=1)
    """Most times a document of this group goes into training."""
    max_tokens: int | None = Field(None, ge=1)
    """Most tokens of this group, repeats counted, estimated as for `total_tokens`."""

    def takes(self, document: Document) -> bool:
        """Say whether the document meets every condition."""
        return (
            (not self.sources or document.source in self.sources)
            and (not self.hosts or named(document.host, self.hosts))
            and (not self.languages or same_code(document.language) in self.languages)
        )


def complete_groups(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups with "rest" last; where it is not listed it is not repeated."""
    rest = next((group for group in groups if group.name == REST), Group(name=REST, max_epochs=1))
    return (*(group for group in groups if group.name != REST), rest)


def group_index(document: Document, groups: Sequence[Group]) -> int:
    """Return the index of the document's group in what `complete_groups` returned."""
    return next((i for i, group in enumerate(groups[:-1]) if group.takes(document)), len(groups) - 1)


def weights_of(groups: Sequence[Group], available: Sequence[int], temperature: float) -> tuple[float, ...]:
    """Return each group's weight: as given, else from its size and the temperature.

    >>> weights_of([Group(name="a"), Group(name="b")], [100, 400], 2.0)
    (10.0, 20.0)
    """
    if any(group.weight is not None for group in groups):
        return tuple(1.0 if group.weight is None else group.weight for group in groups)
    return tuple(float(size) ** (1.0 / temperature) if size else 0.0 for size in available)


@dataclass(frozen=True, slots=True)
class Plan:
    """What each group gets.

    Attributes:
        weights: what was asked for, relative to each other.
        bytes: UTF-8 bytes, repeats counted.
        epochs: a real number, 0.25 takes a quarter of the documents.
        why: why a group gets another share than asked for; "" where it gets that.
    """

    weights: tuple[float, ...]
    bytes: tuple[float, ...]
    epochs: tuple[float, ...]
    why: tuple[str, ...]


def plan_mixture(
    groups: Sequence[Group],
    available: Sequence[int],
    total_bytes: float | None,
    *,
    temperature: float = 1.0,
    bytes_per_token: float = 4.0,
) -> Plan:
    """Share out `total_bytes` (None: the sum of what is available) by weight, within each group's limits.

    >>> small, large = Group(name="small", weight=1, max_epochs=2), Group(name="large", weight=1, max_epochs=1)
    >>> plan = plan_mixture([small, large], [100, 1000], 600)
    >>> plan.bytes
    (200.0, 400.0)
    >>> plan.why
    ('max_epochs reached', 'takes over what other groups could not give')
    """
    weights = weights_of(groups, available, temperature)
    total = float(sum(available) if total_bytes is None else total_bytes)
    limits, why = [], []
    for group, size, weight in zip(groups, available, weights, strict=True):
        budget = float("inf") if group.max_tokens is None else group.max_tokens * bytes_per_token
        limits.append(min(size * group.max_epochs, budget))
        reached = "max_tokens reached" if budget < size * group.max_epochs else "max_epochs reached"
        why.append("no text" if not size else "weight 0" if not weight else reached)
    given = [0.0] * len(groups)
    open_ = {i for i in range(len(groups)) if weights[i] > 0 and available[i] > 0}
    wanting = False
    left = total
    while open_:
        of_open = sum(weights[i] for i in sorted(open_))
        full = [i for i in sorted(open_) if left * (weights[i] / of_open) >= limits[i]]
        if not full:
            for i in sorted(open_):
                given[i] = left * (weights[i] / of_open)
                why[i] = "takes over what other groups could not give" if wanting else ""
            break
        for i in full:
            given[i] = limits[i]
            if left * (weights[i] / of_open) <= limits[i] * (1 + 1e-12):
                why[i] = "takes over what other groups could not give" if wanting else ""
            else:
                wanting = True
            open_.remove(i)
        left -= sum(limits[i] for i in full)
    epochs = tuple(got / size if size else 0.0 for got, size in zip(given, available, strict=True))
    return Plan(weights, tuple(given), epochs, tuple(why))


def copies(document: Document, epochs: float, seed: int) -> int:
    """Return how many times a document goes into training, on average `epochs`, decided by its text alone."""
    whole = int(epochs)
    again = draw(document.text, seed=seed, purpose="mixture") < (epochs - whole) * DRAW_RANGE
    return whole + int(again)


def shares(sizes: Mapping[str, float]) -> dict[str, float]:
    """Return each value's share of the sum, to six digits; all 0 where the sum is 0."""
    total = sum(sizes.values())
    return {name: round(size / total, 6) if total else 0.0 for name, size in sizes.items()}
