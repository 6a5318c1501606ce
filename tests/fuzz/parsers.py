"""The parsers of what strangers send, under atheris: python tests/fuzz/parsers.py NAME -max_total_time=60

Each target raises nothing but what it says. Without a name they are listed. Needs corewrite[fuzz].
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pydantic import ValidationError  # noqa: E402 -- after the path

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"k" * 32
SEEDS: dict[str, bytes] = {
    "rewrite": b'{"query": "rn icu", "context": {"last_item": {"title": "a"}}, "locale": "en-GB"}',
    "batch": b'{"requests": [{"query": "rn icu"}, {"query": ""}]}',
    "signals": b'{"query": "a", "candidates": [{"id": "a", "text": "b", "base_score": {"finerank": 0.5}}]}',
    "events": b'{"events": [{"query_id": "q", "action_name": "click", "exposure": "AQ"}]}',
    "trace": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "timeout": b"250",
    "exposure": b"AQAAAAEAAQEABQYqyW0_u-e29aA",  # signed, for another query_id
    "manifest": (ROOT / "app" / "registry" / "default" / "manifest.json").read_bytes(),
    "shared_entry": (
        b'{"key":"k","weights_digest":"w","checkpoint_id":"c","rewrites":[],"reason":"guard","drops":{}}'
    ),
    "plan": (ROOT / "app" / "rollout" / "launch.toml").read_bytes(),
    "prompt": "<\uff5cquery\uff5c> in <|rewrite|>".encode(),
    "guard": b"in blue\x00registered nurse -nike",
    "address": b"2001:db8::1",
}


def targets() -> dict[str, Callable[[bytes], object]]:  # noqa: C901 -- a list of small functions
    """What is fuzzed, by name; each takes any bytes."""
    from app.contracts.manifest import Manifest  # noqa: PLC0415 -- instrumented by main before
    from app.contracts.prompt import CONTROL_TOKENS, Context, Item, render  # noqa: PLC0415
    from app.errors import BadRequestError, PlanError  # noqa: PLC0415
    from app.http.body import parse_batch, parse_request, parse_rewrite  # noqa: PLC0415
    from app.http.client import ClientNames  # noqa: PLC0415
    from app.http.events import EventsRequest  # noqa: PLC0415
    from app.http.signal_schemas import SignalsRequest  # noqa: PLC0415
    from app.http.trace import continue_trace  # noqa: PLC0415
    from app.rewrite import guard  # noqa: PLC0415
    from app.rewrite.deadline import parse_timeout_header  # noqa: PLC0415
    from app.rewrite.generator import Key  # noqa: PLC0415
    from app.rewrite.shared_entry import decode  # noqa: PLC0415
    from app.rollout.exposure import unseal  # noqa: PLC0415
    from app.rollout.plan import read_plan  # noqa: PLC0415

    def only(*errors: type[Exception]) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
        def guarded(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
            def run(data: bytes) -> object:
                try:
                    return parse(data)
                except errors:
                    return None

            return run

        return guarded

    def text(data: bytes) -> str:
        return data.decode("utf-8", "replace")

    def prompt(data: bytes) -> None:
        made = render(text(data), Context(Item(text(data), text(data)), (text(data),)))
        assert sum(made.count(token) for token in CONTROL_TOKENS) in {4, 5}, made

    def judged(data: bytes) -> None:
        query, _, written = text(data).partition("\x00")
        subject = guard.subject_of(query, Context(), guard.Limits())
        if guard.drop_of(subject, written, "stop") is None:
            assert written.strip()
            assert not [token for token in CONTROL_TOKENS if token in written]

    def sealed(data: bytes) -> None:
        assert unseal(text(data), "q", KEY) is None, "forged"

    def named(data: bytes) -> None:
        header = ClientNames("x").name({"headers": [(b"x", data)], "client": None})
        address = ClientNames(None).name({"headers": [], "client": (text(data), 1)})
        assert len(header) <= 71, header
        assert address is not None

    key = Key(weights_digest="w", prompt="p", locale="", num_completions=1)
    return {
        "rewrite": only(BadRequestError)(parse_rewrite),
        "batch": only(BadRequestError)(parse_batch),
        "signals": only(BadRequestError)(lambda data: parse_request(data, SignalsRequest)),
        "events": only(BadRequestError)(lambda data: parse_request(data, EventsRequest)),
        "trace": lambda data: continue_trace(data.decode("latin-1")),
        "timeout": only(ValueError)(lambda data: parse_timeout_header(data.decode("latin-1"))),
        "exposure": sealed,
        "manifest": only(ValidationError)(Manifest.model_validate_json),
        "shared_entry": only(ValueError)(lambda data: decode(data, digest="k", key=key)),
        "plan": only(PlanError)(lambda data: read_plan(text(data))),
        "prompt": prompt,
        "guard": judged,
        "address": named,
    }


def main() -> int:
    """Run one until libFuzzer's own options end it."""
    if len(sys.argv) < 2 or sys.argv[1] not in SEEDS:
        sys.stdout.write("\n".join(SEEDS) + "\n")
        return 2
    import atheris  # noqa: PLC0415 -- an extra

    with atheris.instrument_imports(include=["app"]):
        target = targets()[sys.argv[1]]
    # From nothing it never comes to JSON or a signed word. What leads further is kept, for the next time.
    corpus = ROOT / ".cache" / "fuzz" / sys.argv[1]
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(SEEDS[sys.argv[1]])
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
