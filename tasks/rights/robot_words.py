"""Words to robots, as X-Robots-Tag and robots metas list them: "googlebot: noindex, noai".

Words stand between commas, semicolons, bars or blanks; quotes, and the slash of `content=noai/>`, are no part of them.
A name with a colon says whom the words after it address, up to the next name; a directive with a value
(max-image-preview: none) is no name, and its value no word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.rights.robots import EVERYONE, product_token

RESERVING = frozenset({
    "noai", "noimageai", "noml", "disallowaitraining", "noindex", "nosnippet", "noarchive", "nocache",
})  # fmt: skip
"""Words that reserve a use; "none" is "noindex" and "nofollow" in one."""
_OTHERS = frozenset({
    "all", "index", "follow", "nofollow", "none", "archive", "snippet", "imageindex", "noimageindex", "notranslate",
    "noodp", "noydir", "indexifembedded", "nopagereadaloud", "nositelinkssearchbox", "allowaitraining",
})  # fmt: skip
_WORDS = RESERVING | _OTHERS
_DATED = "unavailable_after"
_VALUED = frozenset({_DATED, "max-snippet", "max-image-preview", "max-video-preview"})
_CLOCK = re.compile(r"[\d-]+(?:t\d+)?")  # of a date such as "25 Jun 2030 15:00:00 PST", what stands before a colon
_PIECE = re.compile(r"[^\s,;:|\"']++|[,;:]")
_MOST_NAME = 100


def robot_words(value: str, agent: str = EVERYONE) -> Iterator[tuple[str, str]]:
    """Yield (robot, word) of a list, both in lower case; a robot is a product token, or "*".

    Args:
        agent: whom words address before the first name.

    >>> list(robot_words("noai; googlebot: max-image-preview: none, noindex nosnippet"))
    [('*', 'noai'), ('googlebot', 'noindex'), ('googlebot', 'nosnippet')]
    """
    name: list[str] = []  # words of no known meaning: a robot's name, if a colon follows
    valued = dated = False
    for found in _PIECE.findall(value.lower()):
        piece = found.rstrip("/")
        if piece in (",", ";"):
            name.clear()
            valued = False
        elif piece == ":":
            if valued:
                continue
            if name and not (dated and _CLOCK.fullmatch(name[-1])):
                said = name[-1] if dated else " ".join(name[:8])
                agent = EVERYONE if said in (EVERYONE, "robots") else product_token(said[:_MOST_NAME])
                dated = False
            name.clear()
        elif valued:
            valued = False
        elif piece in _VALUED:
            name.clear()
            valued, dated = True, piece == _DATED
        elif piece in _WORDS:
            name.clear()
            dated = False
            if piece == "none":
                yield agent, "noindex"
                yield agent, "nofollow"
            else:
                yield agent, piece
        else:
            name.append(piece)


def forbids_following(value: str, names: tuple[str, ...], agent: str = EVERYONE) -> bool:
    """Tell whether a list says to everyone, or to a robot of these names, not to follow the links of a page.

    >>> forbids_following("googlebot: nofollow", ("headwater",)), forbids_following("none", ())
    (False, True)
    """
    return any(word == "nofollow" and said in (EVERYONE, *names) for said, word in robot_words(value, agent))
