"""decontaminate: planted leaks are found whatever their form, clean text stays, the ledger names the item."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.contracts.document import read_documents
from tasks.contracts.errors import InputError, NetworkError, ParamsError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Manifest, text_shards
from tasks.decontaminate.stage import Params, run
from tests.corpus import document, prose, write_stage

QUESTION = (
    "A farmer keeps fourteen brown hens and sells every egg that isn't eaten at the Saturday market, "
    "so how many baskets does she need for a month of eggs?"
)
SHORT = "Which planet in our system has the tallest mountain?"
JAPANESE = "次のうち光合成がほとんどの食物網の基礎である理由を最もよく説明するものはどれですか"
THAI = "ข้อใดต่อไปนี้อธิบายได้ดีที่สุดว่าเหตุใดการสังเคราะห์ด้วยแสงจึงเป็นรากฐานของสายใยอาหารส่วนใหญ่"
CHINESE = "下列哪一项最能说明为什么光合作用是大多数食物网的基础请选择"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    items = [
        {"id": "q1", "question": QUESTION, "choices": ["four", "five"], "answer": "five"},
        {"question": SHORT, "choices": {"text": ["Mars", "Venus"], "label": ["A", "B"]}},
        {"question": "Is it yes?", "answer": "yes"},
        {"question": CHINESE},
    ]
    Path("bench.jsonl").write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


def decontaminate(*texts: str, output: str = "out", **params: object) -> tuple[Manifest, list[str], list[LedgerRow]]:
    write_stage(Path("in"), [[document(text, name=f"page-{i}") for i, text in enumerate(texts)]])
    manifest = run(
        params=Params(**{"benchmarks": ("bench.jsonl",), **params}), inputs={"holdout": Path("in")}, output=Path(output)
    )
    kept = [d.text for shard in text_shards(Path(output)) for d in read_documents(Path(output) / shard.name)]
    return manifest, kept, list(read_ledger(Path(output) / "dropped/part-00000.parquet"))


@pytest.mark.parametrize(
    "leak",
    [
        QUESTION,
        QUESTION.upper(),
        QUESTION.replace("isn't", "isn’t").replace(",", " -").rstrip("?"),
        "\n   ".join(QUESTION.split()),
        f"<b>“{QUESTION}”</b>",
        " ".join(QUESTION.split()[3:20]),
    ],
    ids=["verbatim", "case", "punctuation", "broken over lines", "quoted", "a part"],
)
def test_a_planted_leak_is_removed_and_named(leak: str) -> None:
    text = f"{prose(1)}\n{leak}\n{prose(2)}"
    manifest, kept, rows = decontaminate(text, prose(3))
    assert kept[1] == prose(3)
    assert "fourteen" not in kept[0].lower()
    assert prose(1).splitlines()[0] in kept[0]
    (row,) = rows
    assert (row.action, row.rule) == ("edit", "benchmark_overlap")
    assert str(row.detail).startswith("bench.jsonl, q1, question: ")
    assert "hens" in str(row.detail).lower()
    assert row.score is not None
    assert row.score >= 5
    assert manifest.counts.out == 2


def test_a_short_item_is_found_as_a_whole_only() -> None:
    _, kept, rows = decontaminate(
        f"{prose(1)}\nQuiz: which planet in our system has the TALLEST mountain\nend",
        f"{prose(2)}\nwhich planet in our system",
    )
    assert [str(row.detail).split(",")[1] for row in rows] == [" line 2"]
    assert "TALLEST" not in kept[0]
    assert kept[1].endswith("which planet in our system")


def test_a_word_such_as_yes_matches_nothing() -> None:
    texts = [f"{prose(i)} Is it yes? four, yes five Mars" for i in range(3)]
    _, kept, rows = decontaminate(*texts)
    assert (kept, rows) == (texts, [])


@pytest.mark.parametrize(
    ("item", "part"),
    [(CHINESE, CHINESE[3:24]), (JAPANESE, JAPANESE[2:23]), (THAI, THAI[5:60])],
    ids=["Chinese", "Japanese", "Thai"],
)
def test_a_language_without_spaces_is_protected(item: str, part: str) -> None:
    Path("bench.jsonl").write_text(json.dumps({"question": item}) + "\n")
    _, kept, rows = decontaminate(f"{prose(1)}\n前文。{part}。后文\nend of it", f"{prose(2)}\n{part[:8]}。{part[9:17]}")
    assert [row.record_id for row in rows] == ["page-0"]
    assert part not in kept[0]
    assert kept[1].endswith(f"{part[:8]}。{part[9:17]}")


def test_clean_documents_stay_as_they_are() -> None:
    texts = [prose(i) for i in range(20)]
    manifest, kept, rows = decontaminate(*texts)
    assert (kept, rows, manifest.counts.dropped) == (texts, [], {})


def test_a_page_that_is_mostly_leak_is_dropped_with_one_drop_row() -> None:
    manifest, kept, rows = decontaminate(f"{QUESTION}\n{SHORT}\n{prose(1, sentences=2)}", prose(2))
    assert kept == [prose(2)]
    assert [row.action for row in rows] == ["drop", "note"]
    assert manifest.counts.dropped == {"benchmark_overlap": 1}


def test_what_is_removed_is_a_param() -> None:
    text = f"{prose(1)}\nbefore it {QUESTION} after it\n{prose(2)}"
    _, paragraph, _ = decontaminate(text, output="p")
    _, span, _ = decontaminate(text, output="s", remove="span")
    manifest, whole, _ = decontaminate(text, output="d", remove="document")
    assert paragraph == [f"{prose(1)}\n{prose(2)}"]
    assert "before it" in span[0]
    assert "after it" in span[0]
    assert "hens" not in span[0]
    assert (whole, manifest.counts.dropped) == ([], {"benchmark_overlap": 1})


def test_a_common_phrase_alone_is_no_leak_but_a_mirrored_leak_is() -> None:
    part = " ".join(QUESTION.split()[:14])
    phrase = [f"{prose(i)}\n{part}" for i in range(12)]
    _, kept, rows = decontaminate(*phrase, common_in_documents=5)
    assert (kept, rows) == (phrase, [])
    mirrored = [f"{prose(i)}\n{QUESTION}" for i in range(12)]
    _, kept, rows = decontaminate(*phrase, *mirrored, output="out2", common_in_documents=5)
    assert kept[:12] == phrase
    assert len(rows) == 12
    assert not any("baskets" in text for text in kept)


def test_the_tasks_that_are_scored_are_protected() -> None:
    Path("in/tasks").mkdir(parents=True)
    item = {"item_id": "abc-text", "doc_id": "abc", "url": "u", "text": prose(77)}
    Path("in/tasks/heldout.jsonl").write_text(json.dumps(item) + "\n")
    _, kept, rows = decontaminate(f"{prose(1)}\n{prose(77).splitlines()[1]}", benchmarks=(), tasks=("heldout",))
    assert kept == [prose(1)]
    assert str(rows[0].detail).startswith("heldout (test), abc-text, text: ")


def test_a_changed_benchmark_is_never_served_from_the_shard_cache() -> None:
    text = f"{prose(1)}\n{QUESTION}"
    Path("old.jsonl").write_text('{"question": "nothing of interest stands in this file, not a word of it, none"}\n')
    first, kept, _ = decontaminate(text, benchmarks=("old.jsonl",))
    assert kept == [text]
    Path("old.jsonl").write_text(Path("bench.jsonl").read_text())
    second, kept, _ = decontaminate(text, benchmarks=("old.jsonl",), output="out2")
    assert kept == [prose(1)]
    assert first.params["benchmarks"] != second.params["benchmarks"]


def test_where_a_benchmark_lies_does_not_matter(tmp_path: Path) -> None:
    text = f"{prose(1)}\n{QUESTION}"
    first, _, _ = decontaminate(text)
    (tmp_path / "elsewhere").mkdir()
    Path("bench.jsonl").rename("elsewhere/bench.jsonl")
    second, _, _ = decontaminate(text, output="out2", benchmarks=("elsewhere/bench.jsonl",))
    assert first == second


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), ("", "holds no text"), ("{", "is not JSON"), ("[1]\n", "not an object")],
)
def test_a_benchmark_that_cannot_be_protected_is_an_error(content: str | None, says: str) -> None:
    if content is not None:
        Path("bad.jsonl").write_text(content)
    with pytest.raises(InputError, match=says):
        decontaminate(prose(1), benchmarks=("bad.jsonl",))


def test_a_line_separator_inside_an_item_does_not_end_it() -> None:
    Path("odd.jsonl").write_text(json.dumps({"question": f"{QUESTION}\u2028more"}, ensure_ascii=False) + "\n")
    _, kept, _ = decontaminate(f"{prose(1)}\n{QUESTION}", benchmarks=("odd.jsonl",))
    assert kept == [prose(1)]


def test_unnamed_fields_are_read_where_no_field_has_a_known_name() -> None:
    Path("odd.jsonl").write_text(json.dumps({"body": QUESTION, "n": 3}) + "\n")
    _, kept, _ = decontaminate(f"{prose(1)}\n{QUESTION}", benchmarks=("odd.jsonl",))
    assert kept == [prose(1)]


class _OfflineManager:
    """lm-eval's task manager without a hub (the real one takes many seconds to read its thousands of YAML files)."""

    all_tasks = ("hellaswag",)

    def load(self, names: list[str]) -> None:
        raise ConnectionError("no route to the hub")


def test_a_hub_task_that_cannot_be_read_or_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.tasks.TaskManager", _OfflineManager)
    with pytest.raises(NetworkError, match="cannot be protected"):
        decontaminate(prose(1), tasks=("hellaswag",))
    with pytest.raises(ParamsError, match="no such evaluation task"):
        decontaminate(prose(1), tasks=("hellaswig",))


class _Task:
    """What of an lm-eval task object counts here: a rendered prompt, choices, a target, and few-shot examples."""

    config = SimpleNamespace(
        test_split=None,
        validation_split="validation",
        fewshot_split="train",
        fewshot_config=None,
        num_fewshot=0,
        doc_to_choice="choices",
    )
    eval_docs = ({"n": 1}, {"n": 2})

    def fewshot_docs(self) -> list[dict[str, int]]:
        return [{"n": 9}]

    def doc_to_text(self, item: dict[str, int]) -> str:
        return f"Solve this for me, please: {prose(500 + item['n'], sentences=1)} Answer:"

    def doc_to_choice(self, item: dict[str, int]) -> list[str]:
        return [prose(600 + item["n"], sentences=1), "no"]

    def doc_to_target(self, item: dict[str, int]) -> int:
        return 0


class _Manager:
    all_tasks = ("toy",)

    def load(self, names: list[str]) -> dict[str, Any]:
        return {"tasks": {name: _Task() for name in names}}


def test_the_task_object_is_asked_for_prompts_choices_and_few_shot_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.tasks.TaskManager", _Manager)
    texts = [f"{prose(i)}\n{prose(n, sentences=1)}" for i, n in enumerate((502, 601, 509, 777))]
    _, kept, rows = decontaminate(*texts, benchmarks=(), tasks=("toy",))
    assert kept == [*map(prose, range(3)), texts[3]]
    assert [str(row.detail).split(": ")[0] for row in rows] == [
        "toy (validation), item 1, prompt",
        "toy (validation), item 0, choice",
        "toy (few-shot), item 0, prompt",
    ]


def test_a_short_question_is_found_with_its_answer_and_without_its_label() -> None:
    Path("bench.jsonl").write_text(
        json.dumps({"question": "Who baked the bread?", "answer": "the baker of the small village did"})
        + "\n"
        + json.dumps({"query": "Question: which planet of our system has the tallest known mountain?\nAnswer:"})
        + "\n"
    )
    leaks = (
        "Who baked the bread?\nThe baker of the small village did!",
        "which planet of our system has the tallest known mountain",
    )
    _, kept, rows = decontaminate(*(f"{prose(i)}\n{leak}" for i, leak in enumerate(leaks)))
    assert kept == [prose(0), prose(1)]
    assert [str(row.detail).split(",")[1] for row in rows] == [" line 1", " line 2"]


def test_items_that_share_a_template_are_not_all_named() -> None:
    template = "Sort the following words by the alphabet and give me nothing but the sorted list, please:"
    items = [{"id": str(i), "input": f"{template} {prose(i, sentences=1)}"} for i in range(30)]
    Path("bench.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    _, _, rows = decontaminate(f"{prose(100)}\n{items[7]['input']}")
    assert [str(row.detail).split(",")[1] for row in rows] == [" 7"]


def test_words_that_only_share_a_hash_are_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{prose(1)}\n{prose(2, sentences=3)}"
    sought = "".join(prose(3, sentences=1))
    Path("bench.jsonl").write_text(json.dumps({"question": sought}) + "\n")
    monkeypatch.setattr("tasks.decontaminate.hashed_words._mix", lambda values: values * 0)
    _, kept, rows = decontaminate(text)
    assert (kept, rows) == ([text], [])


def test_planted_leaks_of_every_form_are_found_and_clean_pages_are_left_alone() -> None:
    generator = random.Random(1)
    items = [
        {"id": f"q{i}", "question": prose(10_000 + i, sentences=1), "answer": prose(20_000 + i, sentences=1, words=12)}
        for i in range(60)
    ]
    Path("bench.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    forms = (
        lambda item: f"{item['question']}\n{item['answer']}",
        lambda item: re.sub(r" ", lambda _: generator.choice([" ", ", ", " – "]), item["question"].upper()),
        lambda item: item["question"],
        lambda item: item["answer"],
        lambda item: re.sub(r" ", lambda _: generator.choice([" ", "\n", " \t"]), item["question"]),
    )
    planted = {i * 7: (item, forms[i % len(forms)](item)) for i, item in enumerate(items)}
    texts = [f"{prose(i)}\n{planted[i][1]}\nthe end" if i in planted else prose(i) for i in range(600)]
    _, kept, rows = decontaminate(*texts)
    named = {row.record_id: str(row.detail).split(", ")[1] for row in rows}
    assert named == {f"page-{i}": item["id"] for i, (item, _) in planted.items()}
    assert [text for i, text in enumerate(kept) if i not in planted] == [
        prose(i) for i in range(600) if i not in planted
    ]


def test_two_benchmarks_of_one_name_are_refused() -> None:
    with pytest.raises(ParamsError, match="same name"):
        decontaminate(prose(1), benchmarks=("a/bench.jsonl", "b/bench.jsonl"))
