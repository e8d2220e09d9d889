from pathlib import Path

import pytest

from flows.policy import asked_policy, compare
from tasks.contracts.errors import ParamsError, UsageError
from tasks.contracts.evidence import OptOutPolicy

PAGES = [
    ("https://a.example/1", "a.example", frozenset({"meta:nosnippet"}), "metadata record"),
    ("https://a.example/2", "a.example", frozenset({"robots.txt:disallow@gptbot"}), "metadata record"),
    ("https://b.example/3", "b.example", frozenset[str](), "metadata record"),
]


def test_the_same_policy_changes_nothing() -> None:
    changes, pages, _ = compare(PAGES, OptOutPolicy(), OptOutPolicy())
    assert pages == 3
    assert not any(changes.values())


def test_a_change_names_page_signal_and_direction() -> None:
    changes, _, sources = compare(PAGES, OptOutPolicy(), OptOutPolicy(nosnippet="drop", robots_txt="keep"))
    (dropped,), (kept,) = changes["newly_dropped"], changes["newly_kept"]
    assert (dropped["url"], dropped["from"], dropped["signals"]) == (PAGES[0][0], "mark", ["meta:nosnippet"])
    assert (kept["url"], kept["to"]) == (PAGES[1][0], "keep")
    assert sources == {"metadata record": 3}
    back, _, _ = compare(PAGES, OptOutPolicy(nosnippet="keep"), OptOutPolicy())
    assert [one["url"] for one in back["newly_marked"]] == [PAGES[0][0]]


def test_a_policy_is_read_from_a_file_and_changed_on_the_command_line(workspace: Path) -> None:
    (workspace / "policy.yaml").write_text("extract: {opt_out: {noindex: keep}}\n")
    found = asked_policy(workspace / "policy.yaml", ["noai=mark"])
    assert (found.noindex, found.noai, found.ai_txt) == ("keep", "mark", "drop")


@pytest.mark.parametrize(
    ("sets", "error"), [(["foo=keep"], ParamsError), (["noai=maybe"], ParamsError), (["noai"], UsageError)]
)
def test_wrong_settings_are_refused(workspace: Path, sets: list[str], error: type[Exception]) -> None:
    (workspace / "policy.yaml").write_text("noindex: keep\n")
    with pytest.raises(error):
        asked_policy(workspace / "policy.yaml", sets)
