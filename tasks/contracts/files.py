"""The names of what stages write and others read: the files of results, and the folders beside a stage's parts."""

from __future__ import annotations

from typing import Final

_PART: Final = "part-"
PARQUET_PARTS: Final = f"{_PART}*.parquet"
"""A stage's parts, as a pattern; part k of a text stage is made from part k of its input."""

DROPPED_FOLDER: Final = "dropped"
"""The ledger: a file for each part."""
HELD_OUT_FOLDER: Final = "heldout"
"""holdout: the documents that are measured on, a file for each part."""
TASKS_FOLDER: Final = "tasks"
"""holdout and a release: evaluation tasks and their items."""
MODEL_FOLDER: Final = "model"
"""train: the checkpoint in Hugging Face layout."""
SAMPLES_FOLDER: Final = "samples"
"""evaluate: the scores of each item, a file for each task."""

SUMMARY_NAME: Final = "summary.json"
"""tokenizer, train, evaluate: the few figures that `dvc metrics show` has room for."""
METRICS_NAME: Final = "metrics.json"
"""tokenizer, train, evaluate: all figures."""
SOURCES_NAME: Final = "sources.json"
"""crawl: what the snapshot was made from; a release: who the training text comes from."""
PROTECTED_NAME: Final = "protected.json"
"""decontaminate: what was protected."""
MIXTURE_NAME: Final = "mixture.json"
"""mix: the share of each group."""
TOKENS_NAME: Final = "tokens.json"
"""tokenize: the width of a token, the shards."""
VALIDATION_NAME: Final = "validation.bin"
MODELS_NAME: Final = "model.json"
"""perplexity: which models scored, and what they were trained on."""
GROUPS_NAME: Final = "groups.json"
"""tokenizer: fertility by group."""
TOKENIZER_NAME: Final = "tokenizer.json"
TOKENIZER_CONFIG_NAME: Final = "tokenizer_config.json"
SPECIAL_TOKENS_NAME: Final = "special_tokens_map.json"
MODEL_CONFIG_NAME: Final = "config.json"
GENERATION_CONFIG_NAME: Final = "generation_config.json"
SAMPLES_NAME: Final = "samples.jsonl"
"""What the model wrote while it was trained, of the stage train."""
LOSS_NAME: Final = "loss.csv"
"""train: loss by step."""
STEPS_NAME: Final = "steps.parquet"
"""train: which sequences each step saw."""
ORDER_NAME: Final = "order.json"
"""train: how the sequences were ordered."""
RESULTS_NAME: Final = "results.json"
"""evaluate: scores and settings by task."""
REPORT_NAME: Final = "report.json"
REPORT_TEXT_NAME: Final = "report.md"
"""gate: the verdict, for machines and for people."""


def part_name(number: int, ending: str = "") -> str:
    """Return the name of a stage's part.

    >>> part_name(7, ".warc.gz")
    'part-00007.warc.gz'
    """
    return f"{_PART}{number:05d}{ending}"


def is_part(name: str, *endings: str) -> bool:
    """Return whether a file of a stage's folder is one of its parts, and has one of these endings where any are given.

    >>> is_part("part-00007.parquet", ".parquet", ".warc.gz"), is_part("dropped/part-00007.parquet")
    (True, False)
    """
    return name.startswith(_PART) and (not endings or name.endswith(endings))
