"""What stages changed or marked without dropping it: counted from the ledgers, since manifests count drops only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.contracts.files import DROPPED_FOLDER, PARQUET_PARTS

# Rules whose detail counts what was found by kind: "email: 2, ip: 1".
MASKING = ("pii", "secrets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Counts of ledger rows.

    Attributes:
        changed, marked: stage → rule → documents that were edited, or only noted.
        masked: rule → kind of personal data or secret → how many were masked.
        opt_outs: signals of pages that extract dropped for them → pages.
    """

    changed: Mapping[str, Mapping[str, int]]
    marked: Mapping[str, Mapping[str, int]]
    masked: Mapping[str, Mapping[str, int]]
    opt_outs: Mapping[str, int]


def read_edits(folders: Mapping[str, Path]) -> Edits:
    """Count the ledgers of the text stages, by a few columns of each."""
    changed: dict[str, Counter[str]] = {}
    marked: dict[str, Counter[str]] = {}
    masked: dict[str, Counter[str]] = {rule: Counter() for rule in MASKING}
    opt_outs: Counter[str] = Counter()
    for stage, folder in folders.items():
        for path in sorted((folder / DROPPED_FOLDER).glob(PARQUET_PARTS)):
            detailed = stage in ("extract", "filter")
            table = pq.read_table(path, columns=["action", "rule", *(["detail"] if detailed else [])])
            for action, target in (("edit", changed), ("note", marked)):
                rules = table.filter(pc.equal(table["action"], action))["rule"]
                for row in pc.value_counts(rules).to_pylist():
                    target.setdefault(stage, Counter())[row["values"]] += row["counts"]
            if stage == "extract":
                gone = pc.and_(pc.equal(table["action"], "drop"), pc.equal(table["rule"], "opt_out"))
                opt_outs.update(detail or "not named" for detail in table.filter(gone)["detail"].to_pylist())
            if stage == "filter":
                for rule in MASKING:
                    edited = pc.and_(pc.equal(table["action"], "edit"), pc.equal(table["rule"], rule))
                    for detail in table.filter(edited)["detail"].to_pylist():
                        masked[rule].update(kinds(detail))
    return Edits(
        changed={stage: _sorted(rules) for stage, rules in changed.items()},
        marked={stage: _sorted(rules) for stage, rules in marked.items()},
        masked={rule: _sorted(found) for rule, found in masked.items()},
        opt_outs=_sorted(opt_outs),
    )


def kinds(detail: str | None) -> Counter[str]:
    """Read how many of each kind were masked.

    >>> kinds("email: 2, ip: 1")
    Counter({'email': 2, 'ip': 1})
    """
    pairs = (part.rpartition(": ") for part in (detail or "").split(", "))
    return Counter({kind: int(number) for kind, _, number in pairs if kind and number.isdigit()})


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
