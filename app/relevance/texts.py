"""From texts to rows of token ids, by the tokenizer of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Encoding, Tokenizer

from app.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.relevance.base import Content
    from app.relevance.manifest import Head


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a graph's input, not padded."""

    ids: list[int]
    types: list[int]
    image: tuple[float, ...] | None = None


class Texts:
    """Cuts texts at a head's limits and puts the model's special tokens around them. Thread-safe.

    Where a text spells one of them, it is read as text: no document can end itself and begin another.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # which means: in texts, as text

    @classmethod
    def of_file(cls, tokenizer_file: Path) -> Texts:
        """Those of a `tokenizer.json`. Raises CheckpointError."""
        try:
            return cls(Tokenizer.from_file(str(tokenizer_file)))
        except Exception as error:  # the library raises no narrower class
            raise CheckpointError(f"{tokenizer_file}: {error}") from error

    def queries(self, texts: Sequence[str], head: Head) -> list[Row]:
        """Queries read alone."""
        found = self._encode([head.query_prefix + text for text in texts], head.max_query_tokens)
        whole = [self._tokenizer.post_process(part) for part in found]
        return [Row(one.ids, one.type_ids) for one in whole]

    def documents(self, contents: Sequence[Content], head: Head) -> list[Row]:
        """Documents read alone."""
        texts = [head.document_prefix + content.text for content in contents]
        whole = [self._tokenizer.post_process(part) for part in self._encode(texts, head.max_document_tokens)]
        return [
            Row(one.ids, [head.document_type] * len(one.ids), content.image)
            for one, content in zip(whole, contents, strict=True)
        ]

    def pairs(self, query: str, contents: Sequence[Content], head: Head) -> list[Row]:
        """A query with each document."""
        (asked,) = self._encode([head.query_prefix + query], head.max_query_tokens)
        texts = [head.document_prefix + content.text for content in contents]
        rows = []
        for part, content in zip(self._encode(texts, head.max_document_tokens), contents, strict=True):
            one = self._tokenizer.post_process(asked, part)
            rows.append(Row(one.ids, one.type_ids, content.image))
        return rows

    def _encode(self, texts: list[str], most: int) -> list[Encoding]:
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        for one in found:
            one.truncate(most)
        return found
