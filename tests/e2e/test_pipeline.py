"""The whole pipeline on the embedded sample, through Prefect, DVC, Ray, DeepSpeed, lm-eval and MLflow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from tasks.contracts.document import read_documents
from tests.e2e.workspace import STAGES, FirstRun, Workspace

pytestmark = pytest.mark.e2e


def test_a_run_ends_with_a_table_and_the_places_to_look(first_run: FirstRun) -> None:
    for word in (*STAGES, "robots", "data/release", ".headwater/report.html", "headwater up", "verdict  pass"):
        assert word in first_run.printed
    assert (first_run.folder / ".headwater" / "report.html").is_file()


def test_every_stage_conserves_and_is_chained_to_the_raw_records(finished: Workspace) -> None:
    hashes = finished.hashes()
    assert tuple(hashes) == STAGES
    for stage in STAGES:
        manifest = finished.manifest(stage)
        manifest.counts.check(stage)
        assert all(manifest.inputs[name] == hashes[name] for name in manifest.inputs)
        assert manifest.inputs or stage == "crawl"
        for shard in manifest.shards:
            assert (finished.folder / "data" / stage / shard.name).stat().st_size == shard.bytes


def test_the_sample_gives_every_stage_something_to_catch(finished: Workspace) -> None:
    dropped = {stage: finished.manifest(stage).counts.dropped for stage in STAGES}
    assert dropped["crawl"]["robots"] > 0
    assert sum(dropped["filter"].values()) > 0
    assert dropped["holdout"]["held_out"] > 0


def test_the_release_generates(finished: Workspace) -> None:
    script = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "m, t = M.from_pretrained('data/release'), T.from_pretrained('data/release')\n"
        "print(m.generate(**t('The function returns', return_tensors='pt'), max_new_tokens=5).shape[1])"
    )
    assert int(finished.run(sys.executable, "-c", script).split()[-1]) > 5


def test_mlflow_leads_from_the_champion_to_every_dataset(finished: Workspace) -> None:
    script = (
        "import json, mlflow\n"
        "from mlflow.tracking import MlflowClient\n"
        "c = MlflowClient('sqlite:///.headwater/mlflow.db')\n"
        "v = c.get_model_version_by_alias('headwater', 'champion')\n"
        "r = c.get_run(v.run_id)\n"
        "print('\\n' + json.dumps({'stage': r.data.tags['headwater.stage'],\n"
        "  'inputs': [d.dataset.name for d in r.inputs.dataset_inputs],\n"
        "  'digests': [d.dataset.digest for d in r.inputs.dataset_inputs],\n"
        "  'steps': len(c.get_metric_history(v.run_id, 'train.train_loss'))}))"
    )
    found = json.loads(finished.run(sys.executable, "-c", script).splitlines()[-1])
    assert found["stage"] == "train"
    assert {"crawl", "extract", "filter", "dedup", "tokenize"} <= set(found["inputs"])
    assert all(digest.endswith(".dir") for digest in found["digests"])
    assert found["steps"] == 30


def test_dvc_shows_the_metrics_in_a_table_that_fits_and_no_hash_among_them(finished: Workspace) -> None:
    """A column for each metric of each file: hosts, languages, tasks and hashes have no place in it."""
    table = [line.rstrip() for line in finished.run("dvc", "metrics", "show").splitlines()]
    assert len(table) == 4, table
    assert max(map(len, table)) <= 120, table
    shown = table[0].split()[1:]
    assert {"validation_loss", "bits_per_byte", "accuracy", "bytes_per_token"} <= set(shown)
    values = [word for line in table[1:] for word in line.split()[1:] if word != "-"]
    assert len(values) == len(shown)
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values), "a hash or a text"


def test_a_second_run_says_that_all_is_up_to_date(finished: Workspace) -> None:
    before = finished.hashes()
    printed = finished.run("make", "run")
    assert printed.count("didn't change, skipping") == len(STAGES)
    assert "everything is up to date" in printed
    assert finished.hashes() == before


def test_dvc_agrees_and_restores_everything_from_its_cache(finished: Workspace) -> None:
    before = finished.hashes()
    assert "Data and pipelines are up to date" in finished.run("dvc", "repro")
    shutil.rmtree(finished.folder / "data")
    finished.run("dvc", "checkout")
    assert finished.hashes() == before


def test_a_second_run_in_the_same_workspace_at_the_same_time_is_refused(finished: Workspace) -> None:
    hold = (
        "import time\n"
        "from flows.workspace.locks import workspace_lock\n"
        "with workspace_lock('run'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(99)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], cwd=finished.folder, env=finished.environment, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        printed = finished.run("headwater", "run", code=1)
        holder.kill()
    assert "another run is at work in this workspace" in printed
    assert str(holder.pid) in printed


def test_a_list_with_another_content_runs_its_stage_again(finished: Workspace) -> None:
    settings, lock, denied = (finished.folder / name for name in ("params.yaml", "dvc.lock", "denied.txt"))
    saved, locked, before = settings.read_text(), lock.read_text(), finished.hashes()
    host = next(read_documents(finished.folder / "data/extract/part-00000.parquet")).host
    denied.write_text("nowhere.example")
    settings.write_text(saved.replace("url: {", "url: {lists: [denied.txt], ", 1))
    try:
        with finished.runs("filter") as run:
            run()
            assert "everything is up to date" in run()
            for hosts in (host, "nowhere.example"):
                denied.write_text(hosts)
                assert "filter runs again, as another content is in denied.txt" in run()
                lock.write_text(locked)  # DVC now looks for an earlier run with these settings, and there were several
                run()
                assert ("url.list" in finished.manifest("filter").counts.dropped) == (hosts == host)
    finally:
        settings.write_text(saved)
        lock.write_text(locked)
        denied.unlink()
        finished.run("dvc", "checkout", "--force")
    assert finished.hashes() == before


def test_a_failed_gate_stops_the_release_and_says_by_how_much(finished: Workspace) -> None:
    saved = (finished.folder / "params.yaml").read_bytes()
    before = finished.hashes()
    try:
        printed = finished.run("headwater", "run", "--set", "gate.floor_margin=5", code=1)
    finally:
        (finished.folder / "params.yaml").write_bytes(saved)
        finished.run("dvc", "checkout", "--force")
    assert "the gate says no" in printed
    assert "floor" in printed
    assert "policy_changed" in printed, "the policy was changed after training, which must not pass unseen"
    assert finished.hashes() == before


def test_wrong_settings_change_nothing(finished: Workspace) -> None:
    saved = (finished.folder / "params.yaml").read_bytes()
    printed = finished.run("headwater", "run", "--set", "train.max_stepz=5", code=2)
    assert "train.max_stepz: unknown key; did you mean max_steps?" in printed
    assert (finished.folder / "params.yaml").read_bytes() == saved
    assert "there is no such stage" in finished.run("headwater", "run", "--until", "scrape", code=2)


def test_the_doctor_says_what_is_there_and_what_is_missing(finished: Workspace) -> None:
    assert "ok  lmplz" in finished.run("headwater", "doctor")
    without_git = {**finished.environment, "PATH": str(finished.folder / "nowhere")}
    printed = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "doctor"],
        cwd=finished.folder,
        env=without_git,
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 1
    assert "no  git" in printed.stdout
    assert "make setup" in printed.stdout
