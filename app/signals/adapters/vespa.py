"""Signals for Vespa: parameters of a query sent as JSON.

Query tensors are inputs that a rank profile declares. The factors of a ranking stage are one mapped tensor
from document id to ln φ: what a document lacks adds 0, and exp(0) is 1, so that a document without a cell and
a query without a tensor are both neutral.

Source: https://docs.vespa.ai/en/ranking/tensor-user-guide.html#querying-with-tensors and
https://docs.vespa.ai/en/reference/api/query.html#ranking.features
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.rewrite.answer import Stage
    from app.signals.records import Ranking, Recall, Signals


def to_vespa(signals: Signals) -> dict[Stage, dict[str, Any]]:
    """Per stage asked for, the parameters to put into Vespa's query."""
    requests: dict[Stage, dict[str, Any]] = {}
    if signals.recall is not None:
        requests["recall"] = _recall(signals.answer.query.text, signals.recall)
    if signals.rawrank is not None:
        requests["rawrank"] = _ranking("rawrank", signals.rawrank)
    if signals.finerank is not None:
        requests["finerank"] = _ranking("finerank", signals.finerank)
    return requests


def _recall(original: str, recall: Recall) -> dict[str, Any]:
    """A query that matches what the original or any rewrite matches, and inputs to weigh the rewrites by."""
    texts = {"original": original}
    inputs: dict[str, Any] = {}
    for rank, query in enumerate(recall.queries, start=1):
        texts[f"rewrite_{rank}"] = query.text
        inputs[f"query(rewrite_{rank}_weight)"] = query.weight
        if query.embedding is not None:
            inputs[f"query(rewrite_{rank}_embedding)"] = query.embedding
    where = " or ".join(f"userInput(@{name})" for name in texts)
    yql = f"select * from sources * where {where}"  # noqa: S608 -- names of parameters, in which texts stand
    return {"yql": yql, **texts, "input": inputs}


def _ranking(stage: str, ranking: Ranking) -> dict[str, Any]:
    cells = {document.id: math.log(document.phi) for document in ranking.documents if document.phi != 1.0}
    return {"input": {f"query({stage}_log_phi)": cells} if cells else {}}
