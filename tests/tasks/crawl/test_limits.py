"""No way into a trap: each limit has its rule."""

import pytest

from tasks.crawl.limits import Counted, Limits

H = "http://h.example"
LIMITS = Limits(
    max_pages_per_host=100,
    max_depth=5,
    max_url_length=80,
    max_path_segments=6,
    max_repeated_segments=2,
    max_query_parameters=3,
    max_queries_per_path=4,
)


@pytest.mark.parametrize(
    ("path", "depth", "rule"),
    [
        ("/a/b/c/d/e/f", 5, None),
        ("/a", 6, "max_depth"),
        ("/" + "a" * 80, 0, "url_too_long"),
        ("/a/b/c/d/e/f/g", 0, "path_too_deep"),
        ("/a/x/a/y/a", 0, "path_repeats"),
        ("/a?b&c&d&e", 0, "query_parameters"),
        ("/a?b&c&d", 0, None),
    ],
)
def test_each_limit_has_a_rule(path: str, depth: int, rule: str | None) -> None:
    assert Counted(LIMITS).refusal(H + path, depth) == rule


def test_a_path_with_ever_new_queries_is_cut_off_and_its_neighbours_are_not() -> None:
    counted = Counted(LIMITS, [f"{H}/calendar?day={day}" for day in range(4)])
    assert counted.refusal(f"{H}/calendar?day=5", 1) == "query_variants"
    assert counted.refusal(f"{H}/calendar", 1) is None
    assert counted.refusal(f"{H}/other?day=5", 1) is None


def test_a_host_is_full_when_it_is() -> None:
    counted = Counted(LIMITS, [f"{H}/{n}" for n in range(100)])
    assert counted.refusal(f"{H}/x", 1) == "max_pages_per_host"
    assert counted.refusal("http://other.example/x", 1) is None
