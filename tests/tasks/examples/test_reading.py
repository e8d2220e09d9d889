from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.chats import CHOSEN, MARK, REJECTED, ROLES, from_text, has_answer, is_preference, to_text
from tasks.examples.reading import BAD_LINE, NO_ANSWER, SAME_ANSWERS, Unusable, turns_of

Q, A = ("user", "One and one?"), ("assistant", "Two.")
ASKED, ANSWERED = {"role": "user", "content": Q[1]}, {"role": "assistant", "content": A[1]}
PARTS = {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "and one?"}]}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}

CHATS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"messages": [ASKED, ANSWERED]}, [Q, A]),
    ({"messages": [{"role": "system", "content": "Be short."}, ASKED, ANSWERED]}, [("system", "Be short."), Q, A]),
    ({"messages": [PARTS, ANSWERED]}, [("user", "One\n\nand one?"), A]),
    ({"instruction": "Add.", "input": "1 1", "output": "Two."}, [("user", "Add.\n\n1 1"), A]),
    ({"instruction": "Add.", "input": "", "output": " Two.\n"}, [("user", "Add."), A]),
    ({"prompt": Q[1], "completion": A[1]}, [Q, A]),
    ({"prompt": [ASKED], "completion": [ANSWERED]}, [Q, A]),
]


@pytest.mark.parametrize(("line", "turns"), CHATS)
def test_every_form_of_a_chat_gives_the_same_turns(line: dict[str, Any], turns: list[tuple[str, str]]) -> None:
    assert turns_of(line, preference=False) == turns


PREFERENCES: list[dict[str, Any]] = [
    {"prompt": Q[1], "chosen": "Two.", "rejected": "Three."},
    {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [{"role": "assistant", "content": "Three."}]},
    {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, {"role": "assistant", "content": "Three."}]},
]


@pytest.mark.parametrize("line", PREFERENCES)
def test_every_form_of_a_preference_gives_the_same_turns(line: dict[str, Any]) -> None:
    assert turns_of(line, preference=True) == [Q, (CHOSEN, "Two."), (REJECTED, "Three.")]


UNUSABLE: list[tuple[dict[str, Any], bool, str]] = [
    ({}, False, NO_ANSWER),
    ({"text": "a page"}, False, NO_ANSWER),
    ({"messages": []}, False, BAD_LINE),
    ({"messages": "hello"}, False, BAD_LINE),
    ({"messages": [ASKED]}, False, NO_ANSWER),
    ({"messages": [ASKED, {"role": "assistant", "content": "  "}]}, False, NO_ANSWER),
    ({"messages": [ASKED, {"role": "assistant", "content": None}]}, False, NO_ANSWER),
    ({"messages": [{"role": "user", "content": ""}, ANSWERED]}, False, BAD_LINE),
    ({"messages": [{"role": "tool", "content": "x"}, ANSWERED]}, False, BAD_LINE),
    ({"messages": ["hello", ANSWERED]}, False, BAD_LINE),
    ({"messages": [IMAGE, ANSWERED]}, False, BAD_LINE),
    ({"messages": [{"role": "user", "content": 7}, ANSWERED]}, False, BAD_LINE),
    ({"prompt": Q[1], "completion": ""}, False, NO_ANSWER),
    ({"prompt": Q[1], "completion": f"Two{MARK}"}, False, BAD_LINE),
    ({"prompt": Q[1], "completion": "\ud800"}, False, BAD_LINE),
    ({"instruction": "Add."}, False, NO_ANSWER),
    ({"prompt": Q[1], "chosen": "Two.", "rejected": "Three."}, False, NO_ANSWER),
    ({"prompt": Q[1], "completion": "Two."}, True, NO_ANSWER),
    ({"prompt": Q[1], "chosen": "Two.", "rejected": "Two."}, True, SAME_ANSWERS),
    ({"prompt": Q[1], "chosen": "Two.", "rejected": ""}, True, NO_ANSWER),
    ({"prompt": "", "chosen": "Two.", "rejected": "Three."}, True, BAD_LINE),
    ({"chosen": "Two.", "rejected": "Three."}, True, BAD_LINE),
    ({"chosen": [ASKED, ANSWERED], "rejected": [ANSWERED]}, True, BAD_LINE),
]


@pytest.mark.parametrize(("line", "preference", "rule"), UNUSABLE)
def test_what_cannot_be_learnt_from_says_why(line: dict[str, Any], preference: bool, rule: str) -> None:
    with pytest.raises(Unusable) as said:
        turns_of(line, preference=preference)
    assert said.value.rule == rule
    assert said.value.detail


SAID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=MARK)).map(str.strip).filter(bool)


@given(st.lists(st.tuples(st.sampled_from(ROLES), SAID), min_size=1))
def test_turns_come_back_out_of_their_text(turns: list[tuple[str, str]]) -> None:
    assert from_text(to_text(turns)) == turns
    assert has_answer(turns) == any(role == "assistant" for role, _ in turns)


@given(st.lists(st.tuples(st.sampled_from(ROLES), SAID), min_size=1), SAID, SAID)
def test_a_preference_is_one_after_its_text_too(turns: list[tuple[str, str]], one: str, other: str) -> None:
    whole = [*turns, (CHOSEN, one), (REJECTED, other)]
    assert is_preference(from_text(to_text(whole)) or [])
    assert not has_answer(whole)
    assert not is_preference(whole[:-1])
