"""Rollouts in this process and on two workers of Ray.

    python samplers.py FOLDER HAPPENS

FOLDER gets a copy of the default checkpoint as the policy, and found.json with both. HAPPENS: `kill`, a
worker in the middle of a batch is killed; `kill_driver`, the process that talks to Ray is; `no_weights`, the
policy has none when the workers start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from loop_configs import loop_config

from app.errors import CorewriteError
from app.ray_actors import Workers
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.relevance.base import Content
from app.relevance.choice import DEFAULT_RELEVANCE
from training.config import RewardConfig, SampleConfig
from training.datasets.instances import Instance, Seen
from training.on_ray import RaySampler
from training.rating import RatedCompletion
from training.sampler import Draw, LocalSampler, Sampler, served_rater

TITLES = ("icu rn", "mig welder", "night clerk", "baker", "truck driver", "painter", "nurse aide", "cook")
INSTANCES = [
    Instance(f"{level} {title}", (Seen(Content(f"{title} job"), 1.0),), (), (Content("zebra keeper"),))
    for level in ("senior", "junior", "lead", "chief", "night", "assistant", "head", "first")
    for title in TITLES
]


def rated(sampler: Sampler, policy: Path, done: Any = lambda: None) -> list[list[RatedCompletion]]:
    return sampler(Draw(policy, 3, "sample"), INSTANCES, done)


def working(happens: str) -> list[int]:
    """Workers in the middle of a batch, by what Ray calls their processes then, or who talks to Ray."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
            mine = f"MARK={os.environ['MARK']}".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        worker = title.startswith(b"ray::MapWorker") and b"submit" in title
        if mine and (b"app.ray_driver" in title if happens == "kill_driver" else worker):
            found.append(int(process.name))
    return found


class Kill:
    """Kills one as soon as one is seen to work, after the first batch."""

    def __init__(self, happens: str) -> None:
        self.happens = happens
        self.killed: int | None = None

    def __call__(self) -> None:
        if self.happens != "no_weights" and self.killed is None and (pids := working(self.happens)):
            self.killed = pids[0]
            os.kill(self.killed, signal.SIGKILL)


def main() -> None:
    folder, happens = Path(sys.argv[1]), sys.argv[2]
    policy = shutil.copytree(DEFAULT_CHECKPOINT, folder / "policy")
    config = loop_config(
        folder,
        checkpoint=policy,
        relevance=DEFAULT_RELEVANCE,
        sampling=SampleConfig(num_generations=4, max_tokens=16),
        reward=RewardConfig(gamma=0.5, scorers=("rawrank", "overlap")),
    )
    make_rater = partial(served_rater, config, ["truck driver job", "zebra keeper"], 1)
    remote = RaySampler(config.sampling, make_rater, Workers(2))
    here = rated(LocalSampler(config.sampling, make_rater(), threads=1), policy)
    if happens == "no_weights":
        (policy / "model.safetensors").write_bytes(b"")
    kill, heard = Kill(happens), []

    def done() -> None:
        heard.append(1)
        kill()

    try:
        there = rated(remote, policy, done)
    except CorewriteError as error:
        found: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
    else:
        plain = [[[asdict(one) for one in row] for row in rows] for rows in (here, there)]
        found = {"here": plain[0], "there": plain[1], "killed": kill.killed, "heard": len(heard)}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
