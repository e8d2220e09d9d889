"""Frees disk space: removes local state that no run has used for a while and that is made again when it is needed."""

from __future__ import annotations

import shutil
import time

from tasks.contracts.workspace import state_folder

REMOVABLE = (
    "shards/*",
    "perplexity/models/*",
    "perplexity/training-*",
    "crawl/*",
    "dedup/memory-*",
    "train/*/",
    "scratch/*",
)
"""Caches, and what a killed run left half-done, as patterns in the state folder."""


def collect_garbage(keep_days: float) -> tuple[int, int]:
    """Remove what was last used more than `keep_days` days ago; return how many entries, and their bytes."""
    oldest = time.time() - keep_days * 86_400
    count = size = 0
    for pattern in REMOVABLE:
        for place in sorted(state_folder().glob(pattern)):
            files = [place, *place.rglob("*")]
            if max(path.stat().st_mtime for path in files) >= oldest:
                continue
            size += sum(path.stat().st_size for path in files if path.is_file())
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()
            count += 1
    return count, size
