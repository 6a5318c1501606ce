"""The prompt: one rendering of query and context, shared by the trainer and every engine.

    <|item|>title <|text|>attributes <|prev|>earlier query ... <|query|>query<|rewrite|>

and the completion is `rewrite<|end|>`. Control tokens are single tokens of the vocabulary; user text
can never produce one, because every `<|` in it is broken up before rendering.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

PROMPT_VERSION = 1

ITEM, TEXT, PREVIOUS, QUERY, REWRITE = "<|item|>", "<|text|>", "<|prev|>", "<|query|>", "<|rewrite|>"
END, PAD = "<|end|>", "<|pad|>"
CONTROL_TOKENS = (PAD, END, ITEM, TEXT, PREVIOUS, QUERY, REWRITE)

MAX_QUERY_CHARS = 512
MAX_CONTEXT_CHARS = 160
MAX_PREVIOUS_QUERIES = 3


@dataclass(frozen=True, slots=True)
class Item:
    """The item the user looked at last: its title and, where known, text that describes it."""

    title: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What is known beside the query. `previous_queries` is ordered oldest first."""

    last_item: Item | None = None
    previous_queries: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.last_item is not None or bool(self.previous_queries)


NO_CONTEXT = Context()


def render(query: str, context: Context = NO_CONTEXT) -> str:
    """Render a prompt that ends where the rewrite begins.

    Only the newest `MAX_PREVIOUS_QUERIES` earlier queries are kept; every context text is cut at
    `MAX_CONTEXT_CHARS` characters (an earlier query keeps its start, as an item its title), the query at
    `MAX_QUERY_CHARS`.
    """
    parts: list[str] = []
    if context.last_item is not None:
        parts += [ITEM, clean(context.last_item.title, MAX_CONTEXT_CHARS)]
        if text := clean(context.last_item.text, MAX_CONTEXT_CHARS):
            parts += [TEXT, text]
    for previous in context.previous_queries[-MAX_PREVIOUS_QUERIES:]:
        parts += [PREVIOUS, clean(previous, MAX_CONTEXT_CHARS)]
    return "".join([*parts, QUERY, clean(query, MAX_QUERY_CHARS), REWRITE])


def clean(text: str, limit: int) -> str:
    """Fold compatibility forms and white space, break up control tokens, cut at `limit` characters."""
    folded = " ".join(unicodedata.normalize("NFKC", text).split())
    while "<|" in folded:
        folded = folded.replace("<|", "< |")
    return folded[:limit].strip()
