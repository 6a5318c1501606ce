from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.datasets.validation import validation_task


def test_titles_are_judged_by_the_labels_of_their_occupation(
    tmp_path: Path, write_jsonl: Callable[..., Path]
) -> None:
    write_jsonl("corpus.jsonl", [{"_id": "d1", "text": "cook"}, {"_id": "d2", "text": "chef"}])
    labels = "onet_code\tcorpus-id\n35-1.00\td1\n35-1.00\td2\n"
    (tmp_path / "labels_train.tsv").write_text(labels, encoding="utf-8")
    task = validation_task(tmp_path, [("Fry Cook", "35-1.00"), ("Pilot", "53-9.00"), ("Chef", "35-1.00")])
    assert [(query.query_id, query.text) for query in task.queries] == [
        ("val-0", "Fry Cook"),
        ("val-2", "Chef"),
    ]
    assert task.qrels == {"val-0": {"d1": 1, "d2": 1}, "val-2": {"d1": 1, "d2": 1}}
    assert len(task.documents) == 2


def test_no_dev_label_is_in_the_validation_labels(shared_data: Path) -> None:
    task = validation_task(shared_data / "jobs", [("Operations Manager", "11-1021.00")])
    assert task.qrels["val-0"]
    dev = {
        line.split("\t")[1]
        for split in ("dev_seen", "dev_unseen", "dev_canonical")
        for line in (shared_data / "jobs" / "qrels" / f"{split}.tsv").read_text("utf-8").splitlines()[1:]
    }
    assert not dev & task.qrels["val-0"].keys()
