"""Marks a release that holds what was taken down: two files beside its card.

The kept copy under `.headwater/releases/` is what counts; `data/release` gets the same two files when it is that
release, also when the stage makes it again (`restore_mark`). Neither is hashed by the release's manifest, so the mark
changes nothing that was proven; and it names tombstones by id, not by address or reason. With them stands what a server
may not say any more (`output_filter`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from flows.history.releases import known_releases, read_mark
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.errors import ManifestError
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.release import TAKEDOWN_MARK_NAME, TAKEDOWN_NOTICE_NAME

MOST_TOMBSTONES_NAMED = 5
"""Tombstones that MLflow names; the mark has them all."""


def mark_release(
    folder: Path,
    manifest_sha256: str,
    tombstones: Mapping[str, Mapping[str, JsonValue]],
    filter_: Mapping[str, JsonValue] | None = None,
) -> bool:
    """Add tombstones to a release folder's mark; return whether anything changed.

    Args:
        tombstones: id → {"kind", "date", "documents", "held_out"}; held out: how many of the documents stand in
            `tasks/` only.
        filter_: what of the text may not be said (`output_filter.make_filter`).
    """
    old: Any = read_mark(folder) or {}
    listed = {**old.get("tombstones", {}), **{name: dict(one) for name, one in tombstones.items()}}
    mark: dict[str, JsonValue] = {"release": manifest_sha256, "tombstones": listed}
    if filter_ is not None:
        mark["filter"] = dict(filter_)
    elif "filter" in old:
        mark["filter"] = old["filter"]
    if mark == old and (folder / TAKEDOWN_NOTICE_NAME).is_file():
        return False
    write_bytes(folder / TAKEDOWN_NOTICE_NAME, notice(listed).encode())
    write_json(folder / TAKEDOWN_MARK_NAME, mark)
    return True


def notice(tombstones: Mapping[str, Any]) -> str:
    """Return TAKEDOWN.md."""
    lines = [
        "# Taken down",
        "",
        "This release was trained on text that has been taken down since, or holds such text in `tasks/`, to be scored",
        "on. Do not deploy it, train on it further or pass it on; use a later release. Its files are unchanged.",
        "",
        "| tombstone | kind | asked on | trained on (documents) | in `tasks/` only (documents) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in sorted(tombstones.items()):
        held_out = one.get("held_out", 0)
        lines.append(f"| `{name}` | {one['kind']} | {one['date']} | {one['documents'] - held_out} | {held_out} |")
    return "\n".join([*lines, ""])


def takedown_note(mark: Mapping[str, Any]) -> str:
    """Return in one line what a mark says."""
    tombstones = mark.get("tombstones", {})
    documents = sum(one["documents"] for one in tombstones.values())
    held_out = sum(one.get("held_out", 0) for one in tombstones.values())
    only = f" ({held_out} of them held out of training, in tasks/)" if held_out else ""
    more = f" and {len(tombstones) - MOST_TOMBSTONES_NAMED} more" if len(tombstones) > MOST_TOMBSTONES_NAMED else ""
    named = ", ".join(sorted(tombstones)[:MOST_TOMBSTONES_NAMED])
    return f"holds {documents} documents{only} under tombstones {named}{more}"


def restore_mark(release: Path) -> None:
    """Give a release folder that was made again the mark of its kept copy."""
    own = manifest_hash(release)
    for known in known_releases():
        if known.manifest_sha256 == own and known.takedown is not None and known.folder != release:
            for name in (TAKEDOWN_MARK_NAME, TAKEDOWN_NOTICE_NAME):
                write_bytes(release / name, (known.folder / name).read_bytes())


def is_release(folder: Path, manifest_sha256: str) -> bool:
    """Return whether a folder is the release with this manifest."""
    try:
        return manifest_hash(folder) == manifest_sha256
    except ManifestError:
        return False
