"""The stage gate: may this model be released? Rules from params.yaml, each with a confidence interval.

1. `floor`: on held-out text, fewer bits per byte than a byte-level 3-gram model of the same training text.
2. `chance`: more right continuations than guessing. Where there are too few items to show that, the verdict is that.
3. `regression_bits`, `regression_accuracy`: not worse than the current champion, item by item.
4. `policy_changed`: the rules are those that were fixed before the first training step.

Every attempt is kept under the state folder, a failed one too.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from tasks.contracts.base import borrowed_from
from tasks.contracts.durable_files import sha256_json, write_bytes, write_json
from tasks.contracts.errors import GateError, HeadwaterError, InputError, ParamsError, did_you_mean
from tasks.contracts.files import (
    METRICS_NAME,
    MODEL_CONFIG_NAME,
    PROTECTED_NAME,
    REPORT_NAME,
    REPORT_TEXT_NAME,
    RESULTS_NAME,
    TASKS_FOLDER,
)
from tasks.contracts.manifest import Counts, Manifest, commit_manifest, read_manifest
from tasks.contracts.release import EVALUATION_FOLDER
from tasks.contracts.stages import model_stage
from tasks.contracts.workspace import state_folder
from training.champions import Champion, champion_to_beat
from training.evaluate import stage as evaluate
from training.evaluate.stage import Sample, read_samples
from training.gate.baseline import fit_on_mix
from training.gate.intervals import Estimate, bootstrap_ratio, power, trials_for, wilson
from training.gate_policy import Policy, policy_sha256

logger = logging.getLogger(__name__)

DOES = "judges whether it may be released"
DECIMALS = 6
NOT_APPLICABLE: Literal["not applicable"] = "not applicable"
"""The verdict of a rule that has nothing to look at: neither met nor broken."""
TOO_FEW: Literal["too few items"] = "too few items"
"""The verdict of a rule that is not met, where the items are too few to show what it asks for: nothing is said of the
model, and no training changes that."""
Verdict = Literal["pass", "fail", "too few items"]
USUAL_POWER = 0.8
"""What is asked of a study before it begins (Cohen 1988, Statistical power analysis, chapter 1)."""


class Params(Policy):
    """Settings of the stage gate: its policy and the tasks it scores."""

    tasks: tuple[str, ...] = borrowed_from("evaluate.tasks", ())
    """The tasks that were scored."""

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield tasks that the rules look at and nobody scores."""
        missing = [task for task in (self.floor_task, self.chance_task) if self.tasks and task not in self.tasks]
        if missing:
            yield ParamsError(
                "a task that the gate needs is not scored",
                where="params.yaml, evaluate.tasks",
                expected=f"{self.floor_task} and {self.chance_task} (gate.floor_task, gate.chance_task) among others",
                found=", ".join(self.tasks),
                fix=did_you_mean(missing[0], self.tasks)
                or f"add {', '.join(missing)} to evaluate.tasks, or name other tasks in the gate's section",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one rule found.

    Attributes:
        value, low, high: the figure it looks at, with its confidence interval.
        bound: the end of the interval that had to stand on the right side of the threshold.
        threshold: what `bound` was compared with.
        by: how far it is on the right side (negative: on the wrong one).
        power: how likely the items show an accuracy as far above guessing as the policy names; None for other rules.
        detail: a sentence for people.
    """

    rule: str
    task: str | None
    verdict: Literal["pass", "fail", "too few items", "not applicable"]
    detail: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bound: Literal["low", "high"] | None = None
    threshold: float | None = None
    margin: float | None = None
    by: float | None = None
    power: float | None = None


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Judge the trained model.

    Args:
        inputs: `evaluate`, `train` or `adapt`, `holdout` and `mix`; `decontaminate` says how many items of what is
            scored were kept out of the training text.

    Raises:
        GateError: a rule failed; the report says which and by how much.
        InputError: a task that a rule needs was not scored, or the champion cannot be compared.
    """
    made_by = model_stage(inputs)
    candidate = json.loads((inputs[made_by] / METRICS_NAME).read_bytes())["weights_sha256"]
    champion = champion_to_beat(candidate)
    rules = judge(params, inputs, champion)
    report: dict[str, JsonValue] = {
        "verdict": overall(rules),
        "rules": [asdict(rule) for rule in rules],
        "weights_sha256": candidate,
        "champion": None if champion is None else {"name": champion.name, "release": champion.release},
        "policy_sha256": policy_sha256(params, params.tasks),
        "confidence": params.confidence,
        "protection": protection(inputs),
    }
    write_json(output / REPORT_NAME, report)
    write_bytes(output / REPORT_TEXT_NAME, report_text(report, rules).encode())
    attempt = _keep_attempt(output, inputs["evaluate"], report)
    if report["verdict"] != "pass":
        raise _refusal(rules, attempt)
    return commit_manifest(
        output,
        stage="gate",
        unit="rules",
        params=params.identity(),
        inputs={
            name: inputs[name] for name in ("evaluate", made_by, "holdout", "mix", "decontaminate") if name in inputs
        },
        counts=Counts(in_=len(rules), out=len(rules)),
    )


def overall(rules: Sequence[Rule]) -> Verdict:
    """Return the verdict on the model: a rule that is broken decides, then one whose items are too few to tell."""
    verdicts = {rule.verdict for rule in rules}
    return "fail" if "fail" in verdicts else TOO_FEW if TOO_FEW in verdicts else "pass"


def _refusal(rules: Sequence[Rule], attempt: Path) -> GateError:
    failed, untold = ([rule for rule in rules if rule.verdict == verdict] for verdict in ("fail", TOO_FEW))
    applied = sum(rule.verdict != NOT_APPLICABLE for rule in rules)
    problem = f"the gate says no: {len(failed)} of {applied} rules failed"
    fixes = [
        "train longer or on more text, or look at what changed since the champion; "
        "a changed policy counts from the next training run on"
    ]
    if untold:
        problem = f"{problem}, and the items are too few to tell for {len(untold)}"
        fixes.append(
            "raise holdout.items_per_document, holdout.continuation_items or holdout.fraction, or bring more pages; "
            "longer training does not change what so few items can tell"
        )
    if not failed:
        problem, fixes = f"the gate cannot tell: the items are too few for {len(untold)} of {applied} rules", fixes[1:]
    return GateError(
        problem,
        where=str(attempt / REPORT_TEXT_NAME),
        found="; ".join(f"{rule.rule}: {rule.detail}" for rule in [*failed, *untold]),
        fix="; ".join(fixes),
    )


def judge(params: Params, inputs: Mapping[str, Path], champion: Champion | None) -> list[Rule]:
    """Return what each rule of the gate finds of the scored items."""
    return [
        floor_rule(params, inputs),
        chance_rule(params, read_samples(inputs["evaluate"], params.chance_task)),
        *regression_rules(params, inputs, champion),
        policy_rule(params, inputs[model_stage(inputs)]),
    ]


def floor_rule(params: Policy, inputs: Mapping[str, Path]) -> Rule:
    """Compare bits per byte with the 3-gram model's, paired by item."""
    samples = read_samples(inputs["evaluate"], params.floor_task)
    texts = _texts(inputs["holdout"] / TASKS_FOLDER / f"{params.floor_task}.jsonl")
    missing = [row["item_id"] for row in samples if row["item_id"] not in texts]
    if missing or not samples:
        raise InputError(
            "the floor's task has items whose text is not known",
            where=f"data/holdout/tasks/{params.floor_task}.jsonl",
            expected="one text for each scored item, and at least one",
            found=f"{len(samples)} items, {len(missing)} without a text",
            fix="run evaluate again, or name a bits-per-byte task of holdout in gate.floor_task",
        )
    baseline = fit_on_mix(inputs["mix"])
    pairs = [(row, baseline.nats(texts[str(row["item_id"])])) for row in samples]
    sizes = [_number(row, "bytes") for row in samples]
    differences = [(_number(row, "nats") - nats) / math.log(2) for row, nats in pairs]
    found = _bootstrap(params, differences, sizes)
    ours = sum(_number(row, "nats") for row in samples) / math.log(2) / sum(sizes)
    floor = sum(nats for _, nats in pairs) / math.log(2) / sum(sizes)
    detail = f"{ours:.3f} bits per byte against {floor:.3f} of a byte 3-gram model on {len(samples)} items"
    return _judge("floor", params.floor_task, found, "high", 0.0 - params.floor_margin, params.floor_margin, detail)


def chance_rule(params: Policy, samples: Sequence[Sample]) -> Rule:
    """Compare the rate of right answers with guessing."""
    if not samples:
        raise InputError("a task has no items", where=params.chance_task, fix="hold more documents out")
    right = sum(_number(row, params.chance_metric) > 0.5 for row in samples)
    found = wilson(right, len(samples), params.confidence)
    detail = (
        f"{right} of {len(samples)} continuations right by {params.chance_metric} ({found.value:.3f}), "
        f"guessing gives {params.chance:g}"
    )
    rule = _judge("chance", params.chance_task, found, "low", params.chance, 0.0, detail)
    return _with_power(rule, params, len(samples))


def regression_rules(params: Policy, inputs: Mapping[str, Path], champion: Champion | None) -> list[Rule]:
    """Compare with the champion on the same items.

    Bits per byte must be shown to be no worse than the margin (the whole interval below it). Accuracy, with its few
    and coarse items, must not be shown to be worse than the margin (some of the interval within it).
    """
    if champion is None:
        none = "no champion yet: nothing to compare with"
        return [
            Rule(rule="regression_bits", task=params.floor_task, verdict=NOT_APPLICABLE, detail=none),
            Rule(rule="regression_accuracy", task=params.chance_task, verdict=NOT_APPLICABLE, detail=none),
        ]
    ours = {task: read_samples(inputs["evaluate"], task) for task in (params.floor_task, params.chance_task)}
    theirs = _champion_samples(champion, inputs, ours)
    pairs = _paired(ours[params.floor_task], theirs[params.floor_task], params.floor_task)
    worse = [(_number(mine, "nats") - _number(other, "nats")) / math.log(2) for mine, other in pairs]
    bits = _bootstrap(params, worse, [_number(mine, "bytes") for mine, _ in pairs])
    margin = params.regression_margin_bits
    detail = f"{bits.value:+.4f} bits per byte against the champion {champion.name}, at most {margin:+g} is allowed"
    first = _judge("regression_bits", params.floor_task, bits, "high", margin, margin, detail)
    pairs = _paired(ours[params.chance_task], theirs[params.chance_task], params.chance_task)
    metric, margin = params.chance_metric, params.regression_margin_accuracy
    gained = [_number(mine, metric) - _number(other, metric) for mine, other in pairs]
    accuracy = _bootstrap(params, gained, [1.0] * len(gained))
    detail = f"{accuracy.value:+.3f} accuracy against the champion {champion.name}, at most {-margin:+g} is allowed"
    second = _judge("regression_accuracy", params.chance_task, accuracy, "high", -margin, margin, detail, above=True)
    return [first, second]


def policy_rule(params: Params, trained: Path) -> Rule:
    """Compare the policy with the one that was hashed into the training manifest before the first step."""
    fixed, current = read_manifest(trained).params.get("policy_sha256"), policy_sha256(params, params.tasks)
    if fixed == current:
        return Rule(
            rule="policy_changed", task=None, verdict="pass", detail="the policy is the one fixed before training"
        )
    detail = f"the policy changed after training began ({str(fixed)[:12]} then, {current[:12]} now): train again"
    return Rule(rule="policy_changed", task=None, verdict="fail", detail=detail)


def _judge(
    rule: str,
    task: str,
    found: Estimate,
    bound: Literal["low", "high"],
    threshold: float,
    margin: float,
    detail: str,
    *,
    above: bool | None = None,
) -> Rule:
    """Say whether one end of the interval is on the right side of the threshold, and how far.

    Args:
        above: whether the right side is above; by default it is for the lower end and is not for the upper one.
    """
    if not all(map(math.isfinite, (found.value, found.low, found.high))):
        detail = "a score is not a number, so nothing is shown"
        return Rule(
            rule=rule, task=task, verdict="fail", detail=detail, bound=bound, threshold=threshold, margin=margin
        )
    end = found.low if bound == "low" else found.high
    by = end - threshold if (bound == "low" if above is None else above) else threshold - end
    return Rule(
        rule=rule,
        task=task,
        verdict="pass" if by > 0 else "fail",
        detail=detail + (f" (fails by {-by:.4f})" if by <= 0 else ""),
        value=round(found.value, DECIMALS),
        low=round(found.low, DECIMALS),
        high=round(found.high, DECIMALS),
        bound=bound,
        threshold=threshold,
        margin=margin,
        by=round(by, DECIMALS),
    )


def enough_to_tell(items: int, params: Policy) -> bool:
    """Return whether so many items show an accuracy well above guessing as likely as the policy asks."""
    return _likely(items, params) >= params.power


def _likely(items: int, params: Policy) -> float:
    return power(items, _well_reached(params), params.chance, params.confidence)


def _well_reached(params: Policy) -> float:
    return min(params.chance + params.chance_effect, 0.99)


def _with_power(rule: Rule, params: Policy, items: int) -> Rule:
    """Say how likely so many items show an accuracy above guessing; a rule that is not met for their number says so."""
    rate, likely = _well_reached(params), _likely(items, params)
    rule = replace(rule, power=round(likely, DECIMALS))
    if rule.verdict == "pass" or likely >= params.power:
        return rule
    needed = trials_for(USUAL_POWER, rate, params.chance, params.confidence)
    detail = (
        f"{rule.detail}: too few items to tell, as {items} show an accuracy of {rate:g} with a probability of "
        f"{likely:.2f}; about {needed} are needed for {USUAL_POWER}"
    )
    return replace(rule, verdict=TOO_FEW, detail=detail)


def _bootstrap(params: Policy, above: Sequence[float], below: Sequence[float]) -> Estimate:
    return bootstrap_ratio(
        above, below, confidence=params.confidence, samples=params.bootstrap_samples, seed=params.seed
    )


def _champion_samples(
    champion: Champion, inputs: Mapping[str, Path], ours: Mapping[str, Sequence[Sample]]
) -> dict[str, list[Sample]]:
    """Return the champion's scores on the candidate's items: those kept with it, or made now from its kept model."""
    kept, current = champion.path / EVALUATION_FOLDER, _items(inputs["evaluate"])
    if (kept / RESULTS_NAME).is_file() and all(_items(kept).get(task) == current[task] for task in ours):
        return {task: read_samples(kept, task) for task in ours}
    if not (champion.path / MODEL_CONFIG_NAME).is_file():
        raise InputError(
            "the champion cannot be compared: its kept model is gone",
            where=str(champion.path),
            expected="the release's files (it was scored on other items than this candidate)",
            fix="restore that folder, or remove the champion's line from champions.jsonl to start without one",
        )
    logger.info("gate: the held-out items changed; scoring the champion %s on the new ones", champion.name)
    settings = read_manifest(inputs["evaluate"]).params | {"tasks": list(ours)}
    scores = evaluate.score(
        champion.path, inputs["holdout"] / TASKS_FOLDER, evaluate.Params.model_validate(settings, strict=False)
    )
    return scores.samples


def _items(folder: Path) -> dict[str, Any]:
    """Return task → hash of what was scored: its items, and how many of them."""
    results = json.loads((folder / RESULTS_NAME).read_bytes())
    settings = {name: results["settings"].get(name) for name in ("limit", "num_fewshot")}
    return {task: (figures["items_sha256"], settings) for task, figures in results["tasks"].items()}


def _paired(ours: Sequence[Sample], theirs: Sequence[Sample], task: str) -> list[tuple[Sample, Sample]]:
    other = {row["item_id"]: row for row in theirs}
    if {row["item_id"] for row in ours} != other.keys():
        raise InputError(
            "candidate and champion were scored on other items, so they cannot be compared",
            where=task,
            expected=f"{len(ours)} items",
            found=f"{len(other)} items, {sum(row['item_id'] in other for row in ours)} of them the same",
            fix="run evaluate again",
        )
    return [(row, other[row["item_id"]]) for row in ours]


def _texts(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        return {}
    rows = (json.loads(line) for line in path.read_text().split("\n") if line)
    return {row["item_id"]: row["text"].encode() for row in rows}


def _number(row: Sample, name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float):
        raise InputError(
            "a scored item lacks a figure that a rule needs",
            where=f"item {row.get('item_id')}",
            expected=name,
            found=", ".join(row),
            fix="name a task of the right kind in the gate's section",
        )
    return float(value)


def rules_met(verdicts: Sequence[str]) -> str:
    """Return how many rules are met, of those that apply.

    >>> rules_met(["pass", "fail", "not applicable"]), rules_met(["pass"])
    ('1 of 2 rules met, 1 not applicable.', '1 of 1 rule met.')
    """
    applied = sum(verdict != NOT_APPLICABLE for verdict in verdicts)
    rest = f", {len(verdicts) - applied} not applicable" if applied < len(verdicts) else ""
    return f"{verdicts.count('pass')} of {applied} rule{'' if applied == 1 else 's'} met{rest}."


_TITLES = {"pass": "passed", "fail": "not passed", TOO_FEW: "not passed, too few items to tell"}


def report_text(report: Mapping[str, JsonValue], rules: Sequence[Rule]) -> str:
    """Return the report for people, in Markdown."""
    lines = ["# Gate: " + _TITLES[str(report["verdict"])], ""]
    lines += [
        "| rule | verdict | value | interval | threshold | what it says |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for rule in rules:
        value = "" if rule.value is None else f"{rule.value:.4f}"
        interval = "" if rule.low is None else f"{rule.low:.4f} to {rule.high:.4f}"
        threshold = "" if rule.threshold is None else f"{rule.threshold:g}"
        lines.append(f"| {rule.rule} | {rule.verdict} | {value} | {interval} | {threshold} | {rule.detail} |")
    lines += ["", rules_met([rule.verdict for rule in rules])]
    protection = report["protection"]
    for task, found in protection.items() if isinstance(protection, dict) else ():
        if isinstance(found, dict) and found["not_protected"]:
            counts = f"{task}: {found['not_protected']} of {found['items']} items are not protected"
            lines += ["", f"{counts}: the model may have read them."]
    lines += [
        "",
        f"Intervals hold with a confidence of {report['confidence']}.",
        f"Tensor hash: `{report['weights_sha256']}`",
    ]
    lines += [f"Policy: `{report['policy_sha256']}`", ""]
    return "\n".join(lines)


def protection(inputs: Mapping[str, Path]) -> dict[str, JsonValue]:
    """Return, of each task and benchmark file, how many items were kept out of the training text, and how many not."""
    path = inputs.get("decontaminate", Path()) / PROTECTED_NAME
    if not path.is_file():
        return {}
    found: dict[str, JsonValue] = json.loads(path.read_bytes()).get("items", {})
    return found


def _keep_attempt(output: Path, evaluation: Path, report: Mapping[str, JsonValue]) -> Path:
    """Keep the report and the scores it rests on; the same attempt is kept once."""
    folder = state_folder() / "attempts" / sha256_json(dict(report))[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        shutil.copytree(output, temporary, dirs_exist_ok=True)
        shutil.copytree(evaluation, temporary / EVALUATION_FOLDER)
        temporary.rename(folder)
    return folder
