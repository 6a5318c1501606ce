"""The weekly cycle: `corewrite cycle --config TOML --window FIRST/LAST`, unattended, restartable anywhere.

    ingest    the checkpoint that `stable` points to, pulled
    train     the loop, from that checkpoint, on the first part of the window
    gate      against that checkpoint, on the rest of the window
    push      into the registry, with the gate's report on it, whatever that says
    sign      where the verdict is PASS, and there is a key
    alias     `candidate`, where the verdict is PASS
    summary   what a person wants to read on Monday

Each step leaves a file or an entry of the registry that is there whole or not at all; a cycle that is
started again skips what is done. One lock per working folder keeps two of them apart, and the aliases'
compare-and-set those of two machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from pydantic import Field

from app.contracts.manifest import DataWindow
from app.registry.aliases import this_user
from app.registry.store import Registry
from training.config import LoopConfig, Section
from training.gate.window import LabelsConfig, WindowConfig
from training.loop import write_whole

STABLE, CANDIDATE = "stable", "candidate"
NEW_LINE = "\n"


class CycleConfig(Section):
    """What every week has in common. The loop's checkpoint, name and window are the cycle's to say."""

    loop: LoopConfig = Field(description="how to train; its logs are read for the days of the window alone")
    labels: tuple[LabelsConfig, ...] = Field(default=(), description="what the gate measures nDCG@10 on")
    gate_ratio: float = Field(
        default=0.3, gt=0, lt=1, description="share of the window, its end, to judge on"
    )
    policy: Path | None = Field(
        default=None, description="TOML of the gate's limits; unset: the default ones"
    )

    def name_of(self, window: DataWindow) -> str:
        """What the week of that window is called, and the checkpoint that comes of it."""
        return f"{self.loop.name}-{window.last:%Y%m%d}"


class CycleError(RuntimeError):
    """The cycle cannot go on, and starting it again as it is will not help; the message says why."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The two long steps, which tests replace.

    Args:
        train: (configuration, run folder, checkpoint folder to write).
        gate: (candidate, incumbent, window, policy file, folder of the report); returns the verdict's name.
    """

    train: Callable[[LoopConfig, Path, Path], None]
    gate: Callable[[Path, Path, WindowConfig, Path | None, Path], str]


class Cycle:
    """One week in `folder`.

    Args:
        config: what every week has in common.
        window: the days.
        registry: where checkpoints come from and go to.
        folder: of this week alone.
        steps: the long ones.
        key: PEM file to sign with what passes, and nothing else; None: nothing is signed.
    """

    def __init__(
        self,
        config: CycleConfig,
        window: DataWindow,
        registry: Registry,
        folder: Path,
        steps: Steps,
        *,
        key: Path | None = None,
    ) -> None:
        self._config, self._window, self._registry = config, window, registry
        self._folder, self._steps, self._key = folder, steps, key
        self._name = config.name_of(window)

    def run(self) -> str:
        """Go through the steps that are not done; return the name of the verdict.

        Raises:
            CycleError: another cycle works in this folder, or one of another window has; `stable` has moved
                since this one began.
            CheckpointError, DataError, RegistryError: something cannot be read.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder / "lock"):
            self._require_same_window()
            incumbent = self._ingest()
            checkpoint = self._folder / "checkpoint"
            if not checkpoint.exists():
                self._steps.train(self._loop(), self._folder / "loop", checkpoint)
            verdict = self._gate(checkpoint)
            digest = self._once("push", lambda: self._registry.push(checkpoint, gate_report=self._report))
            if verdict == "PASS":
                if self._key is not None:
                    self._once("signed", lambda: self._sign(checkpoint))
                self._once("alias", lambda: self._point(digest, incumbent))
            write_whole(self._folder / "summary.md", self._summary(verdict, digest, incumbent))
            return verdict

    def _require_same_window(self) -> None:
        """A folder has the name of a window's last day, which another window may have too."""
        ours = [self._window.first.isoformat(), self._window.last.isoformat()]
        theirs = self._once("window", lambda: ours)
        if theirs != ours:
            raise CycleError(
                f"{self._folder} is of the window {'/'.join(theirs)}, and what it has found is not about "
                f"{'/'.join(ours)}: give it another folder (--runs)"
            )

    @property
    def _report(self) -> Path:
        return self._folder / "gate" / "gate.json"

    @property
    def _turn(self) -> datetime:
        """Where learning ends and judging begins."""
        return self._window.last - (self._window.last - self._window.first) * self._config.gate_ratio

    def _loop(self) -> LoopConfig:
        changes = {
            "name": self._name,
            "checkpoint": self._folder / "incumbent",
            "since": self._window.first,
            "until": self._turn,
        }
        return LoopConfig.model_validate(self._config.loop.model_dump() | changes)

    def _ingest(self) -> str:
        incumbent: str = self._once("incumbent", lambda: self._registry.resolve(STABLE))
        folder = self._folder / "incumbent"
        if not folder.exists():
            self._registry.pull(incumbent, folder)
        return incumbent

    def _gate(self, checkpoint: Path) -> str:
        known = set(WindowConfig.model_fields)
        shared = {name: value for name, value in self._loop().model_dump().items() if name in known}
        window = WindowConfig.model_validate(
            shared | {"since": self._turn, "until": self._window.last, "labels": self._config.labels}
        )
        verdict: str = self._once(
            "verdict",
            lambda: self._steps.gate(
                checkpoint, self._folder / "incumbent", window, self._config.policy, self._report.parent
            ),
        )
        return verdict

    def _sign(self, checkpoint: Path) -> str:
        """Sign it where it lies; what did not pass stays unsigned, and no strict server loads it."""
        return self._registry.push(checkpoint, gate_report=self._report, key=self._key)

    def _point(self, digest: str, incumbent: str) -> str:
        """Point `candidate` to what has passed, if it still would be compared with the same incumbent."""
        if (stable := self._registry.resolve(STABLE)) != incumbent:
            raise CycleError(
                f"{STABLE} points to {stable} by now, and this candidate was judged against {incumbent}: run "
                f"the cycle again in another folder than {self._folder}"
            )
        why = f"{self._name} passed the gate against {incumbent[:12]}"
        self._registry.aliases.point(CANDIDATE, digest, who=this_user(), why=why, when=datetime.now(UTC))
        return digest

    def _once(self, name: str, work: Callable[[], Any]) -> Any:
        """What a step has found, found once."""
        file = self._folder / f"{name}.json"
        if not file.exists():
            write_whole(file, json.dumps(work()) + "\n")
        return json.loads(file.read_text(encoding="utf-8"))

    def _summary(self, verdict: str, digest: str, incumbent: str) -> str:
        report = json.loads(self._report.read_text(encoding="utf-8"))
        became = f"`{CANDIDATE}` points to it." if verdict == "PASS" else "No alias was moved."
        moments = (self._window.first, self._turn, self._window.last)
        first, turn, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in moments)
        held_up = [
            f"- {row['metric']} ({row['limit']} {row['bound']:g}): {row['state']} {row['reason']}".rstrip()
            for row in report["decisions"]
            if row["state"] != "PASS"
        ]
        means = [
            f"| {name} | {_number(of['candidate'])} | {_number(of['incumbent'])} |"
            for name, of in report["means"].items()
        ]
        return f"""# {verdict}: {self._name}

Learnt from {first} to {turn}, judged on what came until {last}, against `{incumbent[:12]}`.
It is `{digest[:12]}` in the registry. {became} gate/gate.html shows examples.

{NEW_LINE.join(held_up) or "Every limit was kept."}

| metric | candidate | incumbent |
|---|--:|--:|
{NEW_LINE.join(means)}
"""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that goes with the process, however it ends.

    Raises:
        CycleError: another process holds it.
    """
    with file.open("a") as stream:
        try:
            flock(stream, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise CycleError(f"{file}: another cycle is at work in this folder; wait for it") from None
        yield


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
