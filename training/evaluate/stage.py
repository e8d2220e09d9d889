"""The stage evaluate: lm-eval scores the trained model, and every item's score is kept.

Local tasks are those that `holdout` wrote; any other name is one of lm-eval's own (mmlu, hellaswag …), whose data
comes from a hub. The scores of single items are what the gate draws its intervals from, paired with a champion's.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.durable_files import sha256_file, sha256_json, write_bytes, write_json
from tasks.contracts.errors import HeadwaterError, InputError, did_you_mean, raised
from tasks.contracts.files import METRICS_NAME, MODEL_FOLDER, RESULTS_NAME, SAMPLES_FOLDER, SUMMARY_NAME, TASKS_FOLDER
from tasks.contracts.heldout import LOCAL_TASKS
from tasks.contracts.hubs import hub_error, is_network_fault
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.contracts.stages import model_stage
from tasks.contracts.workspace import state_folder
from training.device import need_gpus

logger = logging.getLogger(__name__)

DOES = "measures it"
DECIMALS = 6
Sample = dict[str, JsonValue]


class Params(StageParams):
    """Settings of the stage evaluate."""

    tasks: tuple[str, ...] = Field(LOCAL_TASKS, min_length=1)
    """Local tasks from `holdout`, and lm-eval's own by name (their data comes from a hub)."""
    num_fewshot: int | None = Field(None, ge=0)
    """Solved examples before each question; null is each task's own number."""
    limit: int | None = Field(None, ge=1)
    """Items of each task at most; null scores all."""
    batch_size: int = Field(16, ge=1)
    """Items that go through the model at once."""
    seed: int = Field(1234, ge=0)
    """Seed of the choice of few-shot examples."""
    device: str | None = not_identity(None)
    """"cpu", "cuda" or "cuda:1"; null takes a GPU where there is one."""

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield tasks that nobody knows, and a GPU that is not there."""
        if others := [name for name in self.tasks if name not in LOCAL_TASKS]:
            yield from raised(lambda: _refuse_unknown(others, _known_tasks()))
        if self.device and self.device.startswith("cuda"):
            number = self.device.partition(":")[2]
            yield from raised(lambda: need_gpus(int(number or 0) + 1, "evaluate.device", str(self.device)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What lm-eval said: figures by task, each item's scores, and what was scored."""

    results: dict[str, JsonValue]
    samples: dict[str, list[Sample]]


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Score the model on every task.

    Args:
        inputs: `train` or `adapt` (the model) and `holdout` (the local tasks).

    Raises:
        InputError: a task is unknown.
        NetworkError: a hub task's data cannot be fetched.
    """
    made_by = model_stage(inputs)
    scores = score(inputs[made_by] / MODEL_FOLDER, inputs["holdout"] / TASKS_FOLDER, params)
    write_json(output / RESULTS_NAME, {"tasks": scores.results, "settings": params.identity()})
    flat: dict[str, JsonValue] = {
        f"{task}.{name}": value
        for task, figures in scores.results.items()
        if isinstance(figures, dict)
        for name, value in sorted(figures.items())
        if isinstance(value, float)
    }
    write_json(output / METRICS_NAME, flat)
    write_json(output / SUMMARY_NAME, summary(scores.results))
    for task, rows in scores.samples.items():
        text = "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
        write_bytes(output / SAMPLES_FOLDER / f"{task}.jsonl", text.encode())
    items = sum(map(len, scores.samples.values()))
    return commit_manifest(
        output,
        stage="evaluate",
        unit="items",
        params=params.identity(),
        inputs={name: inputs[name] for name in (made_by, "holdout")},
        counts=Counts(in_=items, out=items),
    )


def summary(results: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the two figures that `dvc metrics show` has room for, each the mean over the tasks that have it.

    A task's accuracy is its `acc_mutual_info`, else `acc_norm`, else `acc` (docs/decisions/0003).

    >>> summary({"a": {"acc": 0.25, "items": 4}, "b": {"acc": 0.5, "acc_norm": 0.75}, "c": {"bits_per_byte": 2.0}})
    {'bits_per_byte': 2.0, 'accuracy': 0.5}
    """
    wanted = {"bits_per_byte": ("bits_per_byte",), "accuracy": ("acc_mutual_info", "acc_norm", "acc")}
    means: dict[str, JsonValue] = {}
    for name, metrics in wanted.items():
        one_each = (next((figures[m] for m in metrics if m in figures), None) for figures in results.values())
        found = [float(value) for value in one_each if value is not None]
        if found:
            means[name] = round(math.fsum(found) / len(found), DECIMALS)
    return means


def read_samples(folder: Path, task: str) -> list[Sample]:
    """Read what `run` kept of a task's items.

    Raises:
        InputError: the task was not scored.
    """
    path = folder / SAMPLES_FOLDER / f"{task}.jsonl"
    if not path.is_file():
        raise InputError(
            "a task that the gate needs was not scored",
            where=str(path),
            expected=f"evaluate.tasks with {task}",
            fix="add it to evaluate.tasks, or name another task in the gate's section",
        )
    return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]


def score(model: Path, tasks_folder: Path, params: Params) -> Scores:
    """Score a model folder in Hugging Face layout on the tasks of `params`, local ones without a network.

    Args:
        tasks_folder: where `NAME.yaml` and `NAME.jsonl` of the local tasks are.
    """
    local = [name for name in params.tasks if (tasks_folder / f"{name}.yaml").is_file()]
    remote = [name for name in params.tasks if name not in local]
    with _environment(offline=not remote), tempfile.TemporaryDirectory() as temporary:
        _localise(tasks_folder, local, Path(temporary))
        answer = _ask(model, params, remote, Path(temporary))
    return _scores(answer, {name: sha256_file(tasks_folder / f"{name}.jsonl") for name in local})


@contextmanager
def _environment(*, offline: bool) -> Iterator[None]:
    """Keep Hugging Face's libraries off the network where no task needs it, and quiet."""
    wanted = {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    if not sys.stderr.isatty():
        wanted["TQDM_DISABLE"] = "1"
    if offline:
        wanted |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _localise(source: Path, names: Sequence[str], target: Path) -> None:
    """Copy task files with absolute names of their items, and a dataset cache that goes away with the copy."""
    import yaml

    for name in names:
        described = yaml.safe_load((source / f"{name}.yaml").read_text())
        settings = described.setdefault("dataset_kwargs", {})
        settings["data_files"] = {
            split: str((source / file).resolve()) for split, file in settings.get("data_files", {}).items()
        }
        settings["cache_dir"] = str(target / "cache")
        (target / f"{name}.yaml").write_text(yaml.safe_dump(described))


def _ask(model: Path, params: Params, remote: Sequence[str], temporary: Path) -> Mapping[str, Any]:
    """Let lm-eval score the model and return its answer."""
    import lm_eval
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for name in ("lm_eval", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    device = params.device or ("cuda" if torch.cuda.is_available() else "cpu")
    manager = TaskManager(include_path=str(temporary), include_defaults=bool(remote))
    _refuse_unknown(remote, manager.all_tasks)
    logger.info("evaluate: %s on %s", ", ".join(params.tasks), device)
    language_model = HFLM(pretrained=str(model), device=device, batch_size=params.batch_size, dtype="auto")
    for name in ("loglikelihood", "loglikelihood_rolling", "_loglikelihood_tokens"):
        setattr(language_model, name, _without_progress_bar(getattr(language_model, name)))
    try:
        results: Mapping[str, Any] = lm_eval.simple_evaluate(
            model=language_model,
            tasks=list(params.tasks),
            num_fewshot=params.num_fewshot,
            limit=params.limit,
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
            random_seed=params.seed,
            numpy_random_seed=params.seed,
            torch_random_seed=params.seed,
            fewshot_random_seed=params.seed,
        )
        return results
    except AssertionError as error:  # lm-eval's own check that a choice fits, which says nothing
        raise InputError(
            "an evaluation item does not fit the model's context",
            where=f"params.yaml, evaluate.tasks: {', '.join(params.tasks)}",
            expected=f"choices of at most {language_model.max_length} tokens",
            fix="raise train.seq_len or tokenizer.vocab_size, or lower holdout.continuation_words",
        ) from error
    except Exception as error:  # a hub's client raises many classes; what is not about the network goes on unchanged
        if not remote or not is_network_fault(error):
            raise
        raise hub_error()(
            "the data of an evaluation task could not be fetched",
            where=f"params.yaml, evaluate.tasks: {', '.join(remote)}",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="check the network (HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 uses what was fetched before), "
            "or take these tasks out",
        ) from error


def _refuse_unknown(names: Sequence[str], known: Collection[str]) -> None:
    """Raise InputError where names of tasks that holdout did not write are not lm-eval's either."""
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], [*LOCAL_TASKS, *known])
        raise InputError(
            "an evaluation task is unknown" + (f"; {hint}" if hint else ""),
            where="params.yaml, evaluate.tasks",
            expected="a task that `holdout` wrote, or one of lm-eval's (`lm-eval ls tasks` lists them)",
            found=", ".join(unknown),
        )


def _known_tasks() -> list[str]:
    """Return the names of lm-eval's own tasks; it reads 14,000 files for them, so they are kept for its version."""
    path = state_folder() / f"lm_eval_tasks-{importlib.metadata.version('lm-eval')}.json"
    if not path.is_file():
        from lm_eval.tasks import TaskManager

        write_json(path, sorted(TaskManager(include_path=None, include_defaults=True).all_tasks))
    known: list[str] = json.loads(path.read_bytes())
    return known


def _without_progress_bar(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of lm-eval's model that draws no bar: there is no setting for it, and it would fill the log."""

    @functools.wraps(method)
    def quiet(*arguments: Any, **named: Any) -> Any:
        return method(*arguments, **{**named, "disable_tqdm": True})

    return quiet


def _scores(answer: Mapping[str, Any], hashes: Mapping[str, str]) -> Scores:
    """Keep what is the same on every run: no times, no paths.

    Args:
        hashes: task → SHA-256 of its items, for the local ones.
    """
    samples = {
        task: sorted((_sample(row) for row in rows), key=lambda row: str(row["item_id"]))
        for task, rows in sorted(answer["samples"].items())
    }
    results: dict[str, JsonValue] = {}
    for task, figures in sorted(answer["results"].items()):
        named = {name.removesuffix(",none"): value for name, value in figures.items() if "stderr" not in name}
        kept: Sample = {k: round(float(v), DECIMALS) for k, v in sorted(named.items()) if isinstance(v, float)}
        ids: list[JsonValue] = [row["item_id"] for row in samples.get(task, [])]
        results[task] = kept | {"items": len(ids), "items_sha256": hashes.get(task) or sha256_json(ids)}
    return Scores(results=results, samples=samples)


def _sample(row: Mapping[str, Any]) -> Sample:
    """Return the part of an lm-eval sample that is kept: who it is and how it was scored."""
    document = row["doc"]
    item = document.get("item_id") if isinstance(document, dict) else None
    source = document.get("doc_id") if isinstance(document, dict) else None
    kept: Sample = {"item_id": str(item or row["doc_hash"]), "doc_id": source}
    for metric in row["metrics"]:
        value = row[metric]
        if isinstance(value, list | tuple) and len(value) == 2 and metric in ("bits_per_byte", "byte_perplexity"):
            kept |= {"nats": round(-float(value[0]), DECIMALS), "bytes": int(value[1])}
        elif isinstance(value, bool | int | float):
            kept[metric] = round(float(value), DECIMALS)
    return kept
