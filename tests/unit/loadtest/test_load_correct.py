from __future__ import annotations

from loadtest.correct import told_apart, wrong_versions
from loadtest.history import Request
from loadtest.incidents import Happened
from loadtest.scenarios import Incident

DIGESTS = {"first": "a" * 64, "second": "b" * 64}
EXPECTED = {
    (DIGESTS["first"], "rn"): ("registered nurse",),
    (DIGESTS["second"], "rn"): ("railway navvy",),
}


def answer(at: float, digest: str, *said: str, reason: str | None = None) -> Request:
    return Request(at, at + 0.1, "rn", 200, "rn", digest, reason, said)


def happened(at: float, do: str, to: str = "", refused: str | None = None) -> Happened:
    return Happened(Incident.model_validate({"at": at, "do": do, "to": to}), at, at + 1.0, refused)


def wrong(by_arm: dict[str, list[Request]], *incidents: Happened) -> dict[str, int]:
    return dict(wrong_versions(by_arm, incidents, DIGESTS, EXPECTED))


FIRST = answer(1.0, DIGESTS["first"], "registered nurse")
SECOND = answer(20.0, DIGESTS["second"], "railway navvy")
SWAP = happened(10.0, "swap", "second")


def test_what_serves_may_answer() -> None:
    assert wrong({"stable": [FIRST, SECOND]}, SWAP) == {}


def test_what_does_not_serve_may_not() -> None:
    early, late = (
        answer(1.0, DIGESTS["second"], "railway navvy"),
        answer(20.0, DIGESTS["first"], "registered nurse"),
    )
    rule = "the checkpoint it names did not serve then"
    assert wrong({"stable": [early, late]}, SWAP) == {rule: 2}
    assert wrong({"stable": [SECOND]}) == {rule: 1}
    refused = happened(10.0, "swap", "second", refused="409")
    assert wrong({"stable": [SECOND]}, refused) == {rule: 1}


def test_the_text_of_another_checkpoint_is_wrong() -> None:
    mixed = answer(1.0, DIGESTS["first"], "railway navvy")
    assert wrong({"stable": [mixed]}) == {"the text is not that of the checkpoint it names": 1}


def test_each_arm_has_its_checkpoint() -> None:
    assert wrong({"stable": [FIRST], "canary": [SECOND]}) == {}
    assert wrong({"canary": [FIRST]}) == {"the checkpoint it names did not serve then": 1}


def test_the_canary_is_gone_soon_after_it_was_taken_back() -> None:
    back = happened(30.0, "rollout_rollback")
    still = answer(32.0, DIGESTS["second"], "railway navvy")
    much_later = answer(40.0, DIGESTS["second"], "railway navvy")
    assert wrong({"canary": [SECOND, still]}, back) == {}
    assert wrong({"canary": [SECOND, much_later]}, back) == {"the canary answered after it was taken back": 1}


def test_the_original_alone_is_no_checkpoints_text() -> None:
    alone = answer(1.0, DIGESTS["first"], reason="engine_unavailable")
    assert wrong({"canary": [alone], "stable": [alone]}) == {}


def test_checkpoints_that_say_the_same_are_not_told_apart() -> None:
    assert told_apart(EXPECTED) == 1.0
    same = {(digest, "cook"): ("chef",) for digest in DIGESTS.values()}
    assert told_apart(EXPECTED | same) == 0.5
    assert told_apart({}) == 0.0
