"""A walk over everything in an HDF5 file that can be read, and checks of what HDF5 would hide or die of.

Nothing here recurses: a file decides how deep its groups are nested, and how often they contain themselves.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from closedform.words.errors import SourceError

__all__ = ["check_parts", "check_written", "is_whole_table", "walk"]

#: Groups in groups; a path that long has no reader.
_DEEPEST = 1000
#: Virtual data sets made of virtual data sets; HDF5 itself recurses over them.
_DEEPEST_VIRTUAL = 50
#: Encodings of AnnData (and of its older versions) that make a group one table.
_TABLE_ENCODINGS = frozenset({"dataframe", "csr_matrix", "csc_matrix"})


def attribute(item: Any, name: str) -> str:
    """Return an attribute of a group or data set as text; empty where there is none or it is no text."""
    try:
        value = item.attrs.get(name)
    except (OSError, TypeError, ValueError, RuntimeError):  # kinds of attributes that h5py does not read
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def is_whole_table(group: Any) -> bool:
    """Return whether a group is one table spread over several data sets: a pandas frame, or one of AnnData's."""
    kind = attribute(group, "pandas_type")
    if kind.startswith(("frame", "series", "appendable")):
        return True
    return attribute(group, "encoding-type") in _TABLE_ENCODINGS or bool(attribute(group, "h5sparse_format"))


def walk(h5py: Any, file: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and the object of every data set with a shape, and of every group that is one table.

    Links are followed (``visititems`` would leave them out), each group is entered once, by whatever name it comes
    first, so that links in circles and diamonds of links come to an end.

    Raises:
        SourceError: groups are nested more than a thousand deep.
    """
    pending = [("", file, 0)]
    entered: set[tuple[int, int]] = set()
    while pending:
        prefix, group, depth = pending.pop()
        if depth > _DEEPEST:
            raise SourceError(f"{file.filename} has groups nested more than {_DEEPEST} deep; it is not read.")
        info = h5py.h5o.get_info(group.id)
        if (info.fileno, info.addr) in entered:
            continue
        entered.add((info.fileno, info.addr))

        inner = []
        for name in group:
            item = _follow(h5py, group, name)
            key = f"{prefix}{name}"
            if isinstance(item, h5py.Group):
                if is_whole_table(item):
                    yield key, item
                elif name != "#refs#":  # where MATLAB keeps the cells of its cell arrays
                    inner.append((f"{key}/", item, depth + 1))
            elif isinstance(item, h5py.Dataset) and item.shape is not None:
                yield key, item
        pending.extend(reversed(inner))


def _follow(h5py: Any, group: Any, name: str) -> Any:
    """Return what stands under a name; None for a link to nowhere, which holds no data."""
    try:
        if group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type == h5py.h5l.TYPE_EXTERNAL:
            target = Path(group.file.filename).parent / group.get(name, getlink=True).filename
            # Opening a pipe would wait for somebody to write to it.
            if target.exists() and not target.is_file():
                return None
        return group[name]
    except (KeyError, OSError, ValueError, RuntimeError):
        return None


def check_parts(h5py: Any, dataset: Any, name: str) -> None:
    """Refuse a data set whose parts lie in other files that are missing, or which is made of itself.

    HDF5 hands out fill values, silently, for the parts whose file is missing, and dies of a virtual data set that is
    a part of itself.

    Raises:
        SourceError: a part is missing, contains the whole, or nests too deep.
    """
    folder = Path(dataset.file.filename).parent
    for part, _, _ in dataset.external or ():
        _require_file(folder / os.fsdecode(part), name)
    if not dataset.is_virtual:
        return

    trail = [(_identity(h5py, dataset), _sources(h5py, dataset, name))]
    finished: set[tuple[str, int]] = set()
    while trail:
        source = next(trail[-1][1], None)
        if source is None:
            finished.add(trail.pop()[0])
            continue
        file, part = source
        identity = _identity(h5py, part)
        if any(identity == above for above, _ in trail):
            raise SourceError(f"{name} is a virtual data set that is a part of itself; write the data themselves.")
        if len(trail) > _DEEPEST_VIRTUAL:
            raise SourceError(f"{name} is assembled from virtual data sets nested more than {_DEEPEST_VIRTUAL} deep.")
        if part.is_virtual and identity not in finished:
            trail.append((identity, _sources(h5py, part, name, file)))
        else:
            file.close()


def _identity(h5py: Any, dataset: Any) -> tuple[str, int]:
    return os.path.realpath(dataset.file.filename), h5py.h5o.get_info(dataset.id).addr


def _sources(h5py: Any, dataset: Any, name: str, file: Any = None) -> Iterator[tuple[Any, Any]]:
    """Yield each source of a virtual data set once, with the file opened for it; ``file`` is closed at the end.

    Raises:
        SourceError: a source is missing.
    """
    own = Path(dataset.file.filename)
    seen = set()
    try:
        for mapping in dataset.virtual_sources():
            patterned = "%b" in mapping.file_name or "%b" in mapping.dset_name
            for block in itertools.count() if patterned else (0,):
                file_name, key = (text.replace("%b", str(block)) for text in (mapping.file_name, mapping.dset_name))
                path = own if file_name == "." else own.parent / file_name
                if (path, key) in seen:
                    continue
                seen.add((path, key))

                if patterned and not path.exists():
                    break
                _require_file(path, name)
                source = h5py.File(path, "r")
                try:
                    part = source[key]
                except (KeyError, OSError):
                    source.close()
                    if patterned:
                        break
                    raise SourceError(
                        f"{name} is assembled from several data sets and '{key}' of {path} is missing."
                    ) from None
                yield source, part
    finally:
        if file is not None:
            file.close()


def _require_file(path: Path, name: str) -> None:
    if not path.is_file():
        raise SourceError(f"{name} is assembled from several files and {path} is missing.")


def check_written(dataset: Any, name: str) -> None:
    """Refuse a data set of which parts were never written: HDF5 hands out its fill value there.

    Raises:
        SourceError: some rows have no storage.
    """
    if dataset.shape is None or 0 in dataset.shape:
        return
    missing = _first_unwritten(dataset)
    if missing is not None:
        raise SourceError(
            f"{name} was never written {missing}: HDF5 would hand out its fill value {dataset.fillvalue} there. "
            "Write those rows, or cut the data set to the rows that were written."
        )


def _first_unwritten(dataset: Any) -> str | None:
    if dataset.external:
        return None
    if dataset.is_virtual:
        mapped = [mapping.vspace for mapping in dataset.virtual_sources()]
        if any("%b" in mapping.file_name + mapping.dset_name for mapping in dataset.virtual_sources()):
            return None
        return "in all of its parts" if sum(space.get_select_npoints() for space in mapped) < dataset.size else None
    if dataset.chunks is None:
        return "at all" if dataset.id.get_storage_size() == 0 else None
    grid = [range(0, size, chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() >= math.prod(map(len, grid)):
        return None
    for corner in itertools.product(*grid):
        if dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
            return f"in all of its rows, first in row {corner[0]}"
    return None
