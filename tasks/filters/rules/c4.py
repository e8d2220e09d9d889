"""C4's rules: lines that end no sentence or speak of cookies go, then pages with too little left."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from tasks.contracts.base import Drop, Edit, FrozenModel
from tasks.contracts.document import Document


class C4(FrozenModel):
    """Which lines go, and how many sentences must be left. -1 turns a number's rule off.

    Defaults: Raffel et al. 2020 (arXiv:1910.10683), section 2.2, as its code applies them.

    >>> page = dict(doc_id="1", url="", host="", record_id="1", source="x")
    >>> prose = "This line is a sentence. It has another one.\\n" * 3
    >>> C4()(Document(**page, text=prose + "Home | About")).detail
    '1 of 4 lines removed'
    >>> C4()(Document(**page, text="lorem ipsum dolor sit amet, a filler of type setters.")).rule
    'c4.lorem_ipsum'
    """

    split_paragraph: bool = True
    """Whether lines are judged (as published) or sentences."""
    remove_citations: bool = True
    """Whether "[1]" and "[edit]" are removed."""
    filter_no_terminal_punct: bool = True
    """Whether lines go that do not end in a terminal punctuation mark."""
    min_num_sentences: int = Field(5, ge=-1)
    """Fewest sentences left."""
    min_words_per_line: int = Field(3, ge=-1)
    """Fewest words of a line."""
    max_word_length: int = Field(1000, ge=-1)
    """Longest word of a line, in characters."""
    filter_lorem_ipsum: bool = True
    """Whether documents with "lorem ipsum" are dropped."""
    filter_javascript: bool = True
    """Whether lines with "javascript" go."""
    filter_curly_bracket: bool = True
    """Whether documents with "{" are dropped."""
    filter_policy: bool = True
    """Whether lines about cookies and terms of use go."""
    language: str = "eng"
    """Whose sentences: datatrove's language code."""

    @cached_property
    def _block(self) -> Any:
        from datatrove.pipeline.filters import C4QualityFilter

        from tasks.filters.blocks import shared_words

        return C4QualityFilter(**{**self.model_dump(), "language": shared_words(self.language)})

    def __call__(self, document: Document) -> Drop | Edit | None:
        from tasks.filters.blocks import judge

        return judge("c4", self._block, document, {"too_few_sentences": float(self.min_num_sentences)})
