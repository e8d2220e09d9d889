"""MLflow emptied and made again from the files says the same as MLflow that watched the stages run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.history import run_records
from flows.history.marks import mark_release
from flows.history.releases import known_releases
from flows.mlflow.mirror import StageMirror, mirror_server
from flows.mlflow.takedown_tags import mark_in_mlflow
from tasks.contracts.errors import GateError
from tasks.contracts.manifest import Counts
from tests.planted import plant_manifest
from training.champions import promote

GRAPH: dict[str, list[str]] = {
    "crawl": [],
    "mix": ["crawl"],
    "tokenize": ["mix"],
    "train": ["tokenize"],
    "gate": ["train"],
    "release": ["crawl", "mix", "tokenize", "train", "gate"],
}
PARAMS: dict[str, Any] = {"steps": 3, "workers": 2}
GATE = '{"verdict": "pass", "rules": [{"rule": "floor", "verdict": "pass", "detail": "below"}]}'


def run_stage(run: str, stage: str, content: str = "a", *, fails: BaseException | None = None) -> None:
    """Run a toy stage as flows/pipeline/stage_run.py does: mirrored, then recorded."""
    output = Path("data") / stage
    shutil.rmtree(output, ignore_errors=True)
    inputs = {name: Path("data") / name for name in GRAPH[stage]}
    started_at = run_records.now()
    mirror = StageMirror(run=run, stage=stage, params=PARAMS, inputs=inputs, output=output, started_at=started_at)
    try:
        with mirror:
            if fails:
                raise fails
            write_output(stage, output, inputs, content)
    except (GateError, KeyboardInterrupt) as error:
        run_records.write_record(run=run, stage=stage, started_at=started_at, error=error, params=PARAMS, inputs=inputs)
        return
    run_records.write_record(
        run=run,
        stage=stage,
        started_at=started_at,
        output=output,
        params=PARAMS,
        inputs=inputs,
        mlflow=mirror.ids,
        digests=mirror.digests,
    )


def write_output(stage: str, output: Path, inputs: Mapping[str, Path], content: str) -> None:
    output.mkdir(parents=True)
    (output / "part-00000.txt").write_text(f"{stage} {content}")
    if stage == "train":
        progress = Path(".headwater/train/progress.jsonl")
        progress.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"step": n, "train_loss": 5.0 - n, "elapsed": n / 2}) + "\n" for n in range(3)]
        progress.write_text("".join(lines))
        (output / "metrics.json").write_text('{"train_loss": 3.0}')
    if stage == "gate":
        (output / "report.json").write_text(GATE)
    if stage == "release":
        write_release(output, content)
    counts = Counts(in_=10, out=7, dropped={"short": 2, "odd": 1})
    identity = {"name": "toy"} if stage == "release" else {"steps": 3}
    plant_manifest(output, stage=stage, unit="documents", params=identity, inputs=inputs, counts=counts)
    if stage == "release":
        promote(output)


def write_release(output: Path, content: str) -> None:
    (output / "model.safetensors").write_text(f"weights {content}")
    (output / "README.md").write_text("---\nlicense: other\n---\n\n# The card")
    (output / "gate.json").write_text(GATE)
    (output / "lineage.json").write_text('{"weights_sha256": "abc", "name": "toy"}')
    (output / "papers").mkdir()
    (output / "papers" / "croissant.json").write_text("{}")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four runs: a whole one; one that DVC let begin at the training; a gate that said no; one that was stopped."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEADWATER_STATE", str(folder / ".headwater"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with mirror_server():
            for stage in GRAPH:
                run_stage("r1", stage)
            attempt = Path(".headwater/attempts/0123456789abcdef")
            attempt.mkdir(parents=True)
            said_no = GateError("the gate says no", where=str((attempt / "report.md").resolve()))
            run_stage("r2", "gate", fails=said_no)
            run_stage("r3", "crawl", fails=KeyboardInterrupt())
            for stage in ("crawl", "mix", "tokenize"):
                run_stage("r4", stage)
            for stage in ("train", "gate", "release"):
                run_stage("r5", stage, "b")
            # Run again to the same bytes: what the earlier runs reused is not this run's.
            run_stage("r6", "mix")
        (first, _) = known_releases()
        mark_release(
            first.folder, first.manifest_sha256, {"0a1b": {"kind": "url", "date": "2026-01-31", "documents": 3}}
        )
        assert mark_in_mlflow([first.manifest_sha256])
        yield folder


def content_of_mlflow() -> dict[str, Any]:
    """Return all that the client tells, with the names of runs in place of the ids that MLflow gives."""
    from flows.mlflow.stage_runs import open_client

    client = open_client()
    experiment = client.get_experiment_by_name("headwater")
    assert experiment is not None
    runs = list(reversed(client.search_runs([experiment.experiment_id], max_results=500)))
    names = {}
    for run in runs:
        tags = run.data.tags
        kind = tags.get("headwater.stage", "pipeline")
        names[run.info.run_id] = f"<{tags['headwater.run']} {kind} {tags.get('headwater.started_at', '')}>"

    def plain(value: Any) -> Any:
        text = json.dumps(value, sort_keys=True, default=str)
        for run_id, name in names.items():
            text = text.replace(run_id, name)
        return json.loads(text)

    def artifacts(run_id: str, path: str | None = None) -> Iterator[tuple[str, str]]:
        for entry in client.list_artifacts(run_id, path):
            if entry.is_dir:
                yield from artifacts(run_id, entry.path)
            else:
                yield entry.path, Path(client.download_artifacts(run_id, entry.path)).read_text()

    found: dict[str, Any] = {}
    for run in runs:
        run_id = run.info.run_id
        found[names[run_id]] = {
            "status": run.info.status,
            "start": run.info.start_time,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
                for name in run.data.metrics
            },
            "datasets": {
                i.tags[0].value + " " + i.dataset.name: dict(i.dataset)
                for i in (run.inputs.dataset_inputs if run.inputs else ())
            },
            "artifacts": dict(artifacts(run_id)),
        }
    found["champion"] = client.get_model_version_by_alias("headwater", "champion").version
    for version in client.search_model_versions("name = 'headwater'"):
        assert version.source is not None
        found[f"version {version.version}"] = {
            "tags": version.tags,
            "description": version.description,
            "run": version.run_id,
            "files": sorted(p.name for p in Path(version.source.removeprefix("file://")).rglob("*")),
        }
    return plain(found)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def before_and_after(workspace: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from flows.mlflow.sync import sync

    before = content_of_mlflow()
    # A name of its own, since MLflow keeps the connection to a database that is gone.
    with pytest.MonkeyPatch.context() as patch:
        shutil.rmtree(workspace / ".headwater/mlflow-artifacts")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'again.db'}")
        counted = sync(workspace)
        assert counted["added"] == len(run_records.read_records())
        assert sync(workspace)["added"] == 0
        return before, content_of_mlflow()


def test_every_run_and_version_is_there_again(before_and_after: tuple[dict[str, Any], dict[str, Any]]) -> None:
    before, after = before_and_after
    assert sorted(after) == sorted(before)
    assert {"version 1", "version 2"} <= set(after)
    assert before["champion"] == after["champion"] == 2


@pytest.mark.parametrize("part", ["status", "params", "tags", "metrics", "datasets", "artifacts"])
def test_runs_say_the_same_as_before(before_and_after: tuple[dict[str, Any], dict[str, Any]], part: str) -> None:
    before, after = before_and_after
    runs = [name for name in before if name.startswith("<")]
    assert len(runs) == 15 + 6, "stages and pipelines"
    gone = {"r1 gate", "r1 train"} if part in ("artifacts", "metrics") else set()
    for name in runs:
        if not any(name.startswith(f"<{lost} ") for lost in gone):
            assert after[name][part] == before[name][part], name


def test_of_a_replaced_output_what_its_manifest_says_comes_back(
    before_and_after: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    before, after = before_and_after
    name = next(name for name in before if name.startswith("<r1 gate "))
    assert set(before[name]["artifacts"]) - set(after[name]["artifacts"]) == {"report.json"}
    kept = set(after[name]["artifacts"])
    assert kept == {"_manifest.json", "dropped.json", "dropped.svg"}
    assert all(after[name]["artifacts"][file] == before[name]["artifacts"][file] for file in kept)


def test_versions_say_the_same_as_before(before_and_after: tuple[dict[str, Any], dict[str, Any]]) -> None:
    before, after = before_and_after
    for version in ("version 1", "version 2"):
        assert after[version] == before[version]


def test_a_version_with_text_that_was_taken_down_says_so_first(
    before_and_after: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for content in before_and_after:
        assert content["version 1"]["tags"]["headwater.takedown"] == "holds 3 documents under tombstones 0a1b"
        assert content["version 1"]["description"].startswith("**Taken down.** holds 3 documents")
        assert "headwater.takedown" not in content["version 2"]["tags"]


def test_a_version_leads_to_verdict_picture_papers_and_pipeline_run(
    before_and_after: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for content in before_and_after:
        version = content["version 1"]
        assert version["tags"]["gate.verdict"] == "pass"
        assert "none asked for" in version["tags"]["gate.approver"]
        assert "**Gate: pass.**" in version["description"]
        release = version["tags"]["headwater.release_run"]
        assert f"{release}/artifacts/lineage.html" in version["description"]
        files = content[release]["artifacts"]
        assert {"papers/README.md", "papers/gate.json", "papers/papers/croissant.json", "lineage.html"} <= set(files)
        assert "papers/model.safetensors" not in files
        assert "lineage.html" not in version["files"]


def test_what_a_run_reused_names_the_run_that_made_it(
    before_and_after: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for content in before_and_after:
        tags = next(run["tags"] for name, run in content.items() if name.startswith("<r5 pipeline"))
        assert tags["headwater.stage.train"] == "made by this run"
        assert tags["headwater.stage.mix"] == "reused from run r4"
        table = next(run for name, run in content.items() if name.startswith("<r5 pipeline"))["artifacts"][
            "stages.json"
        ]
        assert next(row[:2] for row in json.loads(table)["data"]) == ["crawl", "reused from run r4"]
        failed = next(run["tags"] for name, run in content.items() if name.startswith("<r2 pipeline"))
        assert failed["headwater.stage.gate"] == "failed"
        assert failed["headwater.stage.train"] == "reused from run r1"


def test_drop_reasons_are_a_table_that_mlflow_knows_as_one(
    before_and_after: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for content in before_and_after:
        run = next(run for name, run in content.items() if name.startswith("<r4 mix"))
        table = json.loads(run["artifacts"]["dropped.json"])
        assert table["data"] == [["short", 2, "20.00%"], ["odd", 1, "10.00%"]]
        assert json.loads(run["tags"]["mlflow.loggedArtifacts"]) == [{"path": "dropped.json", "type": "table"}]
        assert ">short</text>" in run["artifacts"]["dropped.svg"]


def test_the_page_of_the_command_is_the_one_in_mlflow(
    workspace: Path, before_and_after: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    from flows.report.picture import write_picture

    page = write_picture(workspace).read_text()
    for content in before_and_after:
        name = next(name for name in content if name.startswith("<r5 release"))
        assert content[name]["artifacts"]["lineage.html"] == page
    assert "reused from run r4" in page
    assert "http" not in page.replace("http_", "")
    assert "<script" not in page
