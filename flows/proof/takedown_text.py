"""What a takedown touches, as its commands say it: as values for scripts, and in lines for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from flows.output import console

MOST_EXAMPLES_SHOWN = 10


def as_values(found: Any) -> dict[str, Any]:
    """Return what is affected, as `--json` prints it."""
    return {
        "complete": not found.unreachable,
        "unreachable": found.unreachable,
        "read_elsewhere": found.elsewhere,
        "documents": [asdict(one) for one in found.covered],
        "duplicates": found.duplicates,
        "shards": {stage: {"affected": names, "of": found.of[stage]} for stage, names in found.shards.items()},
        "token_shards": {"affected": found.token_shards, "of": found.of.get("tokenize", 0)},
        "checkpoint": found.checkpoint,
        "perplexity_reference": found.reference,
        "retrain": found.checkpoint or bool(found.shards.get("mix")),
        "releases": [
            {
                "name": one.name,
                "manifest_sha256": name,
                "documents": len(documents),
                "held_out": len(found.held_out[name]),
                "marked": one.takedown is not None,
            }
            for name, (one, documents) in found.releases.items()
        ],
    }


def print_answer(answer: dict[str, Any], tombstones: int) -> None:
    """Print the same for people."""
    documents = answer["documents"]
    if not tombstones:
        console.print("nothing is taken down")
        return
    by = Counter(one["by"] for one in documents)
    console.print(f"{tombstones} tombstones cover {len(documents)} documents" + (f" ({_counted(by)})" if by else ""))
    for one in documents[:MOST_EXAMPLES_SHOWN]:
        score = "" if one["score"] is None else f" {one['score']:.2f}"
        console.print(f"  {one['tombstone']}  {one['by']}{score}  {one['url']}", soft_wrap=True)
    if len(documents) > MOST_EXAMPLES_SHOWN:
        console.print(f"  {len(documents) - MOST_EXAMPLES_SHOWN} more; --json names them all")
    console.print(f"{len(answer['duplicates'])} ledger rows of dedup tie them to duplicates")
    for stage, shards in answer["shards"].items():
        console.print(f"  {stage:<14} {len(shards['affected'])} of {shards['of']} shards")
    tokens = answer["token_shards"]
    console.print(f"  {'tokenize':<14} {len(tokens['affected'])} of {tokens['of']} token shards")
    if answer["retrain"]:
        console.print("Training text and the tokenizer's sample hold it: tokenizer and model are made again from zero.")
    if answer["perplexity_reference"]:
        console.print("The perplexity model's reference may hold it: that model is trained again too.")
    for one in answer["releases"]:
        mark = "marked" if one["marked"] else "not marked yet"
        only = f", {one['held_out']} of them held out of training, in its tasks/" if one["held_out"] else ""
        console.print(
            f"release {one['name']} {one['manifest_sha256'][:12]}: {one['documents']} documents{only} ({mark})",
            soft_wrap=True,
        )
    if answer["read_elsewhere"]:
        console.print(f"not (or no longer) in data/, and read from the caches: {', '.join(answer['read_elsewhere'])}")
    if not answer["complete"]:
        console.print("INCOMPLETE: not everything could be looked at")
    rows = [row for row in answer["rebuild_estimate"] if row["runs"]]
    if rows:
        known = [row["estimated_seconds"] for row in rows if row["estimated_seconds"] is not None]
        console.print(
            f"rebuild: {len(rows)} stages, about {sum(known):,.0f} s (an estimate, from the last run records)"
        )


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{number} by {name}" for name, number in counter.most_common())
