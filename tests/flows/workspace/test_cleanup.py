from __future__ import annotations

import os
import time
from pathlib import Path

from flows.workspace.cleanup import collect_garbage


def put(name: str, days_old: float, size: int = 10) -> Path:
    path = Path(".headwater") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    moment = time.time() - days_old * 86_400
    for place in (path, path.parent):
        os.utime(place, (moment, moment))
    return path


def test_what_was_not_used_lately_goes_and_the_rest_stays(workspace: Path) -> None:
    gone = [
        put("shards/aaa/part-00000.parquet", 10),
        put("perplexity/models/old.bin", 10, 30),
        put("train/key/result.json", 8),
        put("scratch/mix-x1/order", 9),
    ]
    kept = [
        put("shards/bbb/part-00000.parquet", 1),
        put("perplexity/models/new.bin", 1),
        put("train/progress.jsonl", 10),
        put("releases/sample/model.bin", 100),
        put("runs/r1/crawl.json", 100),
    ]
    assert collect_garbage(keep_days=7) == (4, 60)
    assert [path.exists() for path in gone] == [False] * 4
    assert [path.exists() for path in kept] == [True] * 5


def test_a_folder_in_which_one_file_is_new_stays(workspace: Path) -> None:
    put("train/key/steps.jsonl", 10)
    fresh = Path(".headwater/train/key/checkpoints/step-1")
    fresh.mkdir(parents=True)
    assert collect_garbage(keep_days=7) == (0, 0)
    assert fresh.exists()
