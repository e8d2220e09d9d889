"""What each way in loads: a library that only another command needs costs every start of this one its import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from flows.workspace.graph import load_graph
from tests.conftest import ROOT

TRAINING = {"torch", "transformers", "datasets", "lm_eval"}
SERVERS = {"prefect", "mlflow", "ray", "dvc", "sqlalchemy", "fastapi"}
LOADED = """
import json, sys
{code}
print(json.dumps(sorted({{*sys.modules}} & set({asked}))))
"""


def loaded(code: str, asked: set[str]) -> set[str]:
    """Return which of these modules a new process has loaded after it ran this code."""
    script = LOADED.format(code=code, asked=sorted(asked))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import flows.cli.main", TRAINING | SERVERS | {"pandas", "scrapy", "requests"}),
        # A stage's process, and all that a run checks before it starts.
        ("import flows.cli.main, flows.pipeline.stage_run", TRAINING | SERVERS | {"pandas", "scrapy", "requests"}),
        (
            "import flows.pipeline.preflight; from flows.workspace.graph import load_graph; "
            "[stage.params_class for stage in load_graph().values()]",
            TRAINING | SERVERS | {"pandas", "scrapy"},
        ),
        # Reads Prefect's client and the form of all stages' settings; the server is another process.
        (
            "import flows.pipeline.flow",
            (TRAINING | SERVERS | {"pandas", "scrapy", "prefect.server.api.server"}) - {"prefect"},
        ),
        # A stage's process in a run, and the processes that wait until a stage asks for them.
        (
            "import flows.__main__, flows.mlflow.mirror_server, tasks.engine.host",
            TRAINING | SERVERS | {"pandas", "scrapy", "typer", "numpy", "pyarrow"},
        ),
        # Of the libraries above, the mirror is there to load these, and no others.
        ("import flows.mlflow.mirror_process", {"prefect", "ray", "torch", "transformers", "scrapy"}),
    ],
)
def test_a_start_does_not_load_what_only_others_need(code: str, unwanted: set[str]) -> None:
    assert loaded(code, unwanted) == set()


def test_a_stage_loads_heavy_libraries_only_at_work() -> None:
    """Asked of one process that loads all of them: what none has loaded, no single one has."""
    modules = [f"{'tasks' if stage.uses_ray else 'training'}.{name}.stage" for name, stage in load_graph().items()]
    assert len(modules) > 10
    assert loaded(f"import {', '.join(modules)}", TRAINING | SERVERS | {"pandas", "scrapy"}) == set()


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded("import json.tool, sqlite3", {"sqlite3", "torch"}) == {"sqlite3"}
