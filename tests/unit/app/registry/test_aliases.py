"""Aliases: moved by one writer at a time, with a line for each move."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from app.errors import AliasMovedError, RegistryError
from app.registry.aliases import Aliases, Move, this_user
from app.registry.place import Place

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
RACERS = 6


def moved(place: Place, alias: str, to: str | None, seen: Move | None, who: str = "ann") -> Move:
    return Aliases(place).move(alias, to, seen=seen, who=who, why="the gate says PASS", when=NOW)


def test_an_alias_points_where_its_last_move_says(place: Place) -> None:
    aliases = Aliases(place)
    assert aliases.current("stable") is None
    assert aliases.all() == {}
    first = moved(place, "stable", A, None)
    second = moved(place, "stable", B, first, who="bo")
    moved(place, "candidate", None, moved(place, "candidate", C, None))
    assert aliases.current("stable") == second
    assert aliases.all() == {"stable": B}
    assert [(m.number, m.from_digest, m.to_digest, m.who) for m in aliases.history("stable")] == [
        (1, None, A, "ann"),
        (2, A, B, "bo"),
    ]


def test_whoever_comes_second_is_told_who_was_first(place: Place) -> None:
    first = moved(place, "stable", A, None)
    moved(place, "stable", B, first, who="bo")
    with pytest.raises(AliasMovedError, match=rf"bo has pointed it to {B} at 2026-11-22 08:00:00 UTC"):
        moved(place, "stable", C, first)
    with pytest.raises(AliasMovedError):
        moved(place, "stable", C, None)
    assert Aliases(place).all() == {"stable": B}


def test_one_who_asks_twice_has_moved_it_once(place: Place) -> None:
    """As after an answer that was lost."""
    first = moved(place, "stable", A, None)
    assert moved(place, "stable", A, None) == first
    assert len(Aliases(place).history("stable")) == 1


def test_pointing_where_it_points_already_is_no_move(place: Place) -> None:
    """As after a kill between the move and the note of it."""
    aliases = Aliases(place)
    first = aliases.point("stable", A, who="ann", why="first", when=NOW)
    assert aliases.point("stable", A, who="bo", why="again", when=NOW) == first
    aliases.point("stable", B, who="bo", why="next", when=NOW)
    assert [(m.to_digest, m.who) for m in aliases.history("stable")] == [(A, "ann"), (B, "bo")]


def test_of_racing_processes_one_wins(place: Place) -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from app.errors import AliasMovedError\n"
        "from app.registry.aliases import Aliases; from app.registry.place import Place\n"
        "aliases, me = Aliases(Place.at(sys.argv[1])), sys.argv[2]\n"
        "seen = aliases.current('stable'); print('ready', flush=True); sys.stdin.readline()\n"
        "try: aliases.move('stable', me * 64, seen=seen, who=me, why='race', when=datetime.now(UTC))\n"
        "except AliasMovedError: print('lost')\n"
        "else: print('won')\n"
    )
    before = moved(place, "stable", "f" * 64, None)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, place.url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(RACERS)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(outcomes) == ["lost"] * (RACERS - 1) + ["won"]
    winner = str(outcomes.index("won"))
    history = Aliases(place).history("stable")
    assert [move.who for move in history] == [before.who, winner]
    assert history[-1].to_digest == winner * 64


@pytest.mark.parametrize("alias", ["", "Stable", "a/b", "..", "x" * 33, "1"])
def test_an_alias_has_a_plain_name(place: Place, alias: str) -> None:
    with pytest.raises(RegistryError, match="no alias"):
        Aliases(place).current(alias)


def test_a_move_says_who_and_why(place: Place) -> None:
    for blank in ({"who": " "}, {"why": ""}, {"when": datetime(2026, 1, 1)}):  # noqa: DTZ001 -- that is the point
        facts: dict[str, Any] = {"who": "ann", "why": "x", "when": NOW} | blank
        with pytest.raises(RegistryError, match=next(iter(blank))):
            Aliases(place).move("stable", A, seen=None, **facts)
    assert Aliases(place).current("stable") is None


def test_a_move_that_cannot_be_read_is_no_move(place: Place, spoil: Any) -> None:
    moved(place, "stable", A, None)
    spoil(b"{", "aliases", "stable", "00000001.json")
    with pytest.raises(RegistryError, match=r"00000001\.json"):
        Aliases(place).current("stable")


def test_a_store_that_overwrites_is_found_out() -> None:
    class Careless(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
        protocol = "careless"

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            del mode
            super().pipe_file(path, value)

    fsspec.register_implementation("careless", Careless, clobber=True)
    place = Place.at("careless://registry")
    with pytest.raises(RegistryError, match="two writers could both move an alias"):
        moved(place, "stable", A, None)
    assert place.names("aliases") == []


def test_a_mover_that_died_left_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its file had its name; what it had written by then is hidden and in nobody's way."""
    place = Place.at(str(tmp_path))

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.link", die)
        with pytest.raises(KeyboardInterrupt):
            moved(place, "stable", A, None)
    assert Aliases(place).current("stable") is None
    moved(place, "stable", B, None)
    assert Aliases(place).all() == {"stable": B}


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 10001"), OSError("no username set")])
def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As in a container, whose user is in no list: the kill switch wants to know who throws it."""

    def nameless() -> str:
        raise error

    monkeypatch.setattr("app.registry.aliases.getuser", nameless)
    assert this_user() == f"uid {os.getuid()}@{platform.node()}"
