from __future__ import annotations

from typing import Any

import pytest

from tasks.contracts.base import Drop
from tasks.contracts.chats import to_text
from tests.training.adapt.base import make_base
from training.adapt.chat import BROKEN, IGNORED, SPECIAL, TEMPLATE, TOO_LONG, Encoded, encode

CHAT = [("system", "Be short."), ("user", "Cat?"), ("assistant", "A cat."), ("user", "Dog?"), ("assistant", "A dog.")]
PREFERENCE = [("user", "Cat?"), ("chosen", "A cat."), ("rejected", "No.")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(make_base(tmp_path_factory.mktemp("base") / "model"))
    made.chat_template = TEMPLATE
    return made


def encoded(turns: Any, tokenizer: Any, **settings: Any) -> Encoded:
    asked: dict[str, Any] = {"context": 128, "preference": False, "too_long": "drop", **settings}
    found = encode(to_text(turns), tokenizer, **asked)
    assert isinstance(found, Encoded), found
    return found


def dropped(text: str, tokenizer: Any, **settings: Any) -> str:
    asked: dict[str, Any] = {"context": 128, "preference": False, "too_long": "drop", **settings}
    found = encode(text, tokenizer, **asked)
    assert isinstance(found, Drop), found
    return found.rule


def test_the_loss_is_on_answers_and_their_end_only(tokenizer: Any) -> None:
    found = encoded(CHAT, tokenizer)
    eos = tokenizer.eos_token_id
    answers = [tokenizer("A cat.").input_ids, tokenizer("A dog.").input_ids]
    before = ["System:\nBe short.\nUser:\nCat?\nAssistant:\n", "\nUser:\nDog?\nAssistant:\n", "\n"]
    asked = [tokenizer(text).input_ids for text in before]
    ids = [*asked[0], *answers[0], eos, *asked[1], *answers[1], eos, *asked[2]]
    by_hand = [
        *[IGNORED] * len(asked[0]), *answers[0], eos, *[IGNORED] * len(asked[1]), *answers[1], eos,
        *[IGNORED] * len(asked[2]),
    ]  # fmt: skip
    assert found.row == {"input_ids": ids, "labels": by_hand}
    assert found.learnt == len(answers[0]) + len(answers[1]) + 2


def test_a_model_is_asked_with_what_it_was_tuned_on(tokenizer: Any) -> None:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Cat?"}], tokenize=True, return_dict=False, add_generation_prompt=True
    )
    learnt = encoded([("user", "Cat?"), ("assistant", "A cat.")], tokenizer).row
    assert learnt["input_ids"][: len(asked)] == asked
    assert all(label == IGNORED for label in learnt["labels"][: len(asked)])
    assert learnt["labels"][len(asked)] != IGNORED


def test_the_template_has_no_token_that_the_base_has_not(tokenizer: Any) -> None:
    assert max(encoded(CHAT, tokenizer).row["input_ids"]) < len(tokenizer.get_vocab())


def test_answers_of_a_preference_follow_the_same_prompt(tokenizer: Any) -> None:
    row = encoded(PREFERENCE, tokenizer, preference=True).row
    assert tokenizer.decode(row["prompt_ids"]) == "User:\nCat?\nAssistant:\n"
    eos = tokenizer.eos_token
    assert [tokenizer.decode(row[name]) for name in ("chosen_ids", "rejected_ids")] == [f"A cat.{eos}", f"No.{eos}"]


def test_what_is_longer_than_the_context_is_dropped_or_cut_and_never_silently(tokenizer: Any) -> None:
    whole = encoded(CHAT, tokenizer)
    exactly = encoded(CHAT, tokenizer, context=whole.tokens)
    assert exactly == whole
    assert dropped(to_text(CHAT), tokenizer, context=whole.tokens - 1) == TOO_LONG
    cut = encoded(CHAT, tokenizer, context=whole.tokens - 3, too_long="cut")
    assert (cut.tokens, cut.cut) == (whole.tokens - 3, whole.tokens)
    assert 0 < cut.learnt < whole.learnt
    # Nothing of an answer is left.
    assert dropped(to_text(CHAT), tokenizer, context=5, too_long="cut") == TOO_LONG
    assert dropped(to_text(PREFERENCE), tokenizer, context=5, too_long="cut", preference=True) == TOO_LONG


def test_turns_that_a_filter_broke_are_not_learnt_from(tokenizer: Any) -> None:
    text = to_text(CHAT)
    for broken in ("a page", text.replace("\x1eassistant", "assistant"), text.replace("A cat.", ""), text[1:]):
        assert dropped(broken, tokenizer) == BROKEN
    assert dropped(text, tokenizer, preference=True) == BROKEN
    assert dropped(to_text(PREFERENCE), tokenizer) == BROKEN


def test_a_text_that_spells_a_special_token_is_not_learnt_from(tokenizer: Any) -> None:
    assert dropped(to_text([("user", f"x{tokenizer.eos_token}"), ("assistant", "A")]), tokenizer) == SPECIAL
