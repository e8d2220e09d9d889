"""What MLflow shows of a pipeline, mirrored by a process beside each stage and made again from the records."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.history import run_records
from flows.history.digest import dvc_digest
from flows.mlflow.mirror import SERVER_VARIABLE, StageMirror, mirror_server
from tasks.contracts.manifest import Counts, manifest_hash
from tests.planted import plant_manifest
from training.champions import Champion

GRAPH: dict[str, list[str]] = {
    "crawl": [],
    "mix": ["crawl"],
    "tokenize": ["mix"],
    "train": ["tokenize"],
    "gate": ["train"],
    "release": ["gate", "train"],
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One pipeline run, mirrored as the flow does it: loading MLflow and making its database takes many seconds."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEADWATER_STATE", str(folder / ".headwater"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with mirror_server():
            for stage in GRAPH:
                run_stage("r1", stage)
            yield folder


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage starts a mirror of its own, as under a plain `dvc repro`."""
    monkeypatch.delenv(SERVER_VARIABLE)


def run_stage(run: str, stage: str) -> StageMirror:
    output = Path("data") / stage
    shutil.rmtree(output, ignore_errors=True)
    inputs = {name: Path("data") / name for name in GRAPH[stage]}
    started_at = run_records.now()
    params: dict[str, Any] = {"steps": 3, "nested": {"rules": [{"use": "a"}]}}
    with StageMirror(
        run=run, stage=stage, params=params, inputs=inputs, output=output, started_at=started_at
    ) as mirror:
        output.mkdir(parents=True)
        (output / "part-00000.txt").write_text(stage)
        if stage == "train":
            progress = Path(".headwater/train/progress.jsonl")
            progress.parent.mkdir(parents=True, exist_ok=True)
            progress.write_text("".join(json.dumps({"step": n, "loss": 5.0 - n}) + "\n" for n in range(3)))
        if stage == "release":
            (output / "model.safetensors").write_text("weights")
            (output / "README.md").write_text("---\nlicense: other\n---\n\n# The card")
            (output / "gate.json").write_text('{"verdict": "pass"}')
        counts = Counts(in_=10, out=7, dropped={"short": 2, "odd": 1})
        plant_manifest(output, stage=stage, unit="documents", params=params, inputs=inputs, counts=counts)
    run_records.write_record(
        run=run,
        stage=stage,
        started_at=started_at,
        output=output,
        params=params,
        inputs=inputs,
        mlflow=mirror.ids,
        digests=mirror.digests,
    )
    return mirror


def mlflow_run(stage: str, run: str = "r1"):  # type: ignore[no-untyped-def]
    from flows.mlflow.stage_runs import open_client

    client = open_client()
    found = client.get_experiment_by_name("headwater")
    assert found is not None
    query = f"tags.`headwater.run` = '{run}' and tags.`headwater.stage` = '{stage}'"
    return client, client.search_runs([found.experiment_id], query)[0]


def test_each_stage_is_a_finished_child_of_one_parent_run(workspace: Path) -> None:
    parents = set()
    for stage in GRAPH:
        _, run = mlflow_run(stage)
        assert run.info.status == "FINISHED"
        parents.add(run.data.tags["mlflow.parentRunId"])
    assert len(parents) == 1


def test_settings_counts_and_files_are_there(workspace: Path) -> None:
    client, run = mlflow_run("mix")
    assert run.data.params == {"steps": "3", "nested.rules.0.use": "a"}
    assert run.data.metrics["in"] == 10
    assert run.data.metrics["out"] == 7
    assert run.data.metrics["dropped.short"] == 2
    assert "shards.rows" not in run.data.metrics, "its files have no rows, which is not 0 of them"
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert names == {"_manifest.json", "dropped.json", "dropped.svg"}
    assert run.data.tags["headwater.manifest"] == manifest_hash(Path("data/mix"))


def test_training_leads_to_every_dataset_back_to_the_crawl(workspace: Path) -> None:
    client, run = mlflow_run("train")
    linked = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert set(linked) == {"crawl", "mix", "tokenize", "output"}
    for stage in ("crawl", "mix", "tokenize"):
        assert linked[stage].digest == dvc_digest(Path("data") / stage)
        producer = json.loads(linked[stage].source)["url"].rsplit("/", 1)[1]
        assert client.get_run(producer).data.tags["headwater.stage"] == stage


def test_the_loss_was_followed_step_by_step(workspace: Path) -> None:
    client, run = mlflow_run("train")
    history = client.get_metric_history(run.info.run_id, "train.loss")
    assert [(point.step, point.value) for point in history] == [(0, 5.0), (1, 4.0), (2, 3.0)]


def test_the_champion_leads_to_its_training_run_and_files(workspace: Path) -> None:
    client, train = mlflow_run("train")
    version = client.get_model_version_by_alias("headwater", "champion")
    assert version.run_id == train.info.run_id
    assert version.description.endswith("# The card")
    assert version.tags["gate.verdict"] == "pass"
    assert version.tags["headwater.manifest"] == manifest_hash(Path("data/release"))
    assert Path(version.source.removeprefix("file://"), "model.safetensors").read_text() == "weights"


def test_the_same_release_again_keeps_its_version(workspace: Path) -> None:
    run_stage("r2", "release")
    client, _ = mlflow_run("release", "r2")
    assert len(client.search_model_versions("name = 'headwater'")) == 1


def test_a_signed_release_has_its_signature_beside_its_files_and_whose_it_is_as_a_tag(workspace: Path) -> None:
    own = manifest_hash(Path("data/release"))
    champion = Champion(release=own, weights_sha256="0" * 64, name="toy", folder="releases/toy")
    champion.path.mkdir(parents=True)
    signature = {"verificationMaterial": {"publicKey": {"hint": "abc123"}}}
    (champion.path / "model.sig").write_text(json.dumps(signature))
    Path(".headwater/champions.jsonl").write_text(champion.model_dump_json() + "\n")
    try:
        run_stage("r2b", "release")
    finally:
        Path(".headwater/champions.jsonl").unlink()
        shutil.rmtree(champion.path)
    client, _ = mlflow_run("release", "r2b")
    version = client.get_model_version_by_alias("headwater", "champion")
    assert version.tags["headwater.signature"] == "OpenSSF, key abc123"
    assert json.loads(Path(version.source.removeprefix("file://"), "model.sig").read_text()) == signature


def test_a_failed_stage_shows_its_error(workspace: Path, no_server: None) -> None:
    with (
        pytest.raises(ValueError, match="bad news"),
        StageMirror(run="r3", stage="crawl", params={}, inputs={}, output=Path("data/none")),
    ):
        raise ValueError("bad news")
    _, run = mlflow_run("crawl", "r3")
    assert run.info.status == "FAILED"
    assert run.data.tags["headwater.error"] == "ValueError: bad news"


def test_mlflow_out_of_reach_is_one_warning_and_no_failure(
    workspace: Path, no_server: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with StageMirror(run="r4", stage="crawl", params={}, inputs={}, output=Path("data/crawl")) as mirror:
        pass
    assert mirror.ids is None
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "headwater lineage sync" in caplog.text


def test_a_stage_that_is_killed_is_closed_as_killed(workspace: Path) -> None:
    code = (
        "import os, time; from pathlib import Path; from flows.mlflow.mirror import StageMirror\n"
        "mirror = StageMirror(run='r5', stage='crawl', params={}, inputs={}, output=Path('x')).__enter__()\n"
        "time.sleep(1); os._exit(9)"
    )
    root = str(Path(run_records.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=False, env=_environment(workspace, root))
    for _ in range(60):
        time.sleep(0.5)
        try:
            _, run = mlflow_run("crawl", "r5")
        except IndexError:
            continue
        if run.info.status == "KILLED":
            return
    pytest.fail("the run was never closed")


def test_a_run_whose_mirror_was_killed_too_is_closed_by_the_next_run(
    workspace: Path, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_STATE", str(workspace / "killed"))
    with mirror_server():
        mirror = StageMirror(run="r6", stage="crawl", params={}, inputs={}, output=Path("x")).__enter__()
        marks = Path("killed/mirroring")
        for _ in range(120):
            if any(marks.glob("*")):
                break
            time.sleep(0.5)
        for process in psutil.Process().children(recursive=True):
            process.kill()
    assert mirror._line is not None
    mirror._line.close()  # as the end of a killed stage closes it
    assert mirror.ids is None
    client, run = mlflow_run("crawl", "r6")
    assert run.info.status == "RUNNING"
    with mirror_server():
        deadline = time.monotonic() + 120
        while any(marks.glob("*")) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def _environment(workspace: Path, root: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": root, "HEADWATER_STATE": str(workspace / ".headwater")}


def test_mlflow_is_made_again_from_the_records(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.mlflow.sync import sync

    assert sync(workspace)["added"] == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'again.db'}")
    before = len(run_records.read_records())
    assert sync(workspace)["added"] == before
    assert sync(workspace) == {"added": 0, "already": before, "no data": 0}
    test_training_leads_to_every_dataset_back_to_the_crawl(workspace)
    test_the_champion_leads_to_its_training_run_and_files(workspace)
