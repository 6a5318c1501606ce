from __future__ import annotations

from pathlib import Path
from random import Random

from app.contracts.prompt import MAX_PREVIOUS_QUERIES
from training.datasets.conversations import Conversations, read_turns
from training.datasets.followups import Attributes, Catalogue, FollowUps, read_items
from training.datasets.spelling import Misspellings, ProductPhrases


def test_misspellings_are_those_of_the_free_list_only(mini_data: Path) -> None:
    source = Misspellings(mini_data / "typos" / "misspellings.tsv")
    targets = {word for n in range(200) for word in source.draw(Random(n)).target.split()}
    assert targets == {"receive", "weird"}


def test_product_phrases_are_frequent_ones_and_rare_ones_are_never_trained(mini_data: Path) -> None:
    source = ProductPhrases(mini_data / "products")
    drawn = [source.draw(Random(n)) for n in range(400)]
    assert {"laptop bag", "wireless mouse", "acme"} <= {example.target for example in drawn}
    assert not any("gizmo" in example.target for example in drawn)
    assert "gizmo" in {source.rare(Random(n)) for n in range(50)}
    assert any(example.query == example.target for example in drawn)
    assert any(example.query != example.target for example in drawn)


def test_turns_keep_the_users_newest_utterances(mini_data: Path) -> None:
    turns = read_turns(mini_data / "context" / "train.jsonl")
    assert turns[1].previous == ("What is illness 0?",)
    long = turns[1].__class__("q", tuple("abcdef"), ("r",), "s", "c")
    assert long.context.previous_queries == tuple("def")[-MAX_PREVIOUS_QUERIES:]
    assert Conversations(turns).draw(Random(0)).target.startswith("Is illness")


def test_whole_conversations_are_kept_for_validation(mini_data: Path) -> None:
    sides: dict[str, set[bool]] = {}
    for turn in read_turns(mini_data / "context" / "train.jsonl"):
        sides.setdefault(turn.conversation, set()).add(turn.validation)
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == set.union(*sides.values())


def test_brand_and_attributes_are_read_from_the_item(mini_data: Path) -> None:
    item = read_items(mini_data / "fashion" / "items.jsonl")[0]
    assert item.attributes == Attributes("Nike", "Men", "Blue", "Shoes", "Casual")
    assert item.text == "Men, Shoes, Blue, Casual"
    assert item.attributes.query() == "nike men casual blue shoes"


def test_a_follow_up_can_always_be_filled_and_changes_something(mini_data: Path) -> None:
    catalogue = Catalogue(read_items(mini_data / "fashion" / "items.jsonl"))
    by_id = {item.item_id: item for item in catalogue.items}
    for n in range(300):
        follow_up = catalogue.follow_up(catalogue.items[n % len(catalogue.items)], Random(n))
        relevant = catalogue.relevant(follow_up.wanted)
        assert relevant
        for field in ("brand", "gender", "colour", "article", "usage"):
            if value := getattr(follow_up.wanted, field):
                assert all(getattr(by_id[i].attributes, field) == value for i in relevant)


def test_training_follow_ups_start_from_training_items_only(shared_data: Path) -> None:
    catalogue = Catalogue(read_items(shared_data / "fashion" / "items.jsonl"))
    sides = [item.side for item in catalogue.items]
    assert 0.18 < sides.count("held_out") / len(sides) < 0.22
    held = {item.title for item in catalogue.items if item.side != "train"}
    trained = {item.title for item in catalogue.items if item.side == "train"}
    source = FollowUps(catalogue)
    for n in range(500):
        item = source.draw(Random(n)).context.last_item
        assert item is None or item.title in trained or item.title not in held
