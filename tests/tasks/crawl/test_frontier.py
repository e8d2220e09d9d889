"""Sites that would fill a crawl with what it will not fetch: what is known is bounded, one row speaks for the rest."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.frontier import MOST_HOSTS, MOST_NAMED, Refusals
from tasks.crawl.sites import crawl_sites
from tests.tasks.crawl.test_sites import crawl_of
from tests.tasks.crawl.web import Answer, Route, Web, serving

FARM = "farm.test.example"
LINKS = 4000
OF_THE_CRAWL = ("max_pages", "allowed_domains", "processes")


def page(links: list[str]) -> Answer:
    return Answer("".join(f'<a href="{link}">x</a>' for link in links).encode())


def crawl(folder: Path, routes: dict[tuple[str, str], Route], **more: object) -> tuple[Counts, list[LedgerRow], Web]:
    settings = {name: value for name, value in more.items() if name in OF_THE_CRAWL}
    limits: dict[str, Any] = {name: value for name, value in more.items() if name not in OF_THE_CRAWL}
    with serving(Web(routes)) as web:
        asked = crawl_of(web.port, seeds=[f"http://{FARM}/"], max_bytes=8_000_000, policy_files=False, **settings)
        asked = replace(asked, limits=replace(asked.limits, **limits))
        counts = crawl_sites(asked, source="sites", state=folder / "state", output=folder / "out")
    return counts, list(read_ledger(folder / "out" / "dropped" / "part-00000.parquet")), web


def check(counts: Counts, rows: list[LedgerRow]) -> None:
    """What every crawl must leave: nothing lost, and as many rows of each rule as the manifest counts."""
    assert counts.in_ == counts.out + sum(counts.dropped.values())
    assert Counter(row.rule for row in rows) == Counter(counts.dropped)
    urls = [row.url for row in rows if row.url is not None]
    assert len(urls) == len(set(urls))


def counted(rows: list[LedgerRow]) -> Counter[str]:
    """Return how many links the rows that stand for many speak of, by rule."""
    links: Counter[str] = Counter()
    for row in rows:
        links[row.rule] += int(row.score or 0)
    return links


SHAPES: dict[str, tuple[str, dict[str, object]]] = {
    "max_pages": ("/p{}", {"max_pages": 8}),
    "max_pages_per_host": ("/p{}", {"max_pages_per_host": 8}),
    "max_depth": ("/p{}", {"max_depth": 0}),
    "url_too_long": ("/p{}/" + "y" * 200, {"max_url_length": 100}),
    "path_too_deep": ("/p{}/a/b/c/d/e", {"max_path_segments": 4}),
    "path_repeats": ("/p{}/a/a/a/a/a", {"max_repeated_segments": 2}),
    "query_parameters": ("/p?{}&b&c&d", {"max_query_parameters": 2}),
    "query_variants": ("/p?v={}", {"max_queries_per_path": 3}),
}


@pytest.mark.parametrize("rule", SHAPES)
def test_one_row_speaks_for_the_links_that_a_rule_keeps_out(tmp_path: Path, rule: str) -> None:
    form, limits = SHAPES[rule]
    routes: dict[tuple[str, str], Route] = {(FARM, "/"): page([form.format(number) for number in range(LINKS)])}
    counts, rows, web = crawl(tmp_path, routes, **limits)
    check(counts, rows)
    assert counts.dropped[rule] == MOST_NAMED + 1
    fetched = sum(path.startswith("/p") for _, _, path in web.log)
    assert counted(rows)[rule] + MOST_NAMED + fetched == LINKS
    speaking = next(row for row in rows if row.score is not None)
    assert speaking.detail == f"{counted(rows)[rule]} more links of {FARM}, counted as often as they stand on pages"


def test_a_link_farm_ends_in_seconds_and_in_few_rows(tmp_path: Path) -> None:
    """Six pages of 20,000 links each."""
    first = [*[f"/f{n}" for n in range(5)], *[f"/p{number}.html" for number in range(20_000)]]
    routes: dict[tuple[str, str], Route] = {(FARM, "/"): page(first)}
    routes |= {(FARM, f"/f{n}"): page([f"/q{n}-{number}.html" for number in range(20_000)]) for n in range(5)}
    counts, rows, _ = crawl(tmp_path, routes, max_pages=8)
    check(counts, rows)
    assert counts.out == 6
    assert len(rows) < 200
    assert sum(counted(rows).values()) > 6 * 20_000 - 200


def test_a_domain_with_a_host_a_link_is_bounded_as_a_whole(tmp_path: Path) -> None:
    routes: dict[tuple[str, str], Route] = {(FARM, "/"): page([f"http://h{n}.{FARM}/" for n in range(9000)])}
    counts, rows, _ = crawl(tmp_path, routes, max_depth=0, allowed_domains=[FARM])
    check(counts, rows)
    assert counts.out == 1
    assert len(rows) <= MOST_HOSTS + MOST_NAMED + 1
    assert any(row.detail is not None and f"more links of *.{FARM}" in row.detail for row in rows)


def test_links_to_hosts_of_other_processes_are_bounded_too(tmp_path: Path) -> None:
    links = [f"http://{host}.{FARM}/p{n}" for host in "bcde" for n in range(LINKS)]
    routes: dict[tuple[str, str], Route] = {(FARM, "/"): page(links)}
    counts, rows, web = crawl(tmp_path, routes, max_pages_per_host=10, allowed_domains=[FARM], processes=3)
    check(counts, rows)
    assert len(rows) <= 4 * (10 + MOST_NAMED + 2)
    assert sum(counted(rows).values()) >= 4 * (LINKS - 10 - MOST_NAMED)
    assert all(web.counts[f"{host}.{FARM}", "/p0"] == 1 for host in "bcde")


def test_sitemaps_of_sitemaps_are_bounded(tmp_path: Path) -> None:
    def sitemap(kind: str, item: str, links: list[str]) -> Answer:
        items = "".join(f"<{item}><loc>{link}</loc></{item}>" for link in links)
        return Answer(f'<{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{items}</{kind}>'.encode())

    start = f"http://{FARM}"
    routes: dict[tuple[str, str], Route] = {
        (FARM, "/"): page([]),
        (FARM, "/robots.txt"): Answer(f"Sitemap: {start}/index0".encode()),
    }
    # Each index names 300 others, without end.
    for n in range(2000):
        others = [f"{start}/index{300 * n + k}" for k in range(300)]
        routes[FARM, f"/index{n}"] = sitemap("sitemapindex", "sitemap", others)
    routes[FARM, "/index1"] = sitemap("urlset", "url", [f"{start}/p{n}" for n in range(60_000)])
    counts, rows, web = crawl(tmp_path, routes, max_pages_per_host=5)
    check(counts, rows)
    assert sum(path.startswith("/index") for _, _, path in web.log) <= 100
    assert len(rows) <= MOST_NAMED + 5 + 2
    assert counted(rows)["too_many_links"] == 10_000


def test_a_crawl_that_goes_on_names_no_more_than_one_that_was_not_stopped() -> None:
    before = Refusals([], ["h.example"])
    named = [(url, "max_depth") for n in range(300) if before.has_row(url := f"http://h.example/{n}", "max_depth")]
    after = Refusals(named, ["h.example"])
    assert not after.has_row("http://h.example/new", "max_depth")
    assert before.beyond["h.example", "max_depth"].links == 300 - MOST_NAMED


def test_what_was_told_is_told_again_only_when_it_grew() -> None:
    refusals = Refusals([], [])
    refusals.count("http://h.example/", "too_many_links", 7)
    assert [one.links for one in refusals.changed().values()] == [7]
    assert refusals.changed() == {}
    refusals.count("http://h.example/", "too_many_links", 2)
    assert [one.links for one in refusals.changed().values()] == [9]
