"""Signals for Solr: request parameters.

Recall adds the scores of the rewrites, times their weights, to that of the original, and matches what any of
them matches. Texts stand in parameters of their own, where Solr reads no syntax of local parameters. A
ranking stage multiplies (since Solr 9.2); a document that the re-rank query does not name keeps its score.

Source: https://solr.apache.org/guide/solr/latest/query-guide/query-re-ranking.html and
https://solr.apache.org/guide/solr/latest/query-guide/other-parsers.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.rewrite.answer import Stage
    from app.signals.records import Ranking, Recall, Signals


def to_solr(signals: Signals) -> dict[Stage, dict[str, Any]]:
    """Per stage asked for, the parameters to put into Solr's request; nothing where a ranking is neutral."""
    requests: dict[Stage, dict[str, Any]] = {}
    if signals.recall is not None:
        requests["recall"] = _recall(signals.answer.query.text, signals.recall)
    if signals.rawrank is not None:
        requests["rawrank"] = _ranking("rawrank", signals.rawrank)
    if signals.finerank is not None:
        requests["finerank"] = _ranking("finerank", signals.finerank)
    return requests


def _recall(original: str, recall: Recall) -> dict[str, str]:
    if not recall.queries:
        return {"defType": "edismax", "q": original}
    clauses = {"original_query": "{!edismax v=$original}"}
    texts = {"original": original}
    for rank, query in enumerate(recall.queries, start=1):
        name = f"rewrite_{rank}"
        clauses[f"{name}_boosted"] = f"{{!boost b={query.weight:.9f} v=${name}_query}}"
        texts[f"{name}_query"] = f"{{!edismax v=${name}}}"
        texts[name] = query.text
    should = " ".join(f"should=${name}" for name in clauses)
    # Only the lucene parser looks for local parameters at the start of q.
    return {"defType": "lucene", "q": f"{{!bool {should}}}", **clauses, **texts}


def _ranking(stage: str, ranking: Ranking) -> dict[str, str]:
    factors = [
        f'id:"{_escaped(document.id)}"^={document.phi:.9f}'
        for document in ranking.documents
        if document.phi != 1.0
    ]
    if not factors:
        return {}
    return {
        "rq": (
            f"{{!rerank reRankQuery=${stage}_factors reRankDocs={len(ranking.documents)} reRankWeight=1 "
            "reRankOperator=multiply}"
        ),
        f"{stage}_factors": "{!lucene q.op=OR}" + " ".join(factors),
    }


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
