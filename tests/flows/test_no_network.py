"""A stage that needs the network where there is none, by the command that DVC and Prefect call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.history.run_records import read_records
from tests.conftest import ROOT

SITES = {"source": "sites", "seeds": ["http://no-such-host.invalid/"], "contact": "nobody@test.example"}
WARC = {"source": "warc", "paths": ["https://no-such-host.invalid/a.warc.gz"]}


@pytest.mark.e2e
@pytest.mark.parametrize("settings", [SITES, WARC], ids=["sites", "warc"])
def test_the_stage_ends_with_one_clear_error_that_the_flow_will_try_again(workspace: Path, settings: dict) -> None:  # type: ignore[type-arg]
    shutil.copy(ROOT / "dvc.yaml", workspace)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (workspace / "params.yaml").write_text(yaml.safe_dump({**params, "crawl": settings}))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HEADWATER_RUN": "r1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    command = [sys.executable, "-m", "flows", "crawl"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    printed = result.stdout + result.stderr
    assert result.returncode == 1, printed
    assert "Traceback" not in printed
    assert "error: " in printed
    assert "no-such-host.invalid" in printed
    [record] = read_records("r1")
    assert record.error is not None
    assert (record.error.type, record.error.transient) == ("NetworkError", True)
    assert not (workspace / "data" / "crawl" / "_manifest.json").exists()
