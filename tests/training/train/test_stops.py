"""A run that is told to stop saves its state, and goes on to the same bytes, wherever and however it trains."""

from typing import Any

import pytest

from tests.training.train.in_process import SMALL, in_another_process
from tests.training.train.token_folders import make_tokens

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parts": {"gradient_accumulation": 4},
    "fixed_order": {"fixed_order": True},
    "muon": {"optimizer": "muon"},
    "zero-3": {"strategy": "zero-3"},
    "bf16": {"strategy": "zero-1", "precision": "bf16"},
    "wsd": {"schedule": "wsd", "epochs": 2, "seed": 3},
}
STEPS: int = SMALL["max_steps"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("stops")
    make_tokens(root)
    runs: list[dict[str, Any]] = []
    for kind, settings in KINDS.items():
        runs.append({"name": f"{kind}-whole", **settings})
        for step in range(STEPS - 2) if kind == "plain" else (0, 6, 9):
            runs.append({"name": f"{kind}-{step}-cut", "stop": step, **settings})
            # The second stop is one step on: what was restored is saved and restored once more.
            runs.append({"name": f"{kind}-{step}-again", "stop": step + 1, **settings})
            runs.append({"name": f"{kind}-{step}-on", **settings})
    runs.append({"name": "cores-cut", "stop": 4, "cores": 1})
    runs.append({"name": "cores-on", "cores": 2})
    return {one["name"]: one for one in in_another_process(root, runs)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_stopped_goes_on_to_the_same_bytes(results: dict[str, dict[str, Any]], kind: str) -> None:
    stops = [name.removesuffix("-cut") for name in results if name.startswith(f"{kind}-") and name.endswith("-cut")]
    assert len(stops) == (STEPS - 2 if kind == "plain" else 3)
    for name in stops:
        step = int(name.rpartition("-")[2])
        assert f"step-{step + 1:08d} of {STEPS} steps" in results[f"{name}-cut"]["said"]
        assert results[f"{name}-again"]["from"] == [step + 1]
        assert results[f"{name}-on"]["from"] == [step + 2]
        assert results[f"{name}-on"]["manifest"] == results[f"{kind}-whole"]["manifest"]


def test_another_number_of_cores_goes_on_as_well(results: dict[str, dict[str, Any]]) -> None:
    assert results["cores-on"]["from"] == [5]
