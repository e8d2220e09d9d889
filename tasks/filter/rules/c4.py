"""C4's rules: lines that end no sentence or speak of cookies go, then pages with too little left.

The decisions and the text that is left are those of datatrove's block.
"""

from __future__ import annotations

from collections.abc import Sequence

from datatrove.pipeline.filters.c4_filters import CITATION_REGEX, ELLIPSIS, END_PUNCTUATION, POLICY_SUBSTRINGS
from datatrove.utils.text import split_into_sentences
from pydantic import Field

from tasks.contracts.base import Drop, Edit, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.filter.line_parts import shortened
from tasks.filter.word_splitting import datatrove_language, splitter

_LOREM = "lorem ipsum"
_JAVASCRIPT = "javascript"


class C4(Rule):
    """Which lines go, and how many sentences must be left. -1 turns a number's rule off.

    Defaults: Raffel et al. 2020 (arXiv:1910.10683), section 2.2, as its code applies them.

    >>> prose = "This line is a sentence. It has another one.\\n" * 3
    >>> C4()(document(prose + "Home | About")).detail
    '1 of 4 lines removed'
    >>> C4()(document("lorem ipsum dolor sit amet, a filler of type setters.")).rule
    'lorem_ipsum'
    """

    split_paragraph: bool = True
    """Whether lines are judged (as published) or sentences."""
    remove_citations: bool = True
    """Whether "[1]" and "[edit]" are removed."""
    filter_no_terminal_punct: bool = True
    """Whether lines go that do not end in a terminal punctuation mark."""
    min_num_sentences: int = threshold(5, ge=-1)
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

    def measure(self, document: Document) -> Measured:
        """Take the lines out, and count the sentences that are left."""
        lines = self._parts(document.text)
        phrases = self._phrases_in(document.text)
        kept: list[str] = []
        sentences = 0
        for original in lines:
            line = whole = original.strip()
            if len(line) > self.max_word_length != -1 and max(map(len, line.split())) > self.max_word_length:
                continue
            if self.remove_citations and "[" in line:
                line = CITATION_REGEX.sub("", line)
            if self.filter_no_terminal_punct and (not line.endswith(END_PUNCTUATION) or line.endswith(ELLIPSIS)):
                continue
            if len(whole.split(maxsplit=self.min_words_per_line - 1)) < self.min_words_per_line:
                continue
            if phrases and (found := _first(phrases, line.lower())):
                if found == _LOREM:
                    return Measured(otherwise=Drop(rule="lorem_ipsum", detail=shortened(line)))
                if found == _JAVASCRIPT:
                    continue
            else:
                found = None
            if self.filter_curly_bracket and "{" in line:
                return Measured(otherwise=Drop(rule="curly_bracket", detail=shortened(line)))
            if found:
                continue
            sentences += splitter(self.language).sentences(line) if self.split_paragraph else 1
            kept.append(line)
        text = ("\n" if self.split_paragraph else " ").join(kept).strip()
        removed = len(lines) - len(kept)
        what = "lines" if self.split_paragraph else "sentences"
        detail = f"{removed} of {len(lines)} {what} removed" if removed else "citations or white space removed"
        return Measured(
            values={"sentences": sentences},
            otherwise=None if text == document.text else Edit(text=text, score=float(removed), detail=detail),
        )

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return whether too few sentences are left; else the text of the lines that are."""
        sentences, fewest = measured.values.get("sentences"), float(self.min_num_sentences)
        if sentences is not None and sentences < fewest:
            return Drop(rule="too_few_sentences", score=float(sentences), threshold=fewest)
        return measured.otherwise

    def _parts(self, text: str) -> Sequence[str]:
        if self.split_paragraph:
            return text.splitlines()
        sentences: Sequence[str] = split_into_sentences(text, datatrove_language(self.language))
        return sentences

    def _phrases_in(self, text: str) -> tuple[str, ...]:
        """Return the phrases that decide about lines and stand in the text at all, in datatrove's order."""
        asked = (
            *((_LOREM,) if self.filter_lorem_ipsum else ()),
            *((_JAVASCRIPT,) if self.filter_javascript else ()),
            *(POLICY_SUBSTRINGS if self.filter_policy else ()),
        )
        if self.remove_citations and "[" in text:
            text = CITATION_REGEX.sub("", text)
        lowered = text.lower()
        return tuple(phrase for phrase in asked if phrase in lowered)


def _first(phrases: Sequence[str], text: str) -> str | None:
    return next((phrase for phrase in phrases if phrase in text), None)
