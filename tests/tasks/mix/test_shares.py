"""The mixture's arithmetic: shares, limits, and which documents are sampled."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.mix.shares import Group, complete_groups, copies, group_index, plan_mixture
from tests.corpus import document

DOCUMENTS = [document(f"text {i}", name=str(i)) for i in range(4000)]


def test_the_first_group_that_takes_a_document_wins_and_rest_takes_the_others() -> None:
    groups = complete_groups(
        [
            Group(name="rest", weight=2),
            Group(name="python", hosts=("python.*",)),
            Group(name="german", languages=("de",)),
        ]
    )
    assert [g.name for g in groups] == ["python", "german", "rest"]
    assert group_index(document("x", name="1", host="python.example", language="de"), groups) == 0
    assert group_index(document("x", name="1", host="b.example", language="de"), groups) == 1
    assert group_index(document("x", name="1", host="b.example"), groups) == 2


def test_a_group_meets_all_of_its_conditions() -> None:
    group = Group(name="g", sources=("s",), languages=("de", "fr"))
    assert group.takes(document("x", name="1", source="s", language="fr"))
    assert not group.takes(document("x", name="1", source="s", language="en"))
    assert not group.takes(document("x", name="1", source="t", language="fr"))


def test_without_groups_everything_goes_in_once() -> None:
    plan = plan_mixture(complete_groups([]), [1234], None)
    assert plan.epochs == (1.0,)
    assert {copies(d, plan.epochs[0], seed=0) for d in DOCUMENTS} == {1}


def test_a_group_with_too_little_is_repeated_up_to_its_limit_and_the_others_keep_their_ratio() -> None:
    groups = [
        Group(name="small", weight=2, max_epochs=2),
        Group(name="a", weight=2, max_epochs=1),
        Group(name="b", weight=1, max_epochs=1),
    ]
    plan = plan_mixture(groups, [100, 5000, 5000], 2000)
    assert plan.epochs[0] == 2
    assert plan.bytes[1] == pytest.approx(2 * plan.bytes[2])
    assert sum(plan.bytes) == pytest.approx(2000)


def test_weight_zero_leaves_a_group_out() -> None:
    plan = plan_mixture([Group(name="no", weight=0), Group(name="yes", max_epochs=1)], [500, 500], None)
    assert plan.epochs == (0.0, 1.0)


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**6), st.floats(1, 4)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(1, 10**7)),
)
@example([(1.0, 1, 1.25), (5e-324, 1, 1.0)], None)
def test_no_group_gets_more_than_its_limit_nor_the_whole_more_than_asked(
    rows: list[tuple[float, int, float]], total: int | None
) -> None:
    groups = [Group(name=str(i), weight=weight, max_epochs=most) for i, (weight, _, most) in enumerate(rows)]
    available = [size for _, size, _ in rows]
    plan = plan_mixture(groups, available, total)
    wanted = sum(available) if total is None else total
    assert sum(plan.bytes) <= wanted * (1 + 1e-9) + 1e-6
    for group, epochs in zip(groups, plan.epochs, strict=True):
        assert epochs is not None
        assert 0 <= epochs <= group.max_epochs * (1 + 1e-9)
        assert group.weight or epochs == 0
    full = sum(size * (g.max_epochs or 0) for g, size in zip(groups, available, strict=True) if g.weight)
    assert sum(plan.bytes) == pytest.approx(min(wanted, full), rel=1e-6, abs=1e-3)


def test_without_weights_a_higher_temperature_lifts_small_groups() -> None:
    groups = [Group(name="small", max_epochs=9), Group(name="large")]
    natural = plan_mixture(groups, [100, 900], None)
    assert natural.epochs == pytest.approx((1, 1))
    warm = plan_mixture(groups, [100, 900], 400, temperature=2)
    assert warm.bytes == pytest.approx((100, 300))
    assert plan_mixture(groups, [100, 900], 400, temperature=1e9).bytes == pytest.approx((200, 200))
    assert plan_mixture([Group(name="small", weight=1), groups[1]], [100, 900], 100, temperature=2).weights == (1, 1)


def test_a_group_stops_at_its_token_budget_and_the_plan_says_so() -> None:
    groups = [
        Group(name="capped", weight=1, max_tokens=50),
        Group(name="repeated", weight=1, max_epochs=2),
        Group(name="open", weight=1),
        Group(name="empty", weight=1),
        Group(name="out", weight=0),
    ]
    plan = plan_mixture(groups, [5000, 100, 5000, 0, 50], 3000, bytes_per_token=4)
    assert plan.bytes == pytest.approx((200, 200, 2600, 0, 0))
    assert plan.why == (
        "max_tokens reached",
        "max_epochs reached",
        "takes over what other groups could not give",
        "no text",
        "weight 0",
    )
    assert plan_mixture(groups[:1], [5000], 100).why == ("",)


@pytest.mark.parametrize("epochs", [0.25, 1.0, 1.5, 3.0])
def test_documents_are_copied_as_often_as_planned_on_average(epochs: float) -> None:
    times = [copies(d, epochs, seed=0) for d in DOCUMENTS]
    assert sum(times) / len(times) == pytest.approx(epochs, rel=0.08)
    assert max(times) - min(times) <= 1


def test_a_larger_share_keeps_what_a_smaller_one_had() -> None:
    few = {d.doc_id for d in DOCUMENTS if copies(d, 0.2, seed=0)}
    more = {d.doc_id for d in DOCUMENTS if copies(d, 0.4, seed=0)}
    assert few < more


def test_a_text_captured_again_is_sampled_alike() -> None:
    again = [document(d.text, name=f"{number} again") for number, d in enumerate(DOCUMENTS)]
    assert [copies(d, 0.4, seed=0) for d in again] == [copies(d, 0.4, seed=0) for d in DOCUMENTS]
