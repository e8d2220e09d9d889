"""Text that a page carries as data for a script to show, put where every engine finds it.

Discourse (https://github.com/discourse/discourse), which serves a good part of the web's forums, sends browsers no post
as HTML: a topic's posts are JSON in the attribute `data-preloaded`, each one's HTML under `cooked`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape, unescape
from typing import Any

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
    except (ValueError, RecursionError):
        return html
    posts = "".join(post for topic in topics for post in _posts(topic, html))
    return f"{html}<main>{posts}</main>" if posts else html


def _object(text: str) -> dict[str, Any]:
    told = json.loads(text)
    return told if isinstance(told, dict) else {}


def _topic(value: object) -> dict[str, Any]:
    return _object(value) if isinstance(value, str) else value if isinstance(value, dict) else {}


def _posts(topic: dict[str, Any], html: str) -> Iterator[str]:
    stream = topic.get("post_stream")
    posts = stream.get("posts") if isinstance(stream, dict) else None
    heading = topic.get("title")
    for post in posts if isinstance(posts, list) else ():
        cooked = post.get("cooked") if isinstance(post, dict) else None
        if not isinstance(cooked, str) or cooked in html:
            continue
        if isinstance(heading, str):
            yield f"<h1>{escape(heading)}</h1>"
            heading = None
        name = post.get("name") or post.get("username")
        author = f"<div class='author'>{escape(name)}</div>" if isinstance(name, str) else ""
        yield f"<article class='post'>{author}<div class='cooked'>{cooked}</div></article>"
