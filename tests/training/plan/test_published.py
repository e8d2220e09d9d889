"""The estimate of speed against what others measured and published."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from tests.bench.fit_plan import fit
from training.plan.published import PUBLISHED, error, errors_by_source, published
from training.plan.shape import Shape
from training.plan.speed import FITTED

ROWS = published()
HELD_OUT = [row for row in ROWS if row.held_out]


def test_there_are_rows_of_many_sources_and_each_says_where_it_is_from() -> None:
    sources = json.loads(PUBLISHED.read_bytes())["sources"]
    assert sum(len(source["rows"]) for source in sources) == len(ROWS) >= 60
    assert len(sources) >= 5
    for source in sources:
        assert source["url"].startswith("https://github.com/"), source["name"]
        assert re.fullmatch(r"[0-9a-f]{40}", source["commit"]), source["name"]
    assert len({row.run.machine.device.name for row in ROWS}) >= 5
    assert all(row.measured > 0 for row in ROWS)


def test_the_median_error_on_models_that_nothing_was_fitted_to_is_a_fifth_at_most() -> None:
    assert len(HELD_OUT) >= 60
    assert not {row.model for row in HELD_OUT} & {row.model for row in ROWS if not row.held_out}
    assert error(HELD_OUT).median <= 0.20
    assert error(HELD_OUT).worst_tenth <= 0.30


def test_a_worse_estimate_would_be_seen() -> None:
    for worse in (
        replace(FITTED, share={kind: share * 1.5 for kind, share in FITTED.share.items()}),
        replace(FITTED, moved=5 * FITTED.moved),
        replace(FITTED, software=dict.fromkeys(FITTED.software, 0.7)),
    ):
        assert error(HELD_OUT, worse).median > 0.20


@pytest.mark.parametrize(("source", "found"), list(errors_by_source(HELD_OUT)))
def test_no_source_is_far_off(source: str, found: object) -> None:
    ours = error(row for row in HELD_OUT if row.source == source)
    assert ours == found
    assert ours.median <= (0.20 if ours.rows > 1 else 0.35)


def test_the_constants_are_those_that_their_half_of_the_rows_gives() -> None:
    again = fit([row for row in ROWS if not row.held_out])
    for name in FITTED.share:
        assert again.share[name] == pytest.approx(FITTED.share[name], rel=0.01), name
    for stack in FITTED.software:
        assert again.software[stack] == pytest.approx(FITTED.software[stack], rel=0.01), stack
    assert (again.moved, again.exposed, again.exposed_streaming) == (
        FITTED.moved,
        FITTED.exposed,
        FITTED.exposed_streaming,
    )


MFU = [  # llm-foundry, scripts/train/benchmarking/README.md: model, seq_len, tokens/s a device, peak, MFU in per cent
    ((32, 4096, 32), 2048, 10643, 989.4e12, 46.44),
    ((32, 4096, 32), 65536, 1956, 989.4e12, 28.59),
    ((12, 768, 12), 2048, 142830, 312e12, 44.79),
    ((24, 2048, 16), 32768, 6275, 312e12, 55.52),
    ((80, 8192, 64), 2048, 410, 312e12, 53.33),
]


@pytest.mark.parametrize(("widths", "seq_len", "speed", "peak", "mfu"), MFU)
def test_operations_are_counted_as_others_count_them(
    widths: tuple[int, int, int], seq_len: int, speed: float, peak: float, mfu: float
) -> None:
    layers, width, heads = widths
    shape = Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        inner=4 * width,
        vocabulary=50_368,
        gated=False,
        tied=True,
    )
    assert shape.model_operations(seq_len) * speed / peak * 100 == pytest.approx(mfu, rel=0.02)
    assert shape.operations(seq_len, "none") == shape.model_operations(seq_len)
    assert 1.1 < shape.operations(seq_len, "full") / shape.model_operations(seq_len) < 4 / 3
