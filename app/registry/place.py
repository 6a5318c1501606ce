"""Where a registry lies: a folder or a bucket, behind fsspec, with the one write that others cannot undo.

Everything is done with whole files. `create` writes a file unless there is one by that name: what aliases
are moved with. A local file system has it by hard links, object stores by a precondition (S3: If-None-Match,
Google: ifGenerationMatch). A store that takes the request and overwrites all the same is found out, and
refused.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from app.errors import CorewriteError, RegistryError, UnfitFileError


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or a prefix of a bucket.

    Args:
        url: as its user wrote it, for messages.
        files: the file system.
        root: path of the folder there.
    """

    url: str
    files: Any
    root: str

    @classmethod
    def at(cls, url: str) -> Place:
        """Open a place; nothing is created.

        Args:
            url: a folder, or what fsspec understands: `s3://bucket/prefix`, `gs://bucket/prefix`.

        Raises:
            RegistryError: the file system of that URL is not installed, or cannot be made.
        """
        try:
            # Another process may have moved an alias a moment ago: listings are never remembered.
            files, root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise RegistryError(
                f"{url}: {error} (the extras are corewrite[s3] and corewrite[gcs])"
            ) from error
        except (ValueError, OSError) as error:
            raise RegistryError(f"{url}: {error}") from error
        return cls(url, files, root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether its files are this machine's."""
        return isinstance(self.files, LocalFileSystem)

    def path(self, *parts: str) -> str:
        """The path of something in it, for `files`."""
        return "/".join((self.root, *parts))

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Turn what a backend raises into RegistryError; each has errors of its own."""
        try:
            yield
        except CorewriteError:
            raise
        except Exception as error:
            raise RegistryError(f"{self.url}: {type(error).__name__}: {error}") from error

    def names(self, *parts: str) -> list[str]:
        """What lies directly in a folder, sorted, hidden files left out; nothing where there is none."""
        with self.reached():
            try:
                found = self.files.ls(self.path(*parts), detail=False)
            except FileNotFoundError:
                return []
            names = {path.rstrip("/").rpartition("/")[2] for path in found}
            return sorted(name for name in names if name and not name.startswith("."))

    def size(self, *parts: str) -> int | None:
        """The size of a plain file in bytes; None where there is none.

        Raises:
            UnfitFileError: it is a symbolic link, or no file.
        """
        with self.reached():
            try:
                info = self.files.info(self.path(*parts))
            except FileNotFoundError:
                return None
            if info.get("islink"):
                raise UnfitFileError(
                    f"{self.path(*parts)}: a symbolic link; a registry holds plain files only"
                )
            if info["type"] != "file":
                raise UnfitFileError(f"{self.path(*parts)}: not a file")
            return int(info["size"])

    def modified(self, *parts: str) -> datetime:
        """When a file was written."""
        with self.reached():
            when: datetime = self.files.modified(self.path(*parts))
            return when if when.tzinfo else when.replace(tzinfo=UTC)

    def read(self, *parts: str, most: int) -> bytes:
        """Return a file of at most `most` bytes.

        Raises:
            UnfitFileError: it is missing, larger, or no plain file.
            RegistryError: it cannot be read.
        """
        size = self.size(*parts)
        if size is None:
            raise UnfitFileError(f"{self.path(*parts)}: missing")
        if size > most:
            raise UnfitFileError(f"{self.path(*parts)}: {size} bytes, more than the {most} allowed")
        with self.reached():
            content: bytes = self.files.cat_file(self.path(*parts))
            return content

    def fetch(self, target: Path, *parts: str) -> None:
        """Copy a file to this machine."""
        with self.reached():
            self.files.get_file(self.path(*parts), str(target))

    def put(self, source: Path, *parts: str) -> None:
        """Copy a file of this machine into the place."""
        with self.reached():
            self.files.makedirs(self.path(*parts[:-1]), exist_ok=True)
            self.files.put_file(str(source), self.path(*parts))

    def remove(self, *parts: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        with self.reached():
            self.files.rm(self.path(*parts), recursive=True)

    def create(self, content: bytes, *parts: str) -> bool:
        """Write a file whole, unless there is one already. Returns whether it was written.

        Of any number of writers at once, one is told True.
        """
        with self.reached():
            if self.is_local:
                return _create_local(Path(self.path(*parts)), content)
            try:
                self.files.pipe_file(self.path(*parts), content, mode="create")
            except FileExistsError:
                return False
        return True

    def replace(self, content: bytes, *parts: str) -> None:
        """Write a file whole, whether there is one or not: who reads meanwhile finds the one or the other."""
        with self.reached():
            if self.is_local:
                path = Path(self.path(*parts))
                path.parent.mkdir(parents=True, exist_ok=True)
                with _part_of(path, content) as part:
                    part.replace(path)
            else:
                self.files.pipe_file(self.path(*parts), content)

    def require_create(self) -> None:
        """See that `create` does what it says here.

        Raises:
            RegistryError: this backend overwrites files that it was asked not to.
        """
        if self.is_local:
            return
        probe = ("aliases", f".probe-{uuid.uuid4().hex}")
        first, second = self.create(b"1", *probe), self.create(b"2", *probe)
        self.remove(*probe)
        if not first or second:
            raise RegistryError(
                f"{self.url}: overwrites a file that was to be created: two writers could both move "
                "an alias. Put the registry on a local file system, S3 or Google Cloud Storage"
            )


def _create_local(path: Path, content: bytes) -> bool:
    """A hard link is made or not, and the file behind it is whole by then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _part_of(path, content) as part:
            os.link(part, path)
    except FileExistsError:
        return False
    return True


@contextmanager
def _part_of(path: Path, content: bytes) -> Iterator[Path]:
    """A hidden file beside `path` that has the content and is on the disk; gone in the end."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)
