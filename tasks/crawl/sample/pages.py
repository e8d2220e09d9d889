"""The sample's pages: a documentation site of the installed packages, with a site's usual surroundings.

Everything is built from sorted listings, so one environment always gives the same site.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tasks.crawl.sample.modules import Entry, Module, Readme, package_licence, read_package

DOMAIN = "sample.example"
HOME = DOMAIN
PAGE_WORDS = 600  # a page is closed when it holds this many words of prose
SMALLEST_PAGE = 130  # words of prose below which a module gets no page of its own


@dataclass(frozen=True, slots=True)
class SamplePage:
    """One answer of the site.

    Attributes:
        host: the name it is served under.
        path: beginning with "/".
        listed: whether the sitemap and the host's index name it.
        headers: sent beside Content-Type.
    """

    host: str
    path: str
    title: str
    body: bytes
    status: int = 200
    listed: bool = True
    content_type: str = "text/html; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.host}{self.path}"


@dataclass(frozen=True, slots=True)
class _Draft:
    path: str
    title: str
    summary: str
    main: str


def host_of(package: str) -> str:
    """Return the host that documents a package ("more_itertools" → more-itertools.sample.example)."""
    name = {"stdlib": "python", "_pytest": "pytest", "PIL": "pillow", "attr": "attrs"}.get(package, package)
    return f"{name.replace('_', '-')}.{DOMAIN}".lower()


def package_pages(package: str, kilobytes: int) -> list[SamplePage]:
    """Build the pages of one package: its modules, several classes or functions a page, and an index."""
    drafts = [draft for module in read_package(package, kilobytes) for draft in _module_drafts(module)]
    if not drafts:
        return []
    title = "The Python standard library" if package == "stdlib" else f"{package} documentation"
    return list(_site(host_of(package), title, drafts, [package_licence(package)] * len(drafts)))


def readme_pages(readmes: list[Readme]) -> list[SamplePage]:
    """Build packages.sample.example: one page a distribution."""
    drafts = [
        _Draft(
            path=f"/{readme.name}/",
            title=f"{readme.name} {readme.version}",
            summary=readme.summary,
            main=f"<h1>{html.escape(readme.name)}</h1>\n<p>{readme.summary}</p>\n{readme.markup}",
        )
        for readme in readmes
    ]
    return list(_site(f"packages.{DOMAIN}", "Installed packages", drafts, [readme.licence for readme in readmes]))


def _module_drafts(module: Module) -> Iterator[_Draft]:
    number = 0
    for group in _grouped(module.entries):
        if sum(entry.words for entry in group) < SMALLEST_PAGE:
            continue
        number += 1
        first = next((entry.heading for entry in group if entry.heading), module.name)
        title = module.name if number == 1 else f"{module.name}: {first.removeprefix('class ')}"
        parts = [f"<h1>{html.escape(title)}</h1>"]
        for entry in group:
            if entry.heading:
                parts.append(f"<h2>{html.escape(entry.heading)}</h2>")
            parts.append(entry.markup)
        suffix = "" if number == 1 else f"-{number}"
        yield _Draft(f"/{module.name}{suffix}.html", title, module.summary, "\n".join(parts))


def _grouped(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    size = 0
    for entry in entries:
        group.append(entry)
        size += entry.words
        if size >= PAGE_WORDS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _site(host: str, title: str, drafts: list[_Draft], licences: list[str | None]) -> Iterator[SamplePage]:
    """Yield a host's pages with links to their neighbours, and its index."""
    for at, (draft, licence) in enumerate(zip(drafts, licences, strict=True)):
        near = drafts[max(0, at - 5) : at] + drafts[at + 1 : at + 6]
        body = render(
            site=title,
            title=draft.title,
            main=draft.main,
            summary=draft.summary,
            sidebar=[(other.path, other.title) for other in near],
            licence=licence,
        )
        yield SamplePage(host, draft.path, draft.title, body)
    listing = "".join(f'<li><a href="{html.escape(d.path)}">{html.escape(d.title)}</a></li>' for d in drafts)
    main = f"<h1>{html.escape(title)}</h1>\n<ul>{listing}</ul>\n<p><a href='/private/drafts.html'>Drafts</a></p>"
    yield SamplePage(host, "/", title, render(site=title, title=title, main=main), listed=False)


def render(
    *,
    site: str,
    title: str,
    main: str,
    summary: str = "",
    sidebar: Iterable[tuple[str, str]] = (),
    licence: str | None = None,
    language: str = "en",
    head: str = "",
) -> bytes:
    """Return a whole page: head, navigation, breadcrumbs, main part, sidebar and footer."""
    links = "".join(f'<li><a href="{html.escape(path)}">{html.escape(name)}</a></li>' for path, name in sidebar)
    meta = f'<meta name="description" content="{html.escape(summary)}">' if summary else ""
    legal = f'<p>This page is available under <a rel="license" href="{licence}">its licence</a>.</p>' if licence else ""
    return f"""<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<title>{html.escape(title)} - {html.escape(site)}</title>
{meta}{head}
</head>
<body>
<header><nav class="menu"><ul><li><a href="http://{HOME}/">Home</a></li>
<li><a href="/">{html.escape(site)}</a></li>
<li><a href="http://packages.{DOMAIN}/">Packages</a></li><li><a href="/search">Search</a></li></ul></nav></header>
<nav class="breadcrumbs"><a href="http://{HOME}/">Home</a> &raquo;
<a href="/">{html.escape(site)}</a> &raquo; {html.escape(title)}</nav>
<main><article>
{main}
</article></main>
<aside class="sidebar"><h4>More on this site</h4><ul>{links}</ul></aside>
<footer class="footer">{legal}
<p>Sample site for tests, made from the packages installed on this machine. <a href="/">Contents</a></p></footer>
</body>
</html>
""".encode("utf-8", "replace")
