"""What the `combined` engine makes of a page: blocks, their features, the model's answer and the lines of the text."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from html import escape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from tasks.contracts.errors import HeadwaterError
from tasks.extract import block_model
from tasks.extract.block_model import _Surroundings, model, scores
from tasks.extract.blocks import NAMES, names_in, read
from tasks.extract.carried import with_carried_text
from tasks.extract.engines import content_of
from tasks.extract.features import GRAIN, features_of
from tasks.extract.lines import data_tables, lines_of
from tasks.extract.main_content import main_text
from tasks.extract.worker_messages import Settings
from tests.hostile.growth import MOST_GROWTH, growth
from tests.tasks.extract.pages import PAGE, SENTENCES

TAGS = ["<p>", "</p>", "<div class=nav>", "</div>", "<a href=x>", "</a>", "<td>", "<tr>", "<table>", "<br>", "<script>"]
TAGS += [
    "</script>",
    "<h1>",
    "<!--",
    "-->",
    "<pre>",
    "</pre>",
    "</body>",
    "<head>",
    "&amp;",
    "\ud7ff",
    "é ",
    "</table>",
]
TAGS += ["<ul>", "<li>", "</ul>", "<math>", "<math alttext='x'>", "</math>", "<span aria-hidden=true>", "</span>"]
pages = st.lists(st.sampled_from(TAGS) | st.text(alphabet="ab c.,", max_size=30), max_size=40).map("".join)


@settings(max_examples=100, deadline=None)
@given(pages)
def test_any_page_gives_words_that_stand_in_it(html: str) -> None:
    try:
        reading = read(html)
    except etree.XMLSyntaxError:
        return
    elements = reading.elements
    assert len({len(column) for column in (elements.parents, elements.tags, elements.marks, elements.names)}) == 1
    assert set("".join(main_text(reading).split())) <= set(html.replace("&amp;", "&")) | set("-|")
    every = lines_of(reading.blocks, data_tables(reading.blocks, elements), range(len(reading.blocks)))
    told = Counter(" ".join(every).split()) - Counter(" ".join(block.text for block in reading.blocks).split())
    assert set(told) <= {"|", "-"}


@settings(max_examples=40, deadline=None)
@given(pages)
def test_no_sum_of_the_model_is_rounded(html: str) -> None:
    """So the answer is the same on every machine, in whatever order it adds."""
    try:
        reading = read(html)
    except etree.XMLSyntaxError:
        return
    if not reading.blocks:
        return
    features = features_of(reading)
    values = features.values()
    assert np.isfinite(values).all()
    assert (values * GRAIN == np.round(values * GRAIN)).all()
    layer = model()[0]
    row = [Fraction(value) for value in values[-1].tolist()]
    for column in range(0, layer.weights.shape[1], 5):
        exact = sum(x * Fraction(w) for x, w in zip(row, layer.weights[:, column].tolist(), strict=True))
        assert Fraction(float((values @ layer.weights)[-1, column])) == exact
    assert len(scores(features)) == len(reading.blocks)


def test_a_long_page_is_looked_at_in_parts_with_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of(read(PAGE))
    whole = scores(features)
    assert len(whole) > 7
    monkeypatch.setattr(block_model, "BLOCKS_AT_A_TIME", 3)
    assert (scores(features) == whole).all()


def test_what_surrounds_a_block_is_its_neighbours_and_the_means_of_what_holds_it() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    ranges = np.array([[[0, 2], [0, 3]], [[0, 2], [0, 3]], [[2, 3], [0, 3]]])
    around = _Surroundings(values, ranges).of(slice(0, 3))
    assert around[1].tolist() == [0.0, 1.0, 2.0, 4.0, 0.0, 1.5, round(7 / 3 * GRAIN) / GRAIN]
    assert around[2].tolist() == [1.0, 2.0, 4.0, 0.0, 0.0, 4.0, round(7 / 3 * GRAIN) / GRAIN]


def test_ranges_are_of_the_blocks_in_each_element() -> None:
    reading = read("<body><div><p>one</p>two<ul><li>three</li></ul></div><p>four</p></body>")
    ranges = features_of(reading).ranges
    assert [block.text for block in reading.blocks] == ["one", "two", "three", "four"]
    assert ranges[:, 0].tolist() == [[0, 1], [0, 3], [2, 3], [3, 4]]
    assert ranges[2].tolist()[:3] == [[2, 3], [2, 3], [0, 3]]
    assert ranges[:, -1].tolist() == [[0, 4]] * 4


def test_a_model_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(block_model.FILE.read_text())
    told["context"] = told["block"]
    (tmp_path / "other.json").write_text(json.dumps(told))
    monkeypatch.setattr(block_model, "FILE", tmp_path / "other.json")
    model.cache_clear()
    with pytest.raises(HeadwaterError, match=r"does not fit its code"):
        model()
    monkeypatch.undo()
    model.cache_clear()
    assert model()[0].weights.shape[0] == features_of(read("<p>one</p>")).values().shape[1], "learn the model again"


def test_names_fit_into_one_number() -> None:
    assert len(NAMES) == len(set(NAMES)) <= 64
    assert names_in("Post-Body") == names_in("post") | names_in("body")


def every_line(html: str) -> list[str]:
    reading = read(f"<html><body>{html}</body></html>")
    return lines_of(reading.blocks, data_tables(reading.blocks, reading.elements), range(len(reading.blocks)))


CODE = "  if x:\n\n\treturn  y   # a < b\n      z"


@pytest.mark.parametrize(
    "markup",
    [
        f"<pre>{escape(CODE)}</pre>",
        f"<pre>\n{escape(CODE)}\n</pre>",
        f"<pre><code class=python>{escape(CODE)}</code></pre>",
        "<pre>" + escape(CODE).replace("\n", "<br>") + "</pre>",
        "<pre>" + escape(CODE).replace("\n", "\r\n") + "</pre>",
        "<pre>" + "".join(f"<span class=line>{escape(line)}\n</span>" for line in CODE.split("\n")) + "</pre>",
        "<pre>" + "\n".join(f"<a id=l></a><i>{escape(line)}</i>" for line in CODE.split("\n")) + "</pre>",
        f"<listing>{escape(CODE)}</listing>",
        f"<xmp>{CODE}</xmp>",
    ],
)
def test_code_keeps_every_character(markup: str) -> None:
    assert CODE in "\n".join(every_line(f"<p>Before.</p>{markup}<p>After.</p>"))


def test_a_line_in_an_element_of_its_own_is_a_line_of_code() -> None:
    assert every_line("<pre><div>one</div><div>  two</div></pre><div>three</div>") == ["one\n  two", "three"]


CELL = st.text(alphabet="abc de.", max_size=12).map(lambda text: " ".join(text.split()))
ROWS = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width).filter(any), min_size=1, max_size=4)
)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from(["{}", "<p>{}</p>", "<b>{}</b>", "<div><span>{}</span></div>"]), st.booleans())
def test_a_tables_cells_can_be_had_back(rows: list[list[str]], wrapped: str, sections: bool) -> None:
    body = "".join("<tr>" + "".join(f"<td>{wrapped.format(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = (
        f"<table><caption>Of rivers</caption><tbody>{body}</tbody></table>" if sections else f"<table>{body}</table>"
    )
    lines = every_line(f"<p>Before.</p>{table}<p>After.</p>")
    assert [line.split(" | ") for line in lines if " | " in line] == rows


LAYOUT = ["<h2>News</h2>", "<ul><li>one</li></ul>", "<pre>x</pre>", "word " * 61, "<table><tr><td>a<td>b</table>"]


@pytest.mark.parametrize("cell", LAYOUT)
def test_a_table_that_lays_out_the_page_has_no_rows(cell: str) -> None:
    lines = every_line(f"<table><tr><td>left</td><td>{cell}</td></tr></table>")
    assert "left" in lines


def test_lists_keep_their_nesting() -> None:
    html = "<ul><li>a<ol><li>b<ul><li><p>c</p><p>more of c</p></li></ul></li></ol></li><li><a href=x>d</a></li></ul>"
    assert every_line(html) == ["- a", "  - b", "    - c", "more of c", "- d"]


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ('<math alttext="x^{2}"><mi>x</mi><mn>2</mn></math>', "x^{2}"),
        (
            "<math><semantics><mrow><mi>x</mi></mrow><annotation encoding='application/x-tex'>x_1</annotation>"
            "<annotation encoding='StarMath 5.0'>x1</annotation></semantics></math>",
            "x_1",
        ),
        ("<math><mi>x</mi><mo>+</mo><mn>1</mn></math>", "x+1"),
        ('<script type="math/tex">\\frac{a}{b}</script>', "\\frac{a}{b}"),
        (
            "<span class=katex><span class=katex-mathml><math><semantics><mi>y</mi><annotation encoding="
            "'application/x-tex'>y'</annotation></semantics></math></span><span aria-hidden=true>y′</span></span>",
            "y'",
        ),
    ],
)
def test_a_formula_is_its_source(formula: str, expected: str) -> None:
    assert every_line(f"<p>Let {formula} be given.</p><p>Next.</p>") == [f"Let {expected} be given.", "Next."]


def topic(posts: object, **more: object) -> str:
    told = {"site": "{}", "topic_7": json.dumps({"title": "A <b> topic", "post_stream": {"posts": posts}, **more})}
    return f'<html><body><div id="data-preloaded" data-preloaded="{escape(json.dumps(told))}"></div></body></html>'


@pytest.mark.parametrize("engine", ["combined", "trafilatura", "resiliparse"])
def test_posts_that_a_forum_sends_as_data_are_its_text(engine: str) -> None:
    posts = [{"name": "Ann", "cooked": f"<p>{sentence}</p>"} for sentence in SENTENCES]
    content = content_of(topic(posts), Settings(engine=engine))  # type: ignore[arg-type]
    assert content is not None
    assert [sentence in content.text for sentence in SENTENCES] == [True] * len(SENTENCES)


@pytest.mark.parametrize(
    "html",
    [
        PAGE,
        PAGE.replace("<body>", '<body data-preloaded="">'),
        PAGE.replace("<body>", '<body data-preloaded="{">'),
        PAGE.replace("<body>", f'<body data-preloaded="{"[" * 100_000}">'),
        *(PAGE.replace("<body>", topic(posts)[12:]) for posts in (None, [], 5, [None, {"cooked": 1}, {}])),
        PAGE.replace("<body>", "<body>" + topic([{"cooked": "<p>Shown already.</p>"}]) + "<p>Shown already.</p>"),
    ],
)
def test_a_page_without_such_posts_is_left_as_it_is(html: str) -> None:
    assert with_carried_text(html) == html


@pytest.mark.parametrize("name", ["hgroup", "legend", "listing", "menu", "optgroup", "search", "xmp"])
def test_no_words_grow_together_at_a_block_level_element(name: str) -> None:
    assert [line.strip("- ") for line in every_line(f"<div>one<{name}>two</{name}>three</div>")] == [
        "one",
        "two",
        "three",
    ]


def test_code_within_code_closes_no_more_than_itself() -> None:
    reading = read("<main><section><pre><div>a<pre>b</pre></div></pre><p>c</p></section></main>")
    block = reading.blocks[-1]
    assert reading.elements.tags[reading.elements.parents[block.element]] == "section"


@pytest.mark.parametrize("name", ["noframes", "noembed"])
def test_what_no_browser_shows_is_no_text(name: str) -> None:
    assert every_line(f"<p>one</p><{name}><p>two</p></{name}>") == ["one"]


def test_code_that_stands_twice_is_kept_twice() -> None:
    code = "make the first and the second and the third and the fourth and the last"
    html = PAGE.replace("</article>", f"<pre>{code}</pre><p>{SENTENCES[0]} Again:</p><pre>{code}</pre></article>")
    assert main_text(read(html)).count(code) == 2


def test_many_posts_are_read_in_linear_time() -> None:
    def of(number: int) -> str:
        return topic([{"cooked": f"<p>{place}</p>"} for place in range(number)])

    assert growth(with_carried_text, of, 2_000) <= MOST_GROWTH


def test_a_topic_that_is_sent_twice_is_read_once() -> None:
    html = topic([{"cooked": "<p>A short one.</p>"}] * 2)
    assert with_carried_text(html).count("<p>A short one.</p>") == 1


HIDDEN = "".join(f"<p>{sentence}</p>" for sentence in SENTENCES)


@pytest.mark.parametrize(
    "html",
    [
        f"<body><p>Loading</p><noscript><main>{HIDDEN}</main></noscript></body>",
        topic([{"cooked": HIDDEN}]).replace("</body>", f"<noscript><main>{HIDDEN}</main></noscript></body>"),
        "<body><p>Loading</p><script type='application/ld+json'>"
        + json.dumps([{"@graph": [{"@type": "NewsArticle", "articleBody": " ".join(SENTENCES)}]}])
        + "</script></body>",
    ],
    ids=["noscript", "a forum's noscript", "JSON-LD"],
)
def test_a_page_that_only_a_script_shows_has_the_text_that_it_carries_besides(html: str) -> None:
    content = content_of(f"<html>{html}</html>", Settings(engine="combined"))
    assert content is not None
    assert [content.text.count(sentence) for sentence in SENTENCES] == [1] * len(SENTENCES)


def test_what_a_page_carries_besides_its_text_is_left_out() -> None:
    told = json.dumps({"articleBody": "Something else, for search engines alone. " * 3})
    more = "<noscript><p>Please switch scripts on, for without them nothing works here.</p></noscript>"
    html = PAGE.replace("</body>", f"{more}<script type='application/ld+json'>{told}</script></body>")
    assert content_of(html, Settings(engine="combined")) == content_of(PAGE, Settings(engine="combined"))
