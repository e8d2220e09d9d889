"""Short items: found whole where that is set, and counted and named where they are not protected."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.document import read_documents
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import Manifest, text_shards
from tasks.decontaminate.ngram_index import IndexSettings, read_index, write_index
from tasks.decontaminate.protected_items import ItemText, item_texts
from tasks.decontaminate.removal import RemovalSettings, inspect
from tasks.decontaminate.stage import Params, run
from tests.corpus import document, prose, write_stage


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))


def decontaminate(items: list[dict[str, Any]], texts: list[str], **params: object) -> tuple[Manifest, list[str]]:
    Path("bench.jsonl").write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    write_stage(Path("in"), [[document(text, name=f"page-{i}") for i, text in enumerate(texts)]])
    manifest = run(
        params=Params(**{"benchmarks": ("bench.jsonl",), **params}), inputs={"holdout": Path("in")}, output=Path("out")
    )
    kept = [d.text for shard in text_shards(Path("out")) for d in read_documents(Path("out") / shard.name)]
    return manifest, kept


def cleaned(items: list[dict[str, Any]], texts: list[str]) -> list[str | None]:
    """Return texts without the items, as the stage would with nothing in common with other documents; and fast."""
    found = [one for i, item in enumerate(items) for one in item_texts("bench", str(i), item, split="")]
    write_index(Path("index"), found, WHOLE)
    index = read_index(Path("index"), WHOLE)
    settings = RemovalSettings(remove="paragraph", common_coverage=0.5, max_removed=0.3, min_words_left=20)
    kept: list[str | None] = []
    for text, grams in zip(texts, index.search_texts(texts), strict=True):
        finding = inspect(document(text, name="page"), index, frozenset(), settings) if grams else None
        kept.append(text if finding is None else finding.text)
    return kept


WHOLE = IndexSettings(ngram=13, min_words=8, min_characters=35, short_items="whole")


def protection() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out/protected.json").read_bytes())["items"]["bench.jsonl"]
    return found


def left_out() -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in Path("out/not_protected.jsonl").read_text().split("\n") if line]
    return [(row["item"], row["reason"]) for row in rows]


SUMS = [{"question": f"{n + 8} {'+-×÷^'[n % 5]} {n} =", "answer": str(3 * n)} for n in range(3, 53)]


def test_short_arithmetic_is_found_whole_and_its_neighbours_are_left() -> None:
    leaks = [f"{item['question']} {item['answer']}" for item in SUMS]
    clean = [
        f"{prose(i, sentences=2)}\nrows {item['question'].split()[0]}, {item['question'].split()[2]} and so on"
        for i, item in enumerate(SUMS)
    ]
    _, kept = decontaminate(SUMS, [f"{prose(100 + i)}\n{leak}" for i, leak in enumerate(leaks)] + clean)
    assert kept == [*(prose(100 + i) for i in range(50)), *clean]
    assert protection() == {"items": 50, "by_ngrams": 0, "whole": 50, "not_protected": 0, "reasons": {}}
    assert left_out() == []


@pytest.mark.parametrize(
    ("item", "leak"),
    [
        ({"question": "12 + 7 = ?", "answer": "19"}, "12+7=19"),
        ({"question": "12 + 7 = ?", "answer": "19"}, "so １２ ＋ ７ is what?"),
        ({"question": "What is 17 * 23?", "answer": "391"}, "Q: What is 17 × 23? A: 391"),
        ({"question": "9 − 4"}, "they wrote 9 − 4 on it"),
        ({"text": "2024-03-12"}, "dated 2024-03-12."),
        ({"question": "x += 1"}, "then x += 1;"),
        ({"question": "f(x) > 3"}, "where f(x) &gt; 3 holds"),
        ({"question": "What colour is the sky?", "answer": "blue"}, "what colour is the SKY - blue"),
        ({"question": "Capital of France?", "choices": ["Rome", "Paris"]}, "capital of france: Paris"),
        ({"question": "天空是什么颜色？", "answer": "蓝色"}, "问题：天空是什么颜色？"),
        ({"sentence": "The old man broke his toe."}, "the old man broke his toe"),
        ({"target": "12 + 7 = 19"}, "12 + 7 = 19"),
    ],
)  # fmt: skip
def test_a_short_item_of_each_kind_is_found_whole(item: dict[str, Any], leak: str) -> None:
    _, kept = decontaminate([item], [f"{prose(1)}\n{leak}", prose(2)])
    assert kept == [prose(1), prose(2)]
    assert protection()["whole"] == 1


# An item, and other ways in which pages write the same.
SPELLINGS: list[tuple[str, str, list[str]]] = [
    ("12+30=42", "", ["12 + 30 = 42", "12 + 30 = **42**", "| 12 + 30 | 42 |", "12 plus 30 equals 42"]),
    ("12+31=", "43", ["12+31=43", "| 3 | 12+31 | 43 |", "12\n+ 31\n----\n43", "$12 + 31 = 43$", "12 ➕ 31 = 43"]),
    ("What is 7 x 8?", "56", ["What is 7 × 8?", "What is 7x8?", "What is 7 \\* 8?", "What is $7 \\times 8$?",
                              "What is 7 &amp;times; 8?", "What is 7 times 8?", "7 × 8 = 56", "7x8=56"]),
    ("７＋９＝", "１６", ["7+9=16", "７＋９＝１６"]),
    ("9 − 4 = ?", "5", ["9-4=5", "9 – 4 = ?", "9 &minus; 4", "9 minus 4", "| 9 - 4 | **5** |", "Q: 9 - 4 A: 5"]),
    ("$5 \\times 6$", "30", ["\\(5 \\times 6 = 30\\)", "5 × 6 = 30", "5 x 6 is 30", "5 \\cdot 6", "5 multiplied by 6"]),
    ("18 &divide; 3 =", "6", ["18 ÷ 3 = 6", "18/3=6", "18 : 3 = 6", "$18 \\div 3$", "18 divided by 3"]),
    ("$\\frac{1}{2} + \\frac{1}{4}$", "3/4", ["1/2 + 1/4 = 3/4", "½ + ¼ = ¾", "\\dfrac{1}{2}+\\dfrac{1}{4}"]),
    ("1,234 + 5,678 =", "6,912", ["1234 + 5678 = 6912", "1 234 + 5 678", "1.234 + 5.678 =", "1’234 + 5’678"]),
    ("2345 + 1111", "3456", ["2,345 + 1,111 = 3,456", "2\u202f345 + 1\u202f111"]),
    ("0.5 + 0.25", "0.75", ["0,5 + 0,25 = 0,75"]),
    ("3² + 4²", "25", ["3^2 + 4^2 = 25", "3**2 + 4**2 == 25"]),
    ("17 mod 5", "2", ["17 % 5 = 2"]),
    ("7 ≤ 9", "true", ["7 <= 9: true", "7 &le; 9, true"]),
    ("gcd(12, 18)", "6", ["GCD(12,18)=6"]),
    ("Compute 14+15.", "29", ["14 + 15 = 29"]),
    ("Q: 33 + 44 = ? A:", "77", ["33 + 44 = 77"]),
    ("Capital of France?", "Paris", ["Q: Capital of France? A: Paris", "Capital of France? Answer: Paris"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "answer", "leak"), [(asked, told, leak) for asked, told, leaks in SPELLINGS for leak in leaks]
)
def test_a_short_item_is_found_as_it_is_spelled_elsewhere(question: str, answer: str, leak: str) -> None:
    items: list[dict[str, Any]] = [{"question": question, **({"answer": answer} if answer else {})}]
    (kept,) = cleaned(items, [f"{prose(1)}\nsee {leak}"])
    assert kept in {prose(1), f"{prose(1)}\n----\n43"}


def test_two_numbers_that_may_be_a_range_a_date_or_a_size_are_no_sum() -> None:
    pairs = ["9 - 4", "20 - 8", "9 / 11", "7 x 8", "10 + 3", "58 + 1", "2 - 1", "8 / 2", "2 * 1"]
    items: list[dict[str, Any]] = [{"question": f"{pair} ="} for pair in pairs]
    clean = ["Listing 9-4 shows", "won 20–8 there", "on 9/11 in", "7 x 8 inches", "7×8 pixels", "a 7x8 grid", "½·½",
             "10 +3 now", "at 21:58\n+1 vote", "of (1, 2, -1) only", "at 8:2 or", "9 4 20 8"]  # fmt: skip
    texts = [f"{prose(i)}\nsee {one}" for i, one in enumerate(clean)] + [f"{prose(50)}\n{' and '.join(clean)}"]
    assert cleaned(items, texts) == texts
    leaks = [
        "9-4 = 5",
        "20 – 8 =",
        "(9/11) = x",
        "7 x 8 = 56",
        "7×8=56",
        "9 − 4",
        "9 ÷ 11",
        "7 * 8",
        "10+3",
        "8 : 2 = 4",
    ]
    assert cleaned(items, [f"{prose(1)}\nsee {leak}" for leak in leaks]) == [prose(1)] * len(leaks)
    copy = "\n".join(["10 + 3 =", "58 + 1 =", "20 - 8 =", "7 * 8 =", "2 - 1 =", "9 / 11"])
    assert cleaned(items, [f"{prose(1)}\n{copy}"]) == [prose(1)]


@pytest.mark.parametrize(
    "clean",
    [
        "12 - 7",
        "12, 7 and 19",
        "112 + 7",
        "12 + 77",
        "12 + 7.5",
        "5 * 12 + 7 = 67",
        "12 + 7 * 2 = 26",
        "3.12 + 7",
        "12 7",
        "12/7",
        "a12 + 7",
    ],
)
def test_another_expression_is_no_leak(clean: str) -> None:
    text = f"{prose(1)}\nsee {clean} there"
    assert decontaminate([{"question": "12 + 7 = ?", "answer": "20"}], [text])[1] == [text]


def test_an_answer_alone_or_a_word_is_never_looked_for() -> None:
    items = [{"question": "What is it that rivers meet?", "choices": ["in the desert over there", "the sea"]}]
    text = f"{prose(1)}\nin the desert over there by the sea"
    assert decontaminate(items, [text])[1] == [text]


LONG = {"question": prose(900, sentences=1)}
UNPROTECTED = [
    ({"id": "empty", "question": ""}, "no text"),
    ({"id": "none"}, "no text"),
    ({"id": "marks", "question": "?!… -- +"}, "no words"),
    ({"id": "word", "question": "Paris", "answer": "Paris"}, "one word"),
    ({"id": "pair", "question": "hot", "answer": "cold"}, "too short"),
    ({"id": "number", "question": "42"}, "one word"),
    ({"id": "numbers", "question": "2, 4, 6, 8", "answer": "10"}, "too short"),
    ({"id": "range", "question": "9 - 4"}, "may be a date or a range"),
]


def test_what_is_not_protected_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        manifest, _ = decontaminate([LONG, *(item for item, _ in UNPROTECTED)], [prose(1)])
    assert left_out() == sorted((str(item["id"]), reason) for item, reason in UNPROTECTED)
    assert protection() == {
        "items": 9,
        "by_ngrams": 1,
        "whole": 0,
        "not_protected": 8,
        "reasons": {"may be a date or a range": 1, "no text": 2, "no words": 1, "one word": 2, "too short": 2},
    }
    assert {"protected.json", "not_protected.jsonl"} <= {shard.name for shard in manifest.shards}
    (said,) = [record for record in caplog.records if "not protected" in record.getMessage()]
    assert said.levelno == logging.WARNING
    assert "bench.jsonl: 9 items, 1 protected by n-grams, 0 as a whole, 8 not protected" in said.getMessage()


def test_left_alone_short_items_are_counted_and_a_file_of_nothing_else_is_refused() -> None:
    decontaminate([LONG, *SUMS], [prose(1)], short_items="leave")
    assert protection()["not_protected"] == 50
    with pytest.raises(InputError, match=r"no item of a benchmark can be protected(.|\n)*too short: 50"):
        decontaminate(SUMS, [prose(1)], short_items="leave")
    with pytest.raises(InputError, match=r"no item of a benchmark can be protected(.|\n)*one word: 1"):
        decontaminate([{"question": "yes"}], [prose(1)])


def test_a_short_item_in_many_documents_is_named_too_common_but_a_copy_of_the_benchmark_is_removed() -> None:
    everyday = {"id": "everyday", "question": "How are you all doing today?"}
    pages = [f"{prose(i)}\nHow are you all doing today?" for i in range(12)]
    _, kept = decontaminate([LONG, everyday], pages)
    assert kept == pages
    assert left_out() == [("everyday", "too common")]
    others = [{"question": f"{n} + {n} ="} for n in range(11, 15)]
    copies = ["\n".join([prose(i), *(str(one["question"]) for one in [everyday, *others])]) for i in range(12)]
    _, kept = decontaminate([LONG, everyday, *others], copies)
    assert kept == [prose(i) for i in range(12)]


@pytest.mark.parametrize("hidden", ["\u200b", "\u00ad", "\u2060", "\ufeff", "&#8203;", "&amp;amp;amp;shy;"])
def test_what_shows_nothing_between_digits_and_their_point_hides_no_item(tmp_path: Path, hidden: str) -> None:
    text = "3.14 / 2 ="
    write_index(tmp_path, [ItemText(task="t", split="", item="i", field="q", text=text, role="asked")], WHOLE)
    assert read_index(tmp_path, WHOLE).search_whole(f"Here is {hidden.join(text)} to work out.")
