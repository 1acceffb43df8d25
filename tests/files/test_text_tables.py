"""Text as programs and spreadsheets write it: the numbers of the file, a question, or a refusal."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest

import closedform as cf
from closedform.files.discovery import discover
from closedform.files.opening import open_source
from closedform.words.errors import DataTypeError, InputError, SourceError

VALUES = np.array([[0.5, 1.5, 3.0], [2.0, 1.25, 4.0], [5.0, -5.5, 9.0]])
TEXTS = {
    "comma": "a,b,y\n0.5,1.5,3\n2.0,1.25,4\n5.0,-5.5,9\n",
    "semicolon": "a;b;y\n0.5;1.5;3\n2.0;1.25;4\n5.0;-5.5;9\n",
    "decimal comma": "a;b;y\n0,5;1,5;3\n2,0;1,25;4\n5,0;-5,5;9\n",
    "tab": "a\tb\ty\n0.5\t1.5\t3\n2.0\t1.25\t4\n5.0\t-5.5\t9\n",
    "tab and decimal comma": "a\tb\ty\n0,5\t1,5\t3\n2,0\t1,25\t4\n5,0\t-5,5\t9\n",
    "bar": "a|b|y\n0.5|1.5|3\n2.0|1.25|4\n5.0|-5.5|9\n",
    "blanks": "a   b y\n0.5  1.5    3\n  2.0 1.25 4\n5.0 -5.5  9\n",
    "blanks after commas": "a, b, y\n0.5, 1.5, 3\n2.0, 1.25, 4\n5.0, -5.5, 9\n",
    "quoted after blanks": '"a", "b", "y"\n0.5, 1.5, 3\n2.0, 1.25, 4\n5.0, -5.5, 9\n',
    "comments": "# measured 2024, by me\n#\na,b,y\n0.5,1.5,3\n# half time\n2.0,1.25,4\n5.0,-5.5,9\n# end\n",
    "named by a comment": "# a b y\n0.5 1.5 3\n2.0 1.25 4\n5.0 -5.5 9\n",
    "carriage returns": "a,b,y\r\n0.5,1.5,3\r\n2.0,1.25,4\r\n5.0,-5.5,9\r\n",
    "no last line break": "a,b,y\n0.5,1.5,3\n2.0,1.25,4\n5.0,-5.5,9",
    "declared": "sep=;\na;b;y\n0,5;1,5;3\n2,0;1,25;4\n5,0;-5,5;9\n",
    "exponents": "a;b;y\n5e-1;15e-1;3\n2;1,25e0;4\n5;-5,5;9\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", TEXTS)
def test_every_way_of_writing_gives_the_same_numbers(tmp_path: Path, kind: str, encoding: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(TEXTS[kind].encode(encoding))
    found = discover(path)
    assert (found.x, found.y) == (f"{path}::a,b", f"{path}::y")
    np.testing.assert_array_equal(open_source(path).read(0, 3).numpy(), VALUES)
    assert open_source(path).columns == ("a", "b", "y")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("kind", ["comma", "comments", "decimal comma"])
def test_packed_text(tmp_path: Path, kind: str, suffix: str, pack: object) -> None:
    path = tmp_path / f"data.csv{suffix}"
    path.write_bytes(pack(TEXTS[kind].encode()))  # type: ignore[operator]
    np.testing.assert_array_equal(open_source(path).read(0, 3).numpy(), VALUES)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match="could not be read as CSV"):
        open_source(path)


def test_text_that_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1_000_000))
    assert path.stat().st_size < 10_000
    from closedform.files.csv_files import CsvFormat

    with pytest.raises(SourceError, match="over the memory share"):
        CsvFormat().open(path, "", 100_000)


@pytest.mark.parametrize("name", ["data.txt", "data.dat", "data"])
def test_text_of_an_unknown_ending_is_a_table_if_it_looks_like_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(TEXTS["blanks"])
    np.testing.assert_array_equal(open_source(path).read(0, 3).numpy(), VALUES)
    path.write_text("Dear all,\n\nplease find the numbers attached, 3 of them.\n")
    with pytest.raises(SourceError, match="unknown ending"):
        open_source(path)


def test_what_was_sniffed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(TEXTS["decimal comma"])
    notes = " ".join(open_source(path).notes)
    assert "separated by semicolons" in notes
    assert "decimal commas" in notes
    path.write_bytes("größe,y\n1,2\n3,4\n".encode("cp1252"))
    assert "Windows-1252" in " ".join(open_source(path).notes)
    assert open_source(path).columns == ("größe", "y")
    path.write_text(TEXTS["comma"])
    assert open_source(path).notes == ()


def test_commas_that_may_part_thousands_are_a_question(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("a\ty\n1,234\t2\n5,678\t3\n")
    with pytest.raises(SourceError, match="decimal comma or a comma between thousands"):
        open_source(path)
    path.write_text("a\ty\n1,234\t2\n0,5\t3\n")
    np.testing.assert_array_equal(open_source(path).read(0, 2).numpy(), [[1.234, 2], [0.5, 3]])


@pytest.mark.parametrize("text", ["a;y\n1,5;2\n1.5;3\n", "a;y\n1.234,5;2\n1,5;3\n"])
def test_two_decimal_marks_in_one_file_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(DataTypeError, match="column 'a'"):
        open_source(path)


def test_line_breaks_and_commas_in_names(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('"height\n(cm)","a, b","say ""x""",y\n1,2,3,4\n5,6,7,8\n')
    found = discover(path)
    np.testing.assert_array_equal(open_source(found.x).read(0, 2).numpy(), [[1, 2, 3], [5, 6, 7]])
    assert open_source(found.x).columns == ("height (cm)", "a, b", 'say "x"')
    assert "\n" not in found.sentence
    with pytest.raises(InputError, match=r"Did you mean height \(cm\)"):
        discover(path, x="height(cm)")


def test_a_target_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(TEXTS["comma"].replace("y", "c"))
    for y in ("-1", "2", "c"):
        found = discover(path, y=y)
        np.testing.assert_array_equal(open_source(found.x).read(0, 3).numpy(), VALUES[:, :2])
        np.testing.assert_array_equal(open_source(found.y).read(0, 3).numpy(), VALUES[:, 2:])
    # A name comes before a number.
    path.write_text("2,b,a\n4,5,6\n7,8,9\n")
    np.testing.assert_array_equal(open_source(discover(path, y="2").y).read(0, 1).numpy(), [[4]])
    # A column named with its file is taken all the same.
    for y in (f"{path}::a", f"{tmp_path}/../{tmp_path.name}/data.csv::a"):
        np.testing.assert_array_equal(open_source(discover(path, y=y).x).read(0, 1).numpy(), [[4, 5]])
    with pytest.raises(InputError, match="no column 7 in a table of 3 columns"):
        discover(path, y="7")


@pytest.mark.parametrize(
    "text", ["Rows of May\n" + TEXTS["comma"], "% by me\n" + TEXTS["comma"], TEXTS["comma"] + "7,1,2,3\n"]
)
def test_lines_that_are_no_rows_are_told_from_damage(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match="Its lines do not all have the same columns: take titles, units, sums and"):
        open_source(path)


def test_a_text_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[object] = []
    read_csv = pyarrow.csv.read_csv
    monkeypatch.setattr(
        pyarrow.csv, "read_csv", lambda *given, **options: parsed.append(given) or read_csv(*given, **options)
    )
    table, labels = tmp_path / "table.csv", tmp_path / "labels.csv"
    rows = np.c_[np.random.default_rng(0).standard_normal((60, 2)), np.arange(60) % 3]
    table.write_text("a,b,kind\n" + "\n".join(f"{a},{b},{kind:.0f}" for a, b, kind in rows))
    labels.write_text("kind\n" + "\n".join(f"{kind:.0f}" for kind in rows[:, 2]))
    reads: list[tuple[Callable[[], Any], int]] = [
        (lambda: cf.probe(table, "kind"), 1),
        (lambda: cf.probe(rows[:, :2], labels), 1),
        (lambda: cf.probe(table, "kind", test_features=table, test_labels="kind"), 1),
        (lambda: cf.solve(table, "kind"), 1),
        (lambda: (cf.solve(table, "kind"), cf.solve(table, "kind")), 2),
    ]
    for read, times in reads:
        parsed.clear()
        read()
        assert len(parsed) == times


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are texts there")
def test_a_name_that_is_not_utf8_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.csv")
    path.write_text("a,y\n1,2\n3,5\n")
    with pytest.raises(SourceError, match=r"only names that are UTF-8, and this one is not; rename the file"):
        open_source(path)
