"""Images built and run without a container engine: buildah in a chroot, on a base that debootstrap makes.

Both are Debian's, both need root, and neither needs a kernel that lets containers be started.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BASE = "localhost/base"
# Root as the image has it, nothing of it writable but /tmp, and only what every container is given beside it.
# At /srv is a folder of ours.
_RUN = """
mount --bind "$1" /mnt && mount -o remount,ro,bind /mnt
mount -t tmpfs tmpfs /mnt/tmp && mount -t proc proc /mnt/proc && mount --rbind /dev /mnt/dev
mount --bind "$2" /mnt/srv && mount -o remount,ro,bind /mnt/srv
user=$3; shift 3
exec chroot --userspec="$user" /mnt env -i "$@"
"""


def run(*command: object) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@dataclass(frozen=True)
class Image:
    """One that was built, and where its files are."""

    root: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    def command(self, *words: str, given: Path | None = None, **settings: object) -> list[str]:
        """What runs some words in it, as its user; without any: what it is for. `given` is at /srv."""
        variables = {**self.environment, **settings}
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-euc", _RUN, "run"),
            *(str(self.root), str(given or self.root / "srv"), self.config["User"]),
            *(f"{name}={value}" for name, value in variables.items()),
            *(words or (*self.config["Entrypoint"], *self.config["Cmd"])),
        ]

    @contextmanager
    def running(self, log: Path, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
        """What it is for, running."""
        with log.open("wb") as file:
            process = subprocess.Popen(self.command(**settings), stdout=file, stderr=file)
            try:
                yield process
            finally:
                process.kill()
                process.wait()


class Builder:
    """buildah, with everything it keeps in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def base(self) -> None:
        """A small Debian with Python, in the place of the image that the Dockerfile begins with."""
        root = self._folder / "debian"
        packages = "--include=python3,python3-venv,ca-certificates"
        run("debootstrap", "--variant=minbase", packages, "bookworm", root, _mirror())
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", container, root, "/")
        self._buildah("commit", "--rm", container, BASE)

    def build(self, target: str, **arguments: str) -> Image:
        """Build a target of the Dockerfile."""
        name = f"localhost/corewrite:{target}"
        arguments = {"BASE": BASE, **arguments}
        told_so = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        mounts = [word for place in self._as_pip_is_here() for word in ("--volume", place)]
        self._buildah(
            *("build", "--pull-never", "--isolation", "chroot", *told_so),
            *("--format", "docker", *mounts, "--target", target, "--tag", name, "."),
        )
        told = json.loads(self._buildah("inspect", "--type", "image", name))
        container = self._buildah("from", "--pull-never", name).strip()
        return Image(Path(self._buildah("mount", container).strip()), told["Docker"]["config"])

    def clear(self) -> None:
        """Remove what was built: gigabytes."""
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")
        shutil.rmtree(self._folder / "debian")

    def _buildah(self, *words: object) -> str:
        places = ("--root", self._folder / "storage", "--runroot", self._folder / "run")
        return run("buildah", *places, "--storage-driver", "vfs", *words)

    def _as_pip_is_here(self) -> Sequence[str]:
        """Mounts by which pip inside finds packages as it does on this machine."""
        told = run(sys.executable, "-m", "pip", "config", "list")
        options = dict(re.findall(r"^\S*?\.?([\w-]+)='(.*)'$", told, re.MULTILINE))
        file = self._folder / "pip.conf"
        lines = [f"{name} = {value}" for name, value in options.items()]
        file.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
        # Folders of packages, and of certificates: whole, for what is in them points to its neighbours.
        named = {Path(*Path(one).parts[:3]) for one in re.findall(r"(?:file://)?(/[\w./-]+)", told)}
        folders = [place for place in sorted({Path("/etc/ssl"), *named}) if place.is_dir()]
        return [f"{file}:/etc/pip.conf:ro", *(f"{place}:{place}:ro" for place in folders)]


def _mirror() -> str:
    """Where this machine has its Debian packages from."""
    sites = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    return sites[0]
