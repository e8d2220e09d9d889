"""The recipe of the block model still runs: a few made-up pages give a file that the extractor reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import zstandard

from tasks.extract import block_model
from tasks.extract.blocks import read
from tasks.extract.features import features_of
from tests.bench import learn_blocks
from tests.tasks.extract.pages import PAGE, SENTENCES

ROWS = [
    {
        "url": f"https://site{number}.example/page",
        "page_type": "article",
        "html": PAGE.replace("valley", f"valley {number}"),
        "main_content": "\n".join(SENTENCES).replace("valley", f"valley {number}"),
    }
    for number in range(40)
]


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(learn_blocks, "FILE", tmp_path / "block_model.json")
    monkeypatch.setattr(block_model, "FILE", tmp_path / "block_model.json")
    monkeypatch.setattr(learn_blocks, "EPOCHS", 6)
    monkeypatch.setattr(learn_blocks, "BATCH", 4)
    path = tmp_path / "pages.jsonl.zst"
    path.write_bytes(zstandard.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    return path


def test_what_is_learnt_is_saved_read_and_scored_on_other_sites(
    pages: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", ["learn_blocks", "--pages", str(pages), "--save"])
    try:
        learn_blocks.main()
        said = capsys.readouterr().out
        learnt, other = map(int, re.findall(r"(\d+) pages to learn from, (\d+) of other sites", said)[0])
        assert learnt + other == len(ROWS)
        assert 0 < other < learnt
        (f1,) = re.findall(r"^all +\d+ +([\d.]+)", said, re.M)
        assert float(f1) > 0.9, "pages all alike are learnt at once"
        # The file says what the network said.
        weights = [layer.weights for layer in block_model.model()]
        assert [w.shape[1] for w in weights] == list(learn_blocks.WIDTHS)
        assert (block_model.scores(features_of(read(PAGE))) > 0).any()
    finally:
        torch.set_num_threads(threads)
        block_model.model.cache_clear()


def test_a_site_is_learnt_from_or_held_out_as_a_whole() -> None:
    for number in range(50):
        urls = [f"https://{host}site{number}.co.uk/{path}" for host in ("", "www.", "a.b.") for path in ("", "x?y")]
        assert len({learn_blocks.held_out(url) for url in urls}) == 1
