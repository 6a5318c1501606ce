"""Names that point to checkpoints: `stable`, `candidate`, `last_good`, and any others.

An alias is a list of moves, each a file of its own: `aliases/stable/00000003.json`. The last one says where
the alias points, and all of them are its audit trail: nothing can be moved without a line that says who, when
and why. A mover creates the file after the last one it has seen; of several at once one gets it, the others
are told that the alias has moved.
"""

from __future__ import annotations

import os
import re
from getpass import getuser
from platform import node
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app.contracts.manifest import Digest
from app.errors import AliasMovedError, RegistryError
from app.registry.place import Place

ALIAS = r"^[a-z][a-z0-9_-]{0,31}$"
FOLDER = "aliases"
MOST_BYTES = 1 << 16

Words = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]


class Move(BaseModel):
    """One line of an alias's audit trail.

    `from_digest` is where it pointed before (None: nowhere), `to_digest` where it points from then on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: Annotated[str, StringConstraints(pattern=ALIAS)]
    number: int = Field(ge=1)
    from_digest: Digest | None
    to_digest: Digest | None
    who: Words
    why: Words
    when: AwareDatetime


class Aliases:
    """The aliases of a registry."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def all(self) -> dict[str, str]:
        """Return alias -> digest, of those that point somewhere."""
        found = {alias: self.current(alias) for alias in self.names()}
        return {alias: move.to_digest for alias, move in found.items() if move and move.to_digest}

    def names(self) -> list[str]:
        """Return all that ever pointed anywhere."""
        return self._place.names(FOLDER)

    def current(self, alias: str) -> Move | None:
        """The last move of an alias; None where it was never moved.

        Raises:
            RegistryError: no such alias can be, or its last move cannot be read.
        """
        numbers = self._numbers(alias)
        return self._read(alias, numbers[-1]) if numbers else None

    def history(self, alias: str) -> list[Move]:
        """All moves of an alias, the first one first. Raises RegistryError."""
        return [self._read(alias, number) for number in self._numbers(alias)]

    def move(
        self,
        alias: str,
        to_digest: str | None,
        *,
        seen: Move | None,
        who: str,
        why: str,
        when: AwareDatetime,
    ) -> Move:
        """Point an alias elsewhere, provided that it has not moved since.

        Args:
            alias: its name.
            to_digest: the checkpoint's address; None: nowhere.
            seen: what `current` has returned, and what the decision was made on.
            who: moves it, for the audit trail.
            why: it is moved, likewise.
            when: now.

        Raises:
            AliasMovedError: it has moved since; nothing is changed.
            RegistryError: the place cannot promise that only one mover wins, or is out of reach.
        """
        number = seen.number + 1 if seen else 1
        from_digest = seen.to_digest if seen else None
        try:
            move = Move(
                alias=alias,
                number=number,
                from_digest=from_digest,
                to_digest=to_digest,
                who=who,
                why=why,
                when=when,
            )
        except ValidationError as error:
            raise RegistryError(f"alias {alias!r}: {error}") from error
        self._place.require_create()
        content = (move.model_dump_json() + "\n").encode()
        if self._place.create(content, *_file(alias, number)):
            return move
        now = self._read(alias, number)
        if now == move:  # our own: a store may do what it was asked and lose the answer
            return move
        raise AliasMovedError(
            f"{alias} has moved meanwhile: {now.who} has pointed it to {now.to_digest or 'nothing'} at "
            f"{now.when:%Y-%m-%d %H:%M:%S %Z} ({now.why}); look again before you move it"
        )

    def point(self, alias: str, to_digest: str, *, who: str, why: str, when: AwareDatetime) -> Move:
        """Point an alias somewhere unless it points there already: what was cut off may be said again.

        Args: as `move`; returns the move that has it point there, this one or an earlier one.

        Raises:
            AliasMovedError, RegistryError: as `move`.
        """
        seen = self.current(alias)
        if seen is not None and seen.to_digest == to_digest:
            return seen
        return self.move(alias, to_digest, seen=seen, who=who, why=why, when=when)

    def _numbers(self, alias: str) -> list[int]:
        if not re.fullmatch(ALIAS, alias):
            raise RegistryError(f"{alias!r} is no alias: it must match {ALIAS}")
        names = self._place.names(FOLDER, alias)
        return [int(name.removesuffix(".json")) for name in names if re.fullmatch(r"[0-9]{8}\.json", name)]

    def _read(self, alias: str, number: int) -> Move:
        file = _file(alias, number)
        try:
            return Move.model_validate_json(self._place.read(*file, most=MOST_BYTES))
        except ValidationError as error:
            raise RegistryError(f"{self._place.path(*file)}: {error}") from error


def this_user() -> str:
    """Who moves an alias from here, for its audit trail."""
    try:
        user = getuser()
    except (KeyError, OSError):  # of a container nobody has given a name
        user = f"uid {os.getuid()}"
    return f"{user}@{node()}"


def _file(alias: str, number: int) -> tuple[str, str, str]:
    return FOLDER, alias, f"{number:08d}.json"
