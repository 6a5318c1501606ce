"""What an image is worth: which questions are asked, and what is counted."""

from __future__ import annotations

import numpy as np

from training.datasets.followups import Attributes, FashionItem
from training.evaluate_images import questions, recalls


def item(number: int, title: str, colour: str, article: str = "Shirts") -> FashionItem:
    return FashionItem(str(number), title, "", Attributes(colour=colour, article=article))


def test_only_items_whose_title_hides_the_colour_answer_a_question() -> None:
    items = [
        *(item(n, f"Acme Shirt {n}", "Blue") for n in range(3)),
        item(3, "Acme Blue Shirt", "Blue"),
        item(4, "Acme Shirt", "Red"),
        *(item(n, f"Acme Shoe {n}", "", "Shoes") for n in range(5, 9)),
    ]
    assert questions(items) == {"blue shirts": [0, 1, 2]}


def test_recall_is_of_ten_at_most() -> None:
    documents = np.eye(30, dtype=np.float32)
    queries = np.zeros((2, 30), np.float32)
    queries[0, :10] = 1.0
    queries[1, 0] = 1.0
    found = recalls(queries, documents, [list(range(20)), [0, 15]])
    assert found.tolist() == [1.0, 0.5]
