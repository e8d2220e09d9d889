"""Drop documents that a classifier of one's own finds unlike the good ones it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tasks.contracts.base import Drop, Measured, Rule, threshold
from tasks.contracts.document import Document

if TYPE_CHECKING:
    from tasks.filter.classifier import Classifier


class QualityClassifier(Rule):
    """The model, and the score from which a document stays.

    `headwater filters train-classifier` makes the model from files of good and bad texts. The extracted text is scored
    first, and the score stays on the document under `filter.NAME`; another threshold does not score again.

    >>> rule = QualityClassifier(model="quality.json")
    >>> rule(document(scores={"filter.quality": 0.9}))
    >>> rule(document(scores={"filter.quality": 0.1})).rule
    'min_score'
    """

    paths: ClassVar[tuple[str, ...]] = ("model",)
    score_settings: ClassVar[tuple[str, ...]] = ("model", "name")

    model: str
    """The file that `headwater filters train-classifier` wrote."""
    name: str = Field("quality", pattern=r"^[a-z][a-z0-9_]*$")
    """The score's name, after "filter."; two models need two names."""
    min_score: float = threshold(0.5, ge=0, le=1)
    """Smallest probability of being good."""

    @cached_property
    def _model(self) -> Classifier:
        from tasks.filter.classifier import load_classifier

        return load_classifier(Path(self.model))

    def scores(self, document: Document) -> Mapping[str, float]:
        """Return the document's score by its name."""
        return {f"filter.{self.name}": self._model.score(document.text)}

    def measure(self, document: Document) -> Measured:
        """Return the score that the document, as it was extracted, has already."""
        return Measured(values={"score": document.scores[f"filter.{self.name}"]})

    def decide(self, measured: Measured) -> Drop | None:
        """Return whether the score is too low."""
        score = measured.values["score"]
        if not score >= self.min_score:  # NaN reaches no threshold
            return Drop(rule="min_score", score=score, threshold=self.min_score)
        return None
