"""The held-out tasks as lm-eval reads them: one YAML and one JSONL file a task.

The YAML names its JSONL by file name alone, so that the folder can be moved; whoever loads it puts the folder in
front (lm-eval takes `data_files` relative to the working folder). Each field that lm-eval reads is named as a
column, not as a template, so the text reaches the model untouched by Jinja.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts.durable_files import write_bytes
from tasks.contracts.heldout import BITS_PER_BYTE as BITS_PER_BYTE
from tasks.contracts.heldout import CONTINUATION as CONTINUATION

_TASKS: Mapping[str, str] = {
    BITS_PER_BYTE: """\
# How many bits the model needs for a byte of text that it never saw; lower is better.
task: heldout_bits_per_byte
dataset_path: json
dataset_kwargs:
  data_files:
    test: heldout_bits_per_byte.jsonl
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: bits_per_byte
  - metric: byte_perplexity
metadata:
  version: 1
""",
    CONTINUATION: """\
# Which continuation is the true one; the others were cut from other held-out documents.
# Each choice brings the space before it, hence no target_delimiter.
task: heldout_continuation
dataset_path: json
dataset_kwargs:
  data_files:
    test: heldout_continuation.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
  - metric: acc_mutual_info
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
""",
}


def write_task(folder: Path, name: str, items: Sequence[Mapping[str, Any]]) -> None:
    """Write one task's YAML and its items, one JSON object a line."""
    # ASCII only: a U+2028 inside a text would end the line for readers that split as str.splitlines does.
    lines = [json.dumps(item, sort_keys=True) + "\n" for item in items]
    write_bytes(folder / f"{name}.jsonl", "".join(lines).encode())
    write_bytes(folder / f"{name}.yaml", _TASKS[name].encode())
