"""A small benchmark of our own: some of its items stand on the sample's pages, for `decontaminate` to find.

The same items stand in infra/benchmarks/sample_quiz.jsonl, which params.yaml can name as a benchmark file.
"""

# ruff: noqa: E501 (long lines are prose)
from __future__ import annotations

from typing import TypedDict


class Item(TypedDict):
    """One question with its choices; `answer` is the right one's place."""

    id: str
    question: str
    choices: list[str]
    answer: int


_ROWS: list[tuple[str, list[str], int]] = [
    ("A gardener plants seven rows of eleven tulips and later removes the first two rows to make room for a path, so how many tulips are left?", ["Fifty-five", "Seventy-seven", "Sixty-six", "Forty-four"], 0),
    ("If a ferry leaves the island at half past nine and needs fifty minutes to reach the harbour on the mainland, when does it arrive?", ["At ten past ten", "At twenty past ten", "At half past ten", "At a quarter to ten"], 1),
    ("Which of these materials would a careful cook choose for a spoon that must not scratch the coating of an expensive frying pan?", ["Steel", "Granite", "Wood", "Glass"], 2),
    ("A librarian sorts the returned books by the last name of their author; which of these four would she put on the shelf first?", ["Moravec", "Kessler", "Norwood", "Drummond"], 3),
    ("Why does a metal handle feel colder to the hand than a wooden one when both have been in the same room all night?", ["Metal carries heat away faster", "Metal is colder than the room", "Wood makes its own heat", "The hand warms wood first"], 0),
    ("Three friends share the cost of a tent that was sold to them for one hundred and forty-one coins; how much does each of them pay?", ["Forty-five", "Forty-seven", "Forty-nine", "Fifty-one"], 1),
    ("During a long drought the shepherds led their animals uphill every morning, because what was still to be found near the top of the mountain?", ["Shade from buildings", "Salt", "Water from melting snow", "Other herds"], 2),
    ("A clock on the tower strikes once at every quarter of an hour; how many times does it strike between noon and the end of three o'clock?", ["Nine", "Ten", "Eleven", "Twelve"], 3),
    ("When the baker doubles the amount of flour in a recipe but forgets to change the amount of water, the dough will most likely become what?", ["Too dry", "Too wet", "Too sweet", "Too warm"], 0),
    ("What is the opposite of shallow?", ["Narrow", "Deep", "Heavy", "Quiet"], 1),
    ("How many legs do four spiders and one beetle have together?", ["Thirty-six", "Thirty-four", "Thirty-eight", "Forty"], 2),
    ("Which season follows winter?", ["Autumn", "Summer", "A second winter", "Spring"], 3),
    ("A painter mixes equal amounts of blue and yellow on her palette in order to get the colour of which of the following things?", ["Grass", "Snow", "Coal", "Blood"], 0),
    ("The old bridge carries at most twelve tonnes, and a lorry of nine tonnes is on it already; which vehicle must wait until the lorry has crossed?", ["A bicycle", "A van of four tonnes", "A car of one tonne", "A motorcycle"], 1),
    ("Nobody in the village had seen the stranger before, yet the dog ran up to him wagging its tail; what does this suggest about the dog?", ["It was hungry", "It was ill", "It knew the stranger", "It was lost"], 2),
    ("Where do salmon lay eggs?", ["In the desert", "In treetops", "In deep caves", "In rivers"], 3),
    ("A sailor notices that the barometer has been falling steadily since the morning watch began; what sort of weather should the crew now expect?", ["A storm", "A calm", "A frost", "A drought"], 0),
    ("The museum gives back half of the price to visitors who leave within thirty minutes; how much does someone get back who paid eighteen coins?", ["Six", "Nine", "Twelve", "Fifteen"], 1),
    ("Among the four tools in the shed, which one would help most in finding out whether a newly built shelf is perfectly horizontal?", ["A hammer", "A saw", "A spirit level", "A pair of pliers"], 2),
    ("Which number is missing in the row two, six, eighteen, fifty-four, and then an empty place that the children were asked to fill?", ["Seventy-two", "One hundred and eight", "One hundred and forty-four", "One hundred and sixty-two"], 3),
    ("If every lantern on the quay needs two candles a night and there are nine lanterns, how many candles are needed for one whole week?", ["One hundred and twenty-six", "Sixty-three", "One hundred and eighteen", "Ninety"], 0),
    ("What do bees collect?", ["Sand", "Nectar", "Iron", "Wool"], 1),
    ("The teacher wrote a word on the board that reads the same from left to right and from right to left; which of these could it have been?", ["Window", "Garden", "Level", "Pencil"], 2),
    ("After the flood the farmer moved his beehives to the only field that had stayed dry, which lay on the highest ground; what was his reason?", ["To see them from afar", "To sell them", "To make the bees angry", "To keep the hives from the water"], 3),
    ("Because the key had been left in the lock on the inside of the door, the locksmith could not open it in the usual way and had to do what?", ["Enter by another way", "Paint the door", "Wait for rain", "Buy a second key"], 0),
]  # fmt: skip

ITEMS: list[Item] = [
    Item(id=f"quiz-{number:02d}", question=question, choices=choices, answer=answer)
    for number, (question, choices, answer) in enumerate(_ROWS, start=1)
]
LEAKED = 15  # the first items are quoted on study.sample.example, the others stand nowhere
