"""The one writer of params.yaml: what it changes, what it leaves, and what stands on the disk whatever ends it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flows.workspace.assignments import read_value
from flows.workspace.graph import load_graph
from flows.workspace.params import check_params, merge_values, read_params, set_values
from tasks.contracts.errors import ParamsError
from tests.conftest import ROOT

ODD = """\
# a file that nobody's writer made
crawl:
  # where
  seeds:
    - http://a.example/  # first
    - http://b.example/
    # and no more

# next: filter
filter:   # its rules
  rules: []
empty:

text: |
  several
  lines

folded: >-
  more of
  them
# model
model: {layers: 2,   # few
  heads: 3,
}
quoted: 'it''s
  long'  # quoted
"last": {}   # nothing yet
"""
WORDS = st.sampled_from(
    ["https://example.org/", "https://example.org/a?b=c&d=e#f", "*.example.org", "&a", "#b", "a b", "c: d", "e #f",
     "@g", "`h", "%i", "!j", "|k", ">l", "-", "- m", "?n", "null", "true", "1", "1.5", "2024-01-01", "", " o ", "p\nq",
     "'r", '"s', "\u00e9\u6f22\U0001f600\u2028\x85\x7f", "[t", "u]", "{v", "w}", "x,y", "on", "~", ".inf", "0x10",
     "1e3", "::1"]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | WORDS
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b c", "d:"]), inner, max_size=3),
    max_leaves=12,
)


def keys_of(settings: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every setting of nested sections, and a new one in each of them."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, (*path, key))
        else:
            yield (*path, key)
    yield (*path, "new_key")


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def merged(settings: Any, changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(settings) if isinstance(settings, dict) else {}
    for key, value in changes.items():
        result[key] = merged(result.get(key), value) if isinstance(value, dict) else value
    return result


def stands_for_its_keys(settings: Any, path: tuple[str, ...]) -> bool:
    """Whether a word stands at a place, as a preset's name does, in which no key of its own can be laid."""
    for key in path:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return isinstance(settings, str)


def comments(text: str) -> list[str]:
    """The comments of the files above, in whose values no # stands."""
    return re.findall(r"(?:(?<=\s)|^)#[^\n]*", text, re.M)


def inside_a_list(text: str) -> dict[tuple[str, ...], list[str]]:
    """Comments that speak of single items of a list in lines of its own, and go when it is replaced."""
    rules = re.search(r"^  rules:\n(.*?)^  max_error_rate", text, re.M | re.S)
    return {("crawl", "seeds"): ["# first"], ("filter", "rules"): comments(rules[1]) if rules else []}


@pytest.mark.parametrize("name", ["ours", "odd"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_comments_order_and_every_other_value_stay(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    original = ODD if name == "odd" else (ROOT / "params.yaml").read_text()
    path = tmp_path_factory.mktemp("w") / "params.yaml"
    path.write_bytes(original.encode())
    there = comments(original)
    inside = inside_a_list(original)
    for _ in range(data.draw(st.integers(1, 5))):
        before = read_params(path)
        place = data.draw(st.sampled_from(list(keys_of(before))))
        value = data.draw(VALUES)
        changes = nested(place, value)
        if stands_for_its_keys(before, place) and isinstance(value, dict):
            with pytest.raises(ParamsError, match="stands for all its keys"):
                merge_values(changes, path)
            assert repr(read_params(path)) == repr(before)
            continue
        expected = merged(before, changes)
        merge_values(changes, path)
        assert repr(read_params(path)) == repr(expected), "repr also tells order, and 1 from 1.0 and true"
        if place in inside and repr(expected) != repr(before):
            there = [comment for comment in there if comment not in inside[place]]
        text = path.read_bytes().decode()
        at = 0
        for comment in there:
            assert comment in text[at:], f"{comment} is gone, or stands before another one now"
            at = text.index(comment, at) + len(comment)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_a_value_as_json_is_read_as_it_is(value: Any) -> None:
    typed = json.dumps(value, ensure_ascii=False)
    assume(typed.isprintable())  # YAML takes no others between quotes
    assert repr(read_value(typed)) == repr(value)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS.filter(lambda word: word.strip() and not re.search(r"""[][{},\n]|^['"]""", word)), min_size=1))
def test_a_list_of_words_needs_no_quotes(words: list[str]) -> None:
    typed: dict[str, object] = {
        "null": None,
        "true": True,
        "1": 1,
        "1.5": 1.5,
        ".inf": float("inf"),
        "0x10": 16,
        "1e3": 1000.0,
        "~": None,
    }
    typed |= {" o ": "o"}
    expected = [typed.get(word, word) for word in words]
    assert read_value(f"[{', '.join(words)}]") == expected
    assert read_value(f"{{k: [{','.join(words)}], l: {words[0]}}}") == {"k": expected, "l": expected[0]}
    assert read_value(words[0]) == expected[0]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("crawl.seeds=[https://example.org/]", ["https://example.org/"]),
        ("crawl.seeds=[https://e.org/?q=1&b=*#top, http://[::1]:8000/]", ["https://e.org/?q=1&b=*#top", "http://[::1]:8000/"]),
        ("crawl.allowed_domains=[*.example.org]", ["*.example.org"]),
        ("crawl.user_agent=My crawler #1: it's me", "My crawler #1: it's me"),
        ("crawl.contact=@me", "@me"),
        ("crawl.snapshot=2024-01-01", "2024-01-01"),
        ("crawl.paths=[data[0-9]/{a,b}.warc.gz, 'a, b']", ["data[0-9]/{a,b}.warc.gz", "a, b"]),
    ],
)  # fmt: skip
def test_what_is_typed_arrives_and_dvc_can_read_it(workspace: Path, typed: str, value: Any) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    set_values([typed])
    assert YAML(typ="safe").load(Path("params.yaml"))["crawl"][typed.split(".")[1].split("=")[0]] == value


@pytest.mark.parametrize("key", ["evaluate.tasks", "crawl.paths", "crawl.seeds", "tokenizer.special_tokens"])
def test_a_list_set_twice_leaves_what_follows_it(workspace: Path, key: str) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    for value in ("[a]", "[b, c]", "[]", str(["long" * 20] * 3), "[d]"):
        set_values([f"{key}={value}"])
        assert comments(Path("params.yaml").read_text()) == comments((ROOT / "params.yaml").read_text())


@pytest.mark.parametrize("wrong", ["[a", "[a]]", "{a}", "[a, , b]", "'a", "['a' b]", "{a: 1", "[a}", '"'])
def test_brackets_and_quotes_that_do_not_close_are_an_error(workspace: Path, wrong: str) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    with pytest.raises(ParamsError, match=r"SECTION\.KEY=VALUE"):
        set_values(["train.seed=5", f"crawl.paths={wrong}"])
    assert Path("params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_a_list_that_dvc_cannot_read_is_an_error_that_says_so(workspace: Path) -> None:
    Path("params.yaml").write_text("crawl:\n  seeds: [https://example.org/]\n")
    with pytest.raises(ParamsError, match=r"(?s)DVC.*in quotes") as caught:
        read_params()
    assert "line 2" in str(caught.value)


def test_an_alias_is_refused_and_nothing_is_written(workspace: Path) -> None:
    text = "a: &x {b: 1}\nc: *x\n"
    Path("params.yaml").write_text(text)
    with pytest.raises(ParamsError, match="by hand"):
        merge_values({"c": {"b": 2}})
    assert Path("params.yaml").read_text() == text


def test_a_refused_value_is_never_written(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    shutil.copy2(ROOT / "dvc.yaml", "dvc.yaml")
    seen: list[bytes] = []

    def refuse(wanted: Any) -> None:
        seen.append(Path("params.yaml").read_bytes())
        check_params(wanted, load_graph())

    with pytest.raises(ParamsError, match=r"train\.max_stepz: unknown key"):
        set_values(["train.max_stepz=5"], check=refuse)
    assert [*seen, Path("params.yaml").read_bytes()] == [(ROOT / "params.yaml").read_bytes()] * 2


WRITER = """
import itertools, sys
from flows.workspace.graph import load_graph
from flows.workspace.params import check_params, set_values
from tasks.contracts.errors import ParamsError
graph = load_graph()
for number in itertools.count(1):
    set_values([f"train.max_steps={number}", f"crawl.paths=[{', '.join(['x' * 30] * (number % 9))}]"])
    try:
        set_values(["train.max_steps=-1"], check=lambda settings: check_params(settings, graph))
    except ParamsError:
        print(number, flush=True)
"""


def test_killed_at_any_moment_the_file_holds_what_was_accepted(workspace: Path) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    shutil.copy2(ROOT / "dvc.yaml", "dvc.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    moments = random.Random(1)
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            time.sleep(moments.random())
            process.send_signal(signal.SIGKILL)
        read = read_params()
        assert read["train"]["max_steps"] > 0
        assert comments(Path("params.yaml").read_text()) == comments((ROOT / "params.yaml").read_text())
