"""Pages planted so that each later stage has something to catch; every person, number and question here is made up."""

# ruff: noqa: E501 (long lines are prose)
from __future__ import annotations

import hashlib
import html
from collections.abc import Iterator, Sequence

from tasks.crawl.sample.foreign_passages import PASSAGES
from tasks.crawl.sample.pages import DOMAIN, HOME, SamplePage, render
from tasks.crawl.sample.quiz import ITEMS, LEAKED

NEAR_DUPLICATES = 80
EXACT_DUPLICATES = 30

SPAM = ("cheap", "best", "buy", "online", "discount", "free", "deal", "offer", "price", "shop", "sale", "bonus")
FILLER = (
    "Welcome to our website, where quality meets passion. We are committed to providing solutions that add value. "
    "Our team of dedicated experts works around the clock to exceed your expectations. Click here to learn more. "
)
SUBJECTS = ("garden", "kitchen", "library", "harbour", "museum", "station", "market", "workshop", "theatre", "school",
            "orchard", "bakery", "mountain hut", "ferry", "observatory")  # fmt: skip
FIRST_NAMES = ("Ada", "Bela", "Carla", "Dario", "Elin", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaja", "Liam", "Mira",
               "Nuno", "Olga")  # fmt: skip
LAST_NAMES = ("Abendroth", "Birkeland", "Castelli", "Drummond", "Esposito", "Fairweather", "Grindlay", "Holloway",
              "Ibarra", "Jankowski", "Kessler", "Lindqvist", "Moravec", "Norwood", "Okafor")  # fmt: skip


def planted_pages() -> list[SamplePage]:
    """Return the pages that need no other page: junk, marks, people, languages, quiz, odd answers."""
    return [*_junk(), *_marked(), *_people(), *_languages(), *_quiz(), *_odd()]


def mirror_pages(pages: Sequence[SamplePage]) -> list[SamplePage]:
    """Return mirror.sample.example: near and exact copies of some of the given pages."""
    listed = [page for page in pages if page.listed and page.status == 200 and len(page.body) > 4000]
    # Spread over all hosts by a hash of the URL, so that no one package is copied as a whole.
    chosen = sorted(listed, key=lambda page: hashlib.sha256(page.url.encode()).digest())[
        : NEAR_DUPLICATES + EXACT_DUPLICATES
    ]
    made = []
    for number, page in enumerate(chosen):
        path = f"/{page.host.split('.')[0]}{page.path.rstrip('/') or '/index'}"
        body = _absolute(page) if number >= NEAR_DUPLICATES else _edited(page, number)
        made.append(SamplePage(f"mirror.{DOMAIN}", path, page.title, body))
    return made


def _absolute(page: SamplePage) -> bytes:
    """Return a page whose links lead back to the host it is from."""
    return page.body.replace(b'href="/', f'href="http://{page.host}/'.encode())


def _edited(page: SamplePage, number: int) -> bytes:
    """Return a page with the small changes that a mirror makes: a banner, a word here and there."""
    text = _absolute(page).decode()
    banner = f"<p>This copy was mirrored from {page.host} and may be older than the original. It is copy number {number}.</p>"
    swaps = (
        ("returns", "gives back"),
        ("Note that", "Please note that"),
        ("is used to", "serves to"),
        ("specified", "given"),
    )
    for old, new in swaps[: 1 + number % len(swaps)]:
        text = text.replace(f" {old} ", f" {new} ", 2)
    return text.replace("<article>", f"<article>\n{banner}", 1).encode()


def _junk() -> Iterator[SamplePage]:
    host = f"junk.{DOMAIN}"
    for number, subject in enumerate(SUBJECTS):
        kind = number % 3
        if kind == 0:
            run = " ".join(f"{SPAM[(number + at * 5) % len(SPAM)]} {subject}" for at in range(400))
            main = f"<h1>{subject}</h1><p>{run}</p>"
        elif kind == 1:
            links = "".join(f'<li><a href="/page{at}.html">{subject} {at}</a></li>' for at in range(120))
            main = f"<ul>{links}</ul>".replace('href="/page', 'rel="nofollow" href="/page')
        else:
            main = f"<h1>About our {subject}</h1>" + f"<p>{FILLER}</p>" * 12
        title = f"Best {subject} deals"
        yield SamplePage(
            host, f"/{subject.replace(' ', '-')}.html", title, render(site="Deals", title=title, main=main)
        )


def _story(subject: str, number: int) -> str:
    """Return a few paragraphs of plain prose about a place, for pages whose point is elsewhere."""
    first = FIRST_NAMES[number % len(FIRST_NAMES)]
    return (
        f"<p>The {subject} at the end of the street has been open to visitors since the spring. It began as a small project "
        f"of {first} and a few neighbours, who met on weekends to repair the roof and to paint the walls. After two years "
        f"they had raised enough money to hire a carpenter, and the rooms on the upper floor could be used again.</p>"
        f"<p>Today the {subject} is run by volunteers. They keep a careful record of everything that is lent or given away, "
        f"they write a short report each month, and they invite everyone who is curious to look behind the scenes. "
        f"On the {number + 3}th of each month there is a guided tour, and children are especially welcome.</p>"
        f"<p>What surprises most people is how quiet the place is, although it stands beside a busy road. The thick walls "
        f"keep out the noise, and in the afternoon the light falls through the tall windows onto the wooden floor. "
        f"If you would like to help, come by on a Saturday and ask for somebody who knows the {subject} well.</p>"
    )


def _marked() -> Iterator[SamplePage]:
    host = f"reserved.{DOMAIN}"
    marks = ("noai", "noai, noimageai", "noindex", "noindex, noai")
    for number, subject in enumerate(SUBJECTS):
        title = f"Notes on the {subject}"
        by_header = number == 4
        head = "" if by_header else f'<meta name="robots" content="{marks[number % len(marks)]}">'
        body = render(site="Reserved", title=title, main=f"<h1>{title}</h1>{_story(subject, number)}", head=head)
        headers = {"X-Robots-Tag": "noai"} if by_header else {}
        yield SamplePage(host, f"/{subject.replace(' ', '-')}.html", title, body, headers=headers)


def luhn_number(prefix: str, number: int) -> str:
    """Return a made-up 16-digit card number with a right check digit (ISO/IEC 7812).

    >>> luhn_number("4000", 7)
    '4000 0000 0000 0077'
    """
    digits = f"{prefix}{number:0{15 - len(prefix)}d}"
    total = sum(sum(divmod(int(digit) * (2 if at % 2 == 0 else 1), 10)) for at, digit in enumerate(digits))
    whole = digits + str(-total % 10)
    return " ".join(whole[at : at + 4] for at in range(0, 16, 4))


def _people() -> Iterator[SamplePage]:
    host = f"people.{DOMAIN}"
    for number, (first, last) in enumerate(zip(FIRST_NAMES, LAST_NAMES, strict=True)):
        subject = SUBJECTS[number]
        mail = f"{first}.{last}@{subject.replace(' ', '-')}-friends.org".lower()
        main = (
            f"<h1>{first} {last}</h1>{_story(subject, number)}"
            f"<p>You can reach {first} by e-mail at {mail} or by telephone at +1 (212) 555-01{number + 10:02d}, on weekdays "
            f"before noon. The server that keeps our list of members answers at {81 + number}.{20 + number}.{7 + number}.{100 + number}, "
            f"and the last payment was made with the card {luhn_number('4539', 7345112 + number * 7919)}, as the "
            f"treasurer wrote in the minutes of the meeting.</p>"
        )
        path = f"/{first}-{last}.html".lower()
        yield SamplePage(host, path, f"{first} {last}", render(site="People", title=f"{first} {last}", main=main))


def _languages() -> Iterator[SamplePage]:
    host = f"languages.{DOMAIN}"
    for language, (title, paragraphs) in sorted(PASSAGES.items()):
        count = len(paragraphs)
        for number in range(count):
            chosen = [paragraphs[(number + at * 2 + 1) % count] for at in range(3)]
            chosen = [paragraphs[number], *[text for text in dict.fromkeys(chosen) if text != paragraphs[number]]]
            main = f"<h1>{title} {number + 1}</h1>" + "".join(f"<p>{html.escape(text)}</p>" for text in chosen)
            body = render(site=title, title=f"{title} {number + 1}", main=main, language=language)
            yield SamplePage(host, f"/{language}/{number + 1}.html", f"{title} {number + 1}", body)


def _quiz() -> Iterator[SamplePage]:
    """Yield the pages that leak benchmark items: questions quoted word for word inside prose."""
    host = f"study.{DOMAIN}"
    for number in range(3):
        leaked = ITEMS[:LEAKED][number::3]
        parts = [f"<h1>Study notes, part {number + 1}</h1>",
                 "<p>These notes were put together by a reading group that met every second week. Each section quotes a "
                 "question which came up, and then says in our own words how we got to the answer.</p>"]  # fmt: skip
        for item in leaked:
            right = item["choices"][item["answer"]]
            parts.append(
                f"<p>One evening somebody asked: {html.escape(item['question'])} After some discussion the group agreed that "
                f"the answer is {html.escape(right)}. Those who had not read the chapter were asked to go over it again, and "
                f"to write down what had misled them at first.</p>"
            )
        title = f"Study notes, part {number + 1}"
        yield SamplePage(
            host, f"/notes-{number + 1}.html", title, render(site="Study", title=title, main="".join(parts))
        )


def _odd() -> Iterator[SamplePage]:
    """Yield a redirect, a dead link, a legacy charset, and what robots.txt forbids."""
    main = "<h1>Odd corners</h1><p><a href='/old.html'>An old address</a>, <a href='/gone.html'>a dead link</a>, "
    main += (
        "<a href='/legacy.html'>a page in a legacy charset</a>, <a href='/private/plans.html'>private plans</a>.</p>"
    )
    yield SamplePage(HOME, "/odd.html", "Odd corners", render(site="Sample", title="Odd corners", main=main))
    yield SamplePage(
        HOME, "/old.html", "Moved", b"", status=301, listed=False, headers={"Location": f"http://{HOME}/odd.html"}
    )
    title, paragraphs = PASSAGES["fr"]
    text = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
    legacy = f"<html><head><title>{title}</title></head><body><h1>{title}</h1>{text}</body></html>".encode(
        "latin-1", "replace"
    )
    yield SamplePage(HOME, "/legacy.html", title, legacy, content_type="text/html; charset=iso-8859-1", listed=False)
    secret = render(site="Sample", title="Plans", main="<h1>Plans</h1><p>Nobody may fetch this page.</p>")
    yield SamplePage(HOME, "/private/plans.html", "Plans", secret, listed=False)
