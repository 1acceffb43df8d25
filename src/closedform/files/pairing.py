"""Which two of many tables are the features and the targets: by their names, and a question where names do not say."""

from __future__ import annotations

from pathlib import Path

from closedform.files.contents import Table
from closedform.files.formats import PARAMETER, Entry, describe, short_key
from closedform.files.naming import LAYER_NAMES, WEIGHT_NAMES, is_label, is_test, names_target, other_words
from closedform.files.shapes import misfit, variable_remedy
from closedform.files.shards import missing_beside
from closedform.files.specs import BETWEEN_FILES, files_of
from closedform.words.errors import SourceError
from closedform.words.text import printable

__all__ = ["find_pair", "is_data", "last_part"]

#: Tables among which the one reading that shapes would allow is looked for, to name it in the question.
_FEW = 50


def find_pair(
    path: Path, entries: dict[str, Entry], free: list[Table], x: Table | None, y: Table | None
) -> tuple[str, Table, Table]:
    """Return what told and the one reading of the free tables, x or y as given.

    Raises:
        SourceError: there is no such reading, or more than one.
    """  # noqa: DOC501  # _question and _why_not make it
    misnamed = None
    by_rank = _named_pairs(free, x, y)
    for rank in sorted(by_rank):
        reasons = [(pair, _misfit(path, entries, *pair)) for pair in by_rank[rank]]
        fitting = [pair for pair, reason in reasons if reason is None]
        if len(fitting) == 1:
            return "By name", *fitting[0]

        if fitting:
            raise _question(path, entries, "more than one reading as")

        # Tables whose names say what they are are not passed over for others that happen to fit.
        misnamed = misnamed or (reasons[0][1] if rank[0] == 0 else None)

    if misnamed:
        raise SourceError(f"{path}: {misnamed}. It holds: {describe(entries)}.")

    targets = [y] if y else [] if x else [table for table in free if names_target(table.key)]
    if len(targets) == 1:
        beside = [table for table in free if _could_be_features(table, targets[0], entries)]
        if len(beside) == 1:
            return ("By shape" if y else "By name and shape"), beside[0], targets[0]

    raise _why_not(path, entries, free, x, y)


def _could_be_features(table: Table, target: Table, entries: dict[str, Entry]) -> bool:
    fits = table != target and entries[table.key].numeric and table.fits(target)
    return fits and not is_label(table.key) and (table.width > 1 or target.width == 1)


def _named_pairs(
    free: list[Table], x: Table | None, y: Table | None
) -> dict[tuple[int, int], list[tuple[Table, Table]]]:
    """Return the pairs of tables whose names read as features and targets, by how well; lower is better.

    Best is a pair of words with nothing else, then one with the same other words on both sides, then a word on one
    side where the user gave the other.
    """
    targets: dict[tuple[int, tuple[str, ...]], list[Table]] = {}
    for table in [y] if y else free:
        if y or not is_label(table.key):
            for reading in other_words(table.key)[1]:
                targets.setdefault(reading, []).append(table)
    plain = [table for reading, tables in targets.items() if reading[1] == () for table in tables]

    found: dict[tuple[int, int], dict[tuple[Table, Table], None]] = {}
    for table in [x] if x else free:
        readings = other_words(table.key)[0]
        if x:
            pairs = [((1, 0), target) for target in plain]
        elif y and any(other == () for _, other in readings):
            pairs = [((1, 0), y)]
        else:
            pairs = []
        pairs += [((0, len(reading[1])), target) for reading in readings for target in targets.get(reading, ())]
        for rank, target in pairs:
            if target != table:
                found.setdefault(rank, {})[table, target] = None
    # A pair counts where it reads best.
    seen: set[tuple[Table, Table]] = set()
    best: dict[tuple[int, int], list[tuple[Table, Table]]] = {}
    for rank in sorted(found):
        best[rank] = [pair for pair in found[rank] if pair not in seen]
        seen.update(found[rank])
    return {rank: pairs for rank, pairs in best.items() if pairs}


def _why_not(path: Path, entries: dict[str, Entry], free: list[Table], x: Table | None, y: Table | None) -> SourceError:
    """Return the error for tables that no name tells apart."""
    if list(entries) == [""] and not (x or y):
        if not entries[""].numeric:
            return SourceError(f"{path} holds {describe(entries)} values, which are not real numbers.")
        return SourceError(
            f"{path} holds one table: {describe(entries)}. Pass the other one with --y FILE, or name the columns of "
            "it that are the targets: --y -1."
        )

    kinds = [
        (key, entry.dtype, remedy) for key, entry in entries.items() if (remedy := variable_remedy(key, entry.dtype))
    ]
    if len(free) == len(kinds) == 1:
        ((key, kind, remedy),) = kinds
        return SourceError(f"{path} holds one {kind}, {short_key(key)}, which is no table of numbers; {remedy}.")

    few = free if len(free) <= _FEW else []
    pairs = [(a, b) for a in ([x] if x else few) for b in ([y] if y else few) if a != b]
    reasons = [_misfit(path, entries, *pair) for pair in pairs]
    told = all(reasons) and not any(is_label(target.key) for _, target in pairs)
    if told and (reason := _only_reason(few, pairs, reasons)):
        return SourceError(f"{path}: {reason}. It holds: {describe(entries)}.")

    if len(free) == 1 and not pairs and any(entry.columns for entry in entries.values()):
        return SourceError(
            f"{path} holds one table and columns beside it: {describe(entries)}. Pass --y COLUMN for the column that "
            "is the target."
        )

    if len(free) == 1 and not pairs:
        return SourceError(
            f"{path} holds one table: {describe(entries)}. Pass the other one with --y FILE::KEY, or name the columns "
            "of it that are the targets: --y -1."
        )

    parameters = [key for key, entry in entries.items() if entry.role == PARAMETER or last_part(key) in LAYER_NAMES]
    if parameters and not any(pair[0].fits(pair[1]) for pair in pairs):
        return SourceError(
            f"{path} holds the parameters of a layer, not data: {describe(entries)}. If they are what you mean, pass "
            "--x KEY --y KEY."
        )

    shaped = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    shaped = [pair for pair in shaped if pair[0].width > 1 or pair[1].width == 1]
    if len(shaped) == 1:
        ((some_x, some_y),) = shaped
        return SourceError(
            f"{path}: only the shapes say that {short_key(some_x.key)} {some_x.shape} could be the features of "
            f"{short_key(some_y.key)} {some_y.shape}, and row numbers, ids, times or masks have that shape too. It "
            f"holds: {describe(entries)}. Pass --x KEY --y KEY."
        )

    return _question(path, entries, "more than one reading as" if shaped else "no")


def _question(path: Path, entries: dict[str, Entry], found: str) -> SourceError:
    return SourceError(f"{path} has {found} features and targets; it holds: {describe(entries)}. Pass --x KEY --y KEY.")


def is_data(key: str, entry: Entry) -> bool:
    """Whether a key may be taken without being named: no test rows, weights, labels of rows, parameters of a layer."""
    return not entry.role and not is_test(key) and last_part(key) not in WEIGHT_NAMES | LAYER_NAMES


def last_part(key: str) -> str:
    """Return the last part of a path of groups, in lower case."""
    return key.replace(".", "/").rsplit("/", 1)[-1].lower()


def _misfit(path: Path, entries: dict[str, Entry], x: Table, y: Table) -> str | None:
    """Why two tables do not fit; a table of another file, which the user named, is checked when it is opened."""
    x_entry, y_entry = (
        entries[table.key] if table.path == path and table.key in entries else Entry(table.shape, "", numeric=True)
        for table in (x, y)
    )
    reason = misfit(x.key or str(x.path), x_entry, y.key or str(y.path), y_entry, keys=bool(x.key and y.key))
    return reason and (_missing_files(x, y) or reason)


def _missing_files(x: Table, y: Table) -> str | None:
    """Say which of the numbered files of two tables are missing; None where none is."""
    x_files, y_files = files_of(x.path), files_of(y.path)
    missing = missing_beside(x_files, y_files) + missing_beside(y_files, x_files)
    if not missing or x.shape[:-1] in (y.shape, y.shape[:-1]):
        return None
    shown = ", ".join(map(printable, missing[:4])) + (", ..." if len(missing) > 4 else "")
    are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
    return (
        f"the rows of {_files_name(x)} {x.shape} and {_files_name(y)} {y.shape} do not match, and by the numbers of "
        f"the files {shown} {are} missing; bring {them} back, or leave out the files that belong to {them}"
    )


def _files_name(table: Table) -> str:
    return printable(table.spec.replace(BETWEEN_FILES, ", "))


def _only_reason(free: list[Table], pairs: list[tuple[Table, Table]], reasons: list[str | None]) -> str | None:
    """Why the only two tables that could be the features and the targets are not; None where there are more."""
    if len(pairs) == 1:
        return reasons[0]
    if len(free) != 2 or len(pairs) != 2:
        return None
    # Of two tables without telling names the wider one would be the features.
    return reasons[0 if len(pairs[0][0].shape) >= len(pairs[0][1].shape) else 1]
