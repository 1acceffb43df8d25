"""A cache of rates may hold anything: no solve breaks on it, and none waits for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import closedform as cf
from closedform.engine import rates
from closedform.words.errors import InputError

CPU = torch.device("cpu")
GOOD = asdict(rates.DEFAULT)


def written(**changes: object) -> bytes:
    return json.dumps({**GOOD, "measurements": 1, **changes}).encode()


DAMAGED = {
    "nothing": b"",
    "random bytes": bytes(range(256)),
    "half a record": written()[:60],
    "not UTF-8": written(source="\u00e9").replace(b"\\u00e9", b"\xe9"),
    "a list": b"[1, 2]",
    "a number": b"17",
    "null": b"null",
    "nested beyond the stack": b"[" * 8000,
    "an integer beyond doubles": written(memory=10**400),
    "an integer beyond json": b'{"memory": ' + b"9" * 5000 + b"}",
    "an infinite speed": written(memory=float("inf")),
    "not a number": written(memory=float("nan")),
    "a negative speed": written(gram64=-1.0),
    "a speed of true": written(gram64=True),
    "speeds in words": written(qr64="fast"),
    "speeds of null": written(qr64=None),
    "a list for a source": written(source=[]),
    "an escape sequence in the source": written(source="\x1b[2J"),
    "half a character in the source": written(source="\ud800"),
    "measurements in words": written(measurements="three"),
    "a list of measurements": written(measurements=[]),
    "infinitely many measurements": written(measurements=float("inf")),
    "no measurement": written(measurements=0),
    "fewer than none": written(measurements=-5),
    "a field less": json.dumps({name: value for name, value in GOOD.items() if name != "lu64"}).encode(),
    "more than it can take": written(source=" " * 2**20),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(rates.VARIABLE)
    monkeypatch.setattr(rates, "_measured_here", {})
    monkeypatch.setattr(rates, "cache_file", lambda device: str(tmp_path / "rates.json"))
    monkeypatch.setattr(rates, "measure", lambda device: replace(rates.DEFAULT, source="measured now"))
    return tmp_path / "rates.json"


def solved() -> cf.Solution:
    X = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return cf.solve(X, X[:, 0])


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_cache_is_no_cache(content: bytes, place: Path) -> None:
    place.write_bytes(content)
    assert rates.known_rates(CPU) == rates.DEFAULT
    assert "usual speeds" in str(solved().plan)
    assert rates.measured_rates(CPU).source == "measured now"
    assert json.loads(place.read_text())["source"] == "measured now"
    assert rates.known_rates(CPU).source == "measured now"


def make_folder(place: Path) -> None:
    (place / "inside").mkdir(parents=True)


def make_link_to_itself(place: Path) -> None:
    place.symlink_to(place)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize(
    "make",
    [
        make_folder,
        make_link_to_itself,
        pytest.param(lambda place: os.mkfifo(place), id="pipe"),
        pytest.param(lambda place: place.symlink_to("/dev/zero"), id="endless device"),
    ],
)
def test_what_is_no_file_is_no_cache(make: Callable[[Path], None], place: Path) -> None:
    make(place)
    assert rates.known_rates(CPU) == rates.DEFAULT
    assert solved().certificate.accepted
    assert rates.measured_rates(CPU).source == "measured now"
    assert [path.name for path in place.parent.iterdir()] == ["rates.json"]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_given_rates_that_are_damaged_are_an_error(
    content: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_bytes(content)
    monkeypatch.setenv(rates.VARIABLE, str(place))
    for ask in (solved, lambda: rates.measured_rates(CPU)):
        with pytest.raises(InputError, match="does not hold the rates gram16, gram32"):
            ask()


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes of that kind there")
def test_a_pipe_that_is_given_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(place)
    monkeypatch.setenv(rates.VARIABLE, str(place))
    with pytest.raises(InputError, match="not a regular file"):
        solved()
