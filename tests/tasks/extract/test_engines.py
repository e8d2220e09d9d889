"""Every engine finds the text of a plain page, says the same each time, and takes its settings."""

from typing import get_args

import numpy as np
import pytest

from tasks.extract.engines import content_of
from tasks.extract.features import Features, Floats
from tasks.extract.metadata import Metadata
from tasks.extract.worker_messages import EngineName, Settings
from tests.tasks.extract.pages import ARTICLE, LINKS, PAGE, SENTENCES

ENGINES = get_args(EngineName)


def text_of(html: str, **changes: object) -> str:
    content = content_of(html, Settings(**{"engine": "combined", **changes}))  # type: ignore[arg-type]
    assert content is not None
    return content.text


@pytest.mark.parametrize("engine", ENGINES)
def test_an_article_is_found_without_what_surrounds_it(engine: EngineName) -> None:
    text = text_of(PAGE, engine=engine)
    assert all(sentence in text for sentence in SENTENCES)
    assert "Section number 3" not in text
    assert "forests of the north" not in text or engine == "justext", "jusText goes by the words, and these are prose"


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_page_says_about_itself(engine: EngineName) -> None:
    content = content_of(PAGE, Settings(engine=engine))
    assert content is not None
    said = content.metadata
    assert (said.author, said.published, said.license) == ("Ann Example", "2026-01-31", "CC BY-SA 4.0")
    assert said.title == "The valley"


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_page_says_about_itself_below_its_head_counts_too(engine: EngineName) -> None:
    said = (
        '<script type="application/ld+json">{"author": {"name": "Ada Byron"}}</script>'
        '<meta itemprop="datePublished" content="2026-01-31">'
        '<a rel="license nofollow" href="https://creativecommons.org/licenses/by/4.0/">Licence</a>'
    )
    page = PAGE.partition("<head>")[0] + "<head><title>Tides | Coast</title></head><body><p>Some text.</p>" + said
    content = content_of(page, Settings(engine=engine))
    assert content is not None
    assert content.metadata == Metadata(title="Tides", author="Ada Byron", published="2026-01-31", license="CC BY 4.0")


@pytest.mark.parametrize("engine", ["trafilatura", "justext"])
@pytest.mark.parametrize(
    "link", ['href="https://creativecommons.org/licenses/by/4.0/">Reuse', 'href="/terms">CC BY 4.0']
)
def test_a_licence_that_only_a_link_in_the_footer_names(engine: EngineName, link: str) -> None:
    page = f"<html><body><article>{ARTICLE}</article><footer><a {link}</a></footer></body></html>"
    content = content_of(page, Settings(engine=engine))
    assert content is not None
    assert content.metadata.license == "CC BY 4.0"


TERMS = "https://h.example/licence-a"
CC_BY = '<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY</a>'


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("named", "license_"),
    [
        (f'<link rel="license" type="application/rsl+xml" href="{TERMS}">', None),
        (f'<a rel="license" type="application/rsl+xml" href="{TERMS}">Our licence</a>', None),
        (f'<LINK REL=LICENSE TYPE="Application/RSL+XML" HREF="{TERMS}">', None),
        (
            f'<link rel="license" type="application/rsl+xml" href="{TERMS}"><a rel=license href="{TERMS}">Licence</a>'
            f'<meta name="license" content="{TERMS}">',
            None,
        ),
        ('<script type="application/rsl+xml"><rsl><license/></rsl></script>', None),
        (f'<link rel="license" type="application/rsl+xml" href="{TERMS}">{CC_BY}', "CC BY 4.0"),
        (f'<link rel="license" type="text/html" href="{TERMS}">', TERMS),
    ],
)
def test_terms_to_agree_on_are_no_licence(engine: EngineName, named: str, license_: str | None) -> None:
    for page in (PAGE.replace("<head>", f"<head>{named}"), PAGE.replace("</article>", f"{named}</article>")):
        own = page.replace('<link rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/">', "")
        content = content_of(own, Settings(engine=engine))
        assert content is not None
        assert content.metadata.license == license_


@pytest.mark.parametrize("engine", ENGINES)
def test_terms_of_use_are_no_licence_by_any_name(engine: EngineName) -> None:
    terms = '<a rel="license" href="/terms">Terms</a>'
    page = f"<html><body><article>{ARTICLE}</article><footer>{terms}</footer></body></html>"
    content = content_of(page, Settings(engine=engine))
    assert content is not None
    assert content.metadata.license is None


@pytest.mark.parametrize("engine", ENGINES)
def test_the_fifth_time_gives_what_the_first_gave(engine: EngineName) -> None:
    assert len({text_of(PAGE, engine=engine) for _ in range(5)}) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "html", ["<", "<>", "plain text", "<!doctype html>", "<?xml version='1.0' encoding='x'?><a>b</a>"]
)
def test_what_is_hardly_html_gives_little_or_nothing_but_no_wrong_text(engine: EngineName, html: str) -> None:
    content = content_of(html, Settings(engine=engine))
    assert content is None or content.text.strip("- ") in ("", "<", "<>", "plain text", "b")


def test_posts_that_are_called_comments_are_a_forums_text() -> None:
    posts = "".join(f'<div class="comment"><p>{sentence}</p></div>' for sentence in SENTENCES)
    forum = f"<html><body><nav>{LINKS}</nav><h1>The flood</h1>{posts}</body></html>"
    assert all(sentence in text_of(forum) for sentence in SENTENCES)


def test_comments_under_an_article_are_left_out_unless_asked_for() -> None:
    remark = "I have lived there for years, and what you write of the bridge, dear author, is not quite true."
    html = PAGE.replace("</article>", f'<div id="comments"><p>{remark}</p></div></article>')
    assert remark not in text_of(html)
    assert remark in text_of(html, comments=True)


def test_a_listing_is_kept_with_its_links() -> None:
    entries = "".join(
        f"<article><h2><a href=/{n}>Section number {n} of this site</a></h2><p>Reports, maps and letters of the year "
        f"19{n:02}, with an index of all the names that are in them.</p></article>"
        for n in range(12)
    )
    menu = "<nav class=menu><a href=/>Home of all</a></nav>"
    html = f"<html><body>{menu}<main><h1>Sections</h1>{entries}</main></body></html>"
    text = text_of(html)
    assert "Section number 3 of this site" in text
    assert "Home of all" not in text


def test_an_article_that_the_model_does_not_know_for_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_footer(features: Features) -> Floats:
        return np.where(np.arange(len(features.numbers)) == len(features.numbers) - 1, 9.0, -9.0)

    monkeypatch.setattr("tasks.extract.main_content.scores", only_the_footer)
    text = text_of(PAGE)
    assert all(sentence in text for sentence in SENTENCES)
    assert "Section number 3" not in text
    assert "printed on paper" not in text


def test_where_the_model_takes_nothing_all_that_is_no_frame_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.extract.main_content.scores", lambda features: -np.ones(len(features.numbers)))
    html = f"<html><body><nav class=menu><a href=/>Home of all</a></nav><div><ul>{LINKS}</ul></div></body></html>"
    assert "Section number 3 of this site" in text_of(html)
    assert "Home of all" not in text_of(html)
    assert text_of(html.replace("<div>", "<div>Before.<main>")).startswith("- Section number 0")


def test_a_page_that_a_script_shows_is_not_hidden() -> None:
    text = text_of(PAGE.replace("<main>", '<main style="display:none">'))
    assert all(sentence in text for sentence in SENTENCES)


def test_repeats_and_hidden_parts_are_left_out() -> None:
    hidden = "A part that no reader sees, since it is hidden by its style, stands here with words enough to count."
    html = PAGE.replace(
        "</article>", f'<p>{SENTENCES[0]}</p><div style="display: none"><p>{hidden}</p></div></article>'
    )
    text = text_of(html)
    assert text.count(SENTENCES[0]) == 1
    assert hidden not in text


def test_code_keeps_its_lines_and_a_table_its_rows() -> None:
    table = "<table><tr><td>length</td><td>12 km</td></tr></table>"
    extra = f"<pre>def f(x):\n    return x</pre>{table}<ul><li>a point</li></ul>"
    html = PAGE.replace("</article>", f"{extra}<p>{SENTENCES[0]} Again.</p></article>")
    text = text_of(html)
    for expected in ("def f(x):\n    return x", "length | 12 km", "- a point"):
        assert expected in text
    assert "12 km" not in text_of(html, tables=False)
    assert SENTENCES[3] in text_of(html, tables=False)


def test_a_layout_table_is_no_table() -> None:
    html = f"<html><body><table><tr><td>{ARTICLE}</td><td>{LINKS}</td></tr></table></body></html>"
    assert SENTENCES[2] in text_of(html, tables=False)


def test_chinese_is_counted_by_its_characters() -> None:
    sentence = "这座桥建于大洪水之年，住在山谷里的人们至今没有忘记那一年发生的事情。"
    paragraphs = "".join(f"<p>{start}{sentence}</p>" for start in ("", "又", "再", "还"))
    html = f"<html><body><div class=nav><ul>{LINKS}</ul></div><div>{paragraphs}</div></body></html>"
    text = text_of(html)
    assert sentence in text
    assert "Section" not in text
