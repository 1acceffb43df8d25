"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]

#: Permissions of a new file, before the user's umask takes some.
_NEW_FILE = 0o666


def write_whole(path: Path, data: bytes, *, keep_links: bool = False) -> None:
    """Write all of ``data`` beside ``path`` and only then put it in place, so that whoever dies leaves one whole file.

    An existing file keeps its permissions and owner. OSError is raised as it comes, with nothing changed.

    Args:
        path: Where to write, links resolved.
        data: The content.
        keep_links: Write into a file that has other names (hard links) so that they keep the content in common; that
            one file is not replaced in one step then.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder, "a.bin"), b"12")
        ...     Path(folder, "a.bin").read_bytes(), os.listdir(folder)
        (b'12', ['a.bin'])
    """
    # A name that nobody can foresee, so that nobody can have put a link there.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".closedform.", suffix=".part")
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _put_in_place(Path(temporary), path, data, keep_links)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _put_in_place(temporary: Path, path: Path, data: bytes, keep_links: bool) -> None:
    """Make the written file the one that was asked for, with the permissions and other names it has."""
    try:
        present = path.stat()
    except FileNotFoundError:
        temporary.chmod(_NEW_FILE & ~_umask())
        temporary.replace(path)
        return
    if keep_links and present.st_nlink > 1:
        # Replacing it would leave its other names with the old content. That the disk has room is known by now.
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
        return
    temporary.chmod(present.st_mode & 0o7777)
    with contextlib.suppress(OSError):  # only root may give a file away
        os.chown(temporary, present.st_uid, present.st_gid)
    temporary.replace(path)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
