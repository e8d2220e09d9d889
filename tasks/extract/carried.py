"""Text that a page carries as data for a script to show, put where every engine finds it.

Discourse (https://github.com/discourse/discourse), which serves a good part of the web's forums, sends browsers no post
as HTML that they show: a topic's posts are JSON in the attribute `data-preloaded`, each one's HTML under `cooked`. News
sites that draw a page by scripts name the article's text in JSON-LD, for search engines
(https://schema.org/articleBody).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape, unescape
from typing import Any

from tasks.contracts.text_files import json_value

_PRELOADED = re.compile(r"""data-preloaded\s*=\s*(?:"([^"]*)"|'([^']*)')""")


def with_carried_text(html: str) -> str:
    """Return a page with the posts that it carries as data at its end; as it is where there are none, or it shows them.

    >>> with_carried_text("<p>One.</p>")
    '<p>One.</p>'
    """
    found = _PRELOADED.search(html) if "data-preloaded" in html else None
    if found is None:
        return html
    try:
        topics = [
            _topic(value) for name, value in _object(unescape(found[1] or found[2] or "")).items() if "topic_" in name
        ]
    except ValueError:
        return html
    posts = {cooked: post for topic in topics for cooked, post in _posts(topic)}
    # A page shows its posts or it does not, so that the longest speaks for all: to look for each takes quadratic time.
    if not posts or max(posts, key=len) in html:
        return html
    return f"{html}<main>{''.join(posts.values())}</main>"


def article_body(json_ld: Iterable[str]) -> str:
    """Return the longest text that a page's JSON-LD calls the body of an article, "" where there is none.

    >>> article_body(['{"@graph": [{"@type": "NewsArticle", "articleBody": "It rained."}]}', "{"])
    'It rained.'
    """
    bodies = [""]
    for script in json_ld:
        if "articleBody" not in script:
            continue
        try:
            inside = [json_value(script, strict=False)]
        except ValueError:
            continue
        while inside:
            one = inside.pop()
            if isinstance(one, dict):
                body = one.get("articleBody")
                bodies += [body] if isinstance(body, str) else []
                inside += one.values()
            elif isinstance(one, list):
                inside += one
    return max(bodies, key=len)


def _object(text: str) -> dict[str, Any]:
    told = json_value(text)
    return told if isinstance(told, dict) else {}


def _topic(value: object) -> dict[str, Any]:
    return _object(value) if isinstance(value, str) else value if isinstance(value, dict) else {}


def _posts(topic: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each post's own HTML, and with what stands around it."""
    stream = topic.get("post_stream")
    posts = stream.get("posts") if isinstance(stream, dict) else None
    heading = topic.get("title")
    for post in posts if isinstance(posts, list) else ():
        cooked = post.get("cooked") if isinstance(post, dict) else None
        if not isinstance(cooked, str) or not cooked:
            continue
        name = post.get("name") or post.get("username")
        author = f"<div class='author'>{escape(name)}</div>" if isinstance(name, str) else ""
        above = f"<h1>{escape(heading)}</h1>" if isinstance(heading, str) else ""
        heading = None
        yield cooked, f"{above}<article class='post'>{author}<div class='cooked'>{cooked}</div></article>"
