"""Words as hashes: the same words whichever way they are split, equal hashes for equal words only."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.decontaminate import characters
from tasks.decontaminate.folding import two_faced, without_entities
from tasks.decontaminate.forms import form_hash, form_of, stands_alone
from tasks.decontaminate.hashed_words import gram_hashes, locate, partial_sums, split, split_many, split_with_words
from tasks.decontaminate.ngram_index import IndexSettings, read_index, write_index
from tasks.decontaminate.protected_items import ItemText
from tests.corpus import prose

ODD = (
    "aZ9é’'\u00ad\u00a0\u00b4 \t\n-…“½ﬁ²İßΣς東の"
    + "ｶﾞ\u3099ก้ำ가\u1100\u1161e\u0301\u0338\x00\U0001d400\U00020000😀\ufe0f\ud800"
)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(alphabet=ODD, max_size=30), st.text(max_size=30)))
@example(text="\u0301'\u0e49")
def test_all_ways_to_split_a_text_agree(text: str) -> None:
    units, located = split(text), locate(text)
    assert units.hashes.tolist() == located.units.hashes.tolist()
    weights = [None if found.weights is None else found.weights.tolist() for found in (units, located.units)]
    assert weights[0] == weights[1]
    assert split_with_words(text)[1] == located.words
    assert all(0 <= a < b <= len(text) for a, b in zip(located.starts, located.ends, strict=True))
    assert (np.diff(located.starts) >= 0).all()


def words_one_by_one(text: str) -> list[str]:
    """Read a text slowly: character by character, without batches, bytes, arrays or a look at the whole of it."""
    lookalikes = str.maketrans(dict[str, str | int | None](two_faced()))
    text = re.sub(
        r"\w+",
        lambda word: word[0].translate(lookalikes) if re.search("[A-Za-z]", word[0]) else word[0],
        without_entities(text),
    )
    shown = [c for c in text if not entry(c) & characters._IS_DROPPED]
    clusters: list[str] = []
    for c in shown:
        if clusters and entry(c) & characters._JOINS:
            clusters[-1] += c
        else:
            clusters.append(c)
    words = [""]
    for cluster in clusters:
        changes = any(entry(c) & characters._NEEDS_NFKC for c in cluster)
        for c in unicodedata.normalize("NFKC", cluster) if changes else cluster:
            found = entry(c)
            if found & characters._IS_DROPPED:
                continue
            letter, single = found & characters.CODE, found & (characters.IS_CHARACTER | characters.IS_LETTER)
            words[-1] += chr(letter) if letter and not single else ""
            words += [chr(letter), ""] if single else [""] if not letter else []
    return [word for word in words if word]


def entry(character: str) -> int:
    return int(characters._marked(character)[0])


TEXTS = st.one_of(
    st.text(alphabet=ODD, max_size=30),
    st.text(max_size=30),
    st.text(alphabet="ab1 é’½™&;#xampΝЅŉ\u200b\u0301ŀ\u093c\u0915", max_size=30),
    st.lists(st.sampled_from(["&amp;", "&#x37;", "&nbsp;", "ΝEW", "3 ", "½", "naïve ", "東", "\u200b"])).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="ŀa ½")
@example(text="ŉ")
def test_a_text_is_read_as_it_is_character_by_character(text: str) -> None:
    words = words_one_by_one(text)
    assert list(locate(text).words) == words
    assert split(text).hashes.tolist() == [split(word).hashes[0] for word in words]


@settings(max_examples=200, deadline=None)
@given(first=TEXTS, second=TEXTS)
@example(first="ŀa", second="½")
def test_what_else_stands_in_a_text_changes_no_word(first: str, second: str) -> None:
    assert split(f"{first}\n{second}").hashes.tolist() == [*split(first).hashes, *split(second).hashes]


SMALL = IndexSettings(ngram=7, min_words=3, min_characters=6, short_items="whole")
ITEMS = [
    "a b c d e f g h i",
    "1 + 2 =",
    "3 ½ a",
    "東京は東京は東京は",
    "naïve b ΝEW 7 a",
    "a * b",
    "7 - 3 * d",
    "a b c d e",
    "1 / 2 / 7",
]
WORDS = [
    *"abcdefghi",
    "1 + 2",
    "3",
    "½",
    "東京は",
    "naïve",
    "ΝEW",
    "7",
    "*",
    "-",
    "/",
    "&#x61;",
    "&times;",
    "\u200b",
    "\n",
]


@pytest.fixture(scope="module")
def index_of_items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    texts = [ItemText(task="t", split="", item=str(i), field="q", text=text) for i, text in enumerate(ITEMS)]
    write_index(folder, texts, SMALL)
    return folder


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(WORDS + ITEMS), max_size=20).map(" ".join), max_size=8))
def test_a_search_of_many_texts_finds_what_a_look_at_every_place_of_each_does(
    index_of_items: Path, texts: list[str]
) -> None:
    index = read_index(index_of_items, SMALL)
    counted = dict(zip(index.whole.forms.tolist(), index.whole.counted.tolist(), strict=True))
    longest = int(index.whole.lengths.max())
    assert len(set(counted.values())) == 5  # items that are looked for whole
    for text, grams in zip(texts, index.search_texts(texts), strict=True):
        words = locate(text)
        whole = {
            counted[hashed]
            for b in range(1, len(words.words) + 1)
            for a in range(max(0, b - longest), b)
            if (hashed := form_hash(form_of(text, words, a, b))) in counted and stands_alone(text, words, a, b)
        }
        assert grams == sorted({hit.gram for hit in index.search(words.units)} | whole)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(alphabet=ODD + "abc   ", max_size=20), max_size=40))
def test_many_texts_are_split_as_each_alone(texts: list[str]) -> None:
    found: dict[int, list[int]] = {}
    for numbers, units, ends in split_many(texts):
        for number, start, end in zip(numbers, [0, *ends[:-1]], ends, strict=True):
            found[number] = units.hashes[start:end].tolist()
    assert found == {i: split(text).hashes.tolist() for i, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't panic: ３ well-known STEPS.", ["dont", "panic", "3", "well", "known", "steps"]),
        ("Don’t ex\u00adam\u00adple\u200b", ["dont", "example"]),
        ("ﬁne ½ Ⅻ e\u0301té", ["fine", "1", "2", "xii", "ete"]),
        ("東京は cat", ["東", "京", "は", "cat"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("МОСКВА, снег…", ["mockba", "cher"]),
        ("", []),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    assert list(locate(text).words) == words


def test_scripts_without_spaces_weigh_less_a_character() -> None:
    assert split("one two three").weight() == 3
    assert split("東京都").weight() == pytest.approx(2)
    assert split("กขคง").weight() == pytest.approx(1)


def test_places_are_those_of_the_text() -> None:
    text = "A ﬁne “Don’t” 東京 x"
    located = locate(text)
    assert [text[a:b] for a, b in zip(located.starts, located.ends, strict=True)] == (
        ["A", "ﬁne", "Don’t", "東", "京", "x"]
    )


def test_equal_runs_have_equal_hashes_wherever_they_stand_and_others_have_not() -> None:
    words = prose(1, sentences=300)  # more characters than a window
    assert len(words) > 1 << 14
    text = f"{words}\n{words} é"
    hashes = split(text).hashes
    half = len(hashes) // 2
    assert hashes[:half].tolist() == hashes[half : 2 * half].tolist()
    assert len(np.unique(hashes)) == len(set(locate(text).words))
    sums = partial_sums(hashes)
    grams = gram_hashes(sums, np.arange(half), np.arange(half) + 5)
    assert (
        grams[: half - 5].tolist()
        == gram_hashes(sums, np.arange(half, 2 * half - 5), np.arange(half + 5, 2 * half)).tolist()
    )
    assert len(np.unique(grams)) > half - 10


def test_an_order_of_words_is_not_another() -> None:
    def gram(text: str) -> int:
        hashes = split(text).hashes
        return int(gram_hashes(partial_sums(hashes), slice(0, 1), slice(len(hashes), None))[0])

    assert gram("a b c") != gram("c b a")
    assert gram("ab c") != gram("a bc")
    assert gram("a a") != gram("a a a")
