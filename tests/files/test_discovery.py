"""Which tables of a file are features and targets: by name, by shape, and never by guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from closedform.files.discovery import discover
from closedform.files.opening import open_source
from closedform.files.specs import join_files
from closedform.words.errors import SourceError


def save(path: Path, **shapes: tuple[int, ...]) -> Path:
    """Write one array of each shape; ``__`` in a name stands for a slash."""
    arrays = {name.replace("__", "/"): np.ones(shape) for name, shape in shapes.items()}
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    else:
        np.savez(path, **arrays)
    return path


def keys(path: Path, **given: str) -> tuple[str | None, ...]:
    found = discover(path, **given)
    specs = (found.x, found.y, found.x_test, found.y_test, found.weight)
    return tuple(spec.removeprefix(f"{path}::") if spec else None for spec in specs)


@pytest.mark.parametrize(
    ("x", "y", "x_test", "y_test"),
    [
        ("kernels/train_kernel", "vectors/train_vector", "kernels/test_kernel", "vectors/test_vector"),
        ("X", "y", None, None),
        ("x", "Y", None, None),
        ("X_train", "y_train", "X_test", "y_test"),
        ("Xtrain", "Ytrain", "Xtest", "Ytest"),
        ("X", "y", "X_test", "y_test"),
        ("train/x", "train/y", "test/x", "test/y"),
        ("features", "targets", None, None),
        ("train_features", "train_labels", "test_features", "test_labels"),
        ("Data", "Target", None, None),
        ("A", "b", None, None),
        ("inputs", "outputs", None, None),
        ("embeddings", "labels", None, None),
        ("probe/layer3/X", "probe/layer3/y", None, None),
    ],
)
def test_by_name(tmp_path: Path, x: str, y: str, x_test: str | None, y_test: str | None) -> None:
    shapes = {x: (9, 4), y: (9,), "other": (9, 9), "more": (9,), "latest": (4, 4)}
    if x_test and y_test:
        shapes |= {x_test: (5, 4), y_test: (5,)}
    path = save(tmp_path / "data.h5", **shapes)
    assert keys(path) == (x, y, x_test, y_test, None)
    sentence = discover(path).sentence
    assert sentence.startswith(f"By name: X = {x} (9, 4), Y = {y} (9,); ")
    assert (f"X = {x_test} (5, 4)" if x_test else "no test rows") in sentence


def test_a_plain_pair_comes_before_one_in_a_group(tmp_path: Path) -> None:
    path = save(tmp_path / "data.h5", X=(9, 4), y=(9,), extra__X=(9, 4), extra__y=(9,))
    assert keys(path)[:2] == ("X", "y")


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"one": (9, 4), "two": (9,)}, ("one", "two")),
        ({"one": (9, 4), "two": (9, 1)}, ("one", "two")),
        ({"one": (9, 4), "two": (9,), "three": (7,), "four": (3, 2)}, ("one", "two")),
        ({"one": (2, 9, 4), "two": (2, 9)}, ("one", "two")),
    ],
)
def test_a_shape_alone_is_a_question(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], expected: tuple[str, str]
) -> None:
    """Row numbers, ids, times and masks have the shape of a target, so no shape is taken for one."""
    path = save(tmp_path / "data.npz", **shapes)
    with pytest.raises(SourceError, match=r"only the shapes say that one .*Pass --x KEY --y KEY") as caught:
        discover(path)
    for name, shape in shapes.items():
        assert f"{name} {shape} float64" in str(caught.value)
    # Where the user names the target, the one table that fits is the features.
    assert keys(path, y=expected[1])[:2] == expected
    assert discover(path, y=expected[1]).sentence.startswith("By shape: ")
    with pytest.raises(SourceError, match="Pass --x KEY --y KEY"):
        discover(path, x=expected[0])


@pytest.mark.parametrize("name", ["y", "labels", "target", "train_y", "run/labels"])
def test_features_are_found_by_shape_beside_a_named_target(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "data.h5", **{"measured": (9, 4), name: (9,), "more": (7, 4), "sample_mask": (9, 4)})
    assert keys(path)[:2] == ("measured", name)
    assert discover(path).sentence.startswith("By name and shape: ")


@pytest.mark.parametrize(
    "name",
    [
        *("image_ids", "index", "idx", "time", "timestamps", "row", "lengths", "mask", "y_mask", "label_ids"),
        *("target_lengths", "y_index", "fold", "clusters", "foo", "sample_no"),
    ],
)
@pytest.mark.parametrize("features", ["features", "X", "embeddings", "data", "foo_matrix"])
def test_what_labels_rows_is_never_the_target(tmp_path: Path, features: str, name: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **{features: np.random.default_rng(0).standard_normal((9, 4)), name: np.arange(9)})
    with pytest.raises(SourceError, match="Pass --x KEY --y KEY"):
        discover(path)
    with pytest.raises(SourceError, match="Pass --x KEY --y KEY"):
        discover(path, x=features)
    # The user may say so.
    assert keys(path, x=features, y=name)[:2] == (features, name)


@pytest.mark.parametrize(
    "shapes",
    [
        {"one": (9, 4), "two": (9, 4)},
        {"one": (9, 4), "two": (9, 2)},
        {"one": (9, 4), "two": (9,), "three": (9,)},
        {"features": (9, 4), "targets": (9,), "labels": (9,)},
        {"a__X": (9, 4), "a__y": (9,), "b__X": (9, 4), "b__y": (9,)},
        {"X_test": (9, 4), "y_test": (9,)},
    ],
)
def test_no_guess_where_more_than_one_reading_or_none_fits(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    path = save(tmp_path / "data.h5", **shapes)
    with pytest.raises(SourceError, match="Pass --x KEY --y KEY") as caught:
        discover(path)
    for name, shape in shapes.items():
        assert f"{name.replace('__', '/')} {shape} float64" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_given_is_kept_and_narrows_the_rest(tmp_path: Path) -> None:
    path = save(tmp_path / "data.h5", a__X=(9, 4), a__y=(9,), b__X=(9, 3), b__y=(9,), b__test_X=(5, 3), b__test_y=(5,))
    assert keys(path, x="b/X") == ("b/X", "b/y", "b/test_X", "b/test_y", None)
    assert keys(path, y="/a/y") == ("a/X", "a/y", None, None, None)
    assert keys(path, x="b/X", y="a/y")[:2] == ("b/X", "a/y")
    assert discover(path, x="b/X", y="a/y").sentence.startswith("As given: ")
    with pytest.raises(SourceError, match=r"has no data set 'b/Z'\. Did you mean"):
        discover(path, x="b/Z")
    with pytest.raises(SourceError, match="Pass --y-test KEY"):
        discover(path, x="a/X", y="a/y", x_test="b/test_X")


def test_test_rows_that_do_not_belong_are_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", X=(9, 4), y=(9,), X_test=(5, 3), y_test=(5,))
    assert keys(path) == ("X", "y", None, None, None)
    assert "no test rows" in discover(path).sentence


def test_sample_weights_are_found_and_said(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", X=(9, 4), y=(9,), sample_weight=(9,))
    assert keys(path) == ("X", "y", None, None, "sample_weight")
    assert "sample weight = sample_weight (9,)" in discover(path).sentence
    path = save(tmp_path / "short.npz", X=(9, 4), y=(9,), sample_weight=(8,))
    assert keys(path)[4] is None
    path = save(tmp_path / "named.npz", X=(9, 4), y=(9,), w=(9,))
    assert keys(path)[4] is None
    assert keys(path, weight="w") == ("X", "y", None, None, "w")


def test_tables_in_several_files(tmp_path: Path) -> None:
    x, y, x_test, y_test = (tmp_path / f"{name}.npy" for name in ("x", "y", "xt", "yt"))
    for path, shape in ((x, (9, 4)), (y, (9,)), (x_test, (5, 4)), (y_test, (5,))):
        np.save(path, np.ones(shape))
    with pytest.raises(SourceError, match=r"unnamed.*--y FILE"):
        discover(x)
    found = discover(x, y=str(y))
    assert (found.x, found.y, found.x_test) == (str(x), str(y), None)
    found = discover(x, y=str(y), x_test=str(x_test), y_test=str(y_test))
    assert (found.x_test, found.y_test) == (str(x_test), str(y_test))
    kernel = save(tmp_path / "k.h5", kernel=(9, 9), junk=(3, 3))
    found = discover(kernel, y=f"{save(tmp_path / 'v.h5', vector=(9,), w=(2,))}::vector")
    assert (found.x, found.y) == (f"{kernel}::kernel", f"{tmp_path / 'v.h5'}::vector")
    torch.save(torch.ones(9, 4), tmp_path / "bare.pt")
    assert discover(tmp_path / "bare.pt", y=str(y)).x == str(tmp_path / "bare.pt")


def test_a_test_file_is_read_by_the_keys_of_the_training_file(tmp_path: Path) -> None:
    train = save(tmp_path / "train.h5", X=(9, 4), y=(9,))
    test = save(tmp_path / "held.h5", X=(5, 4), y=(5,), z=(5,))
    found = discover(train, x_test=str(test))
    assert (found.x_test, found.y_test) == (f"{test}::X", f"{test}::y")


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(',age,"height, cm",Target\n0,3.5,4,5\n1,6,7,8\n')
    found = discover(path)
    assert found.x == f'{path}::age,"height, cm"'
    assert found.y == f"{path}::Target"
    assert found.sentence.startswith(
        'By name (row numbers left out): X = age,"height, cm" (2, 2), Y = Target (2, 1); no test rows'
    )
    assert open_source(found.x).read(0, 2).tolist() == [[3.5, 4.0], [6.0, 7.0]]
    assert open_source(found.y).read(0, 2).tolist() == [[5], [8]]
    assert keys(path, y="age,Target")[:2] == ('"height, cm"', "age,Target")
    assert keys(path, x="age")[:2] == ("age", "Target")
    with pytest.raises(SourceError, match=r"has no data set 'agee'\. Did you mean age\?"):
        discover(path, x="agee")
    test = tmp_path / "test.csv"
    test.write_text('Target,"height, cm",age\n1,2,3\n')
    found = discover(path, x_test=str(test))
    assert open_source(found.x_test or "").read(0, 1).tolist() == [[3, 2]]
    assert open_source(found.y_test or "").read(0, 1).tolist() == [[1]]


def test_columns_without_one_target(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"no column is named like the target.*a \(1, 1\).*--y COL"):
        discover(path)
    assert keys(path, y="b")[:2] == ("a", "b")
    np.save(tmp_path / "y.npy", np.ones(1))
    assert discover(path, y=str(tmp_path / "y.npy")).x == f"{path}::a,b"
    path.write_text("a,y,label\n1,2,3\n")
    with pytest.raises(SourceError, match="y, label could all be the target"):
        discover(path)
    path.write_text("y\n1\n")
    with pytest.raises(SourceError, match="no column left for the features"):
        discover(path)
    path.write_text("a,y,sample_weight\n1,2,3\n")
    assert keys(path) == ("a", "y", None, None, "sample_weight")


def test_rows_that_do_not_match_are_named_at_once(tmp_path: Path) -> None:
    path = save(tmp_path / "data.h5", X=(9, 4), y=(8,))
    with pytest.raises(SourceError, match=r"the rows of X \(9, 4\) and y \(8,\) do not match"):
        discover(path)


def test_a_single_table_asks_for_the_other_one(tmp_path: Path) -> None:
    path = save(tmp_path / "data.h5", one=(9,))
    with pytest.raises(SourceError, match="Pass the other one with --y"):
        discover(path)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.ones((9, 4), complex), np.ones(9), r"X \(9, 4\) holds complex128 values; split it"),
        (np.full((9, 4), b"a"), np.ones(9), r"X \(9, 4\) holds bytes8 values"),
        (np.ones((9, 4)), np.full(9, "a"), r"y \(9,\) holds str32 values"),
        (np.full((9, 4), None), np.ones(9), r"X \(9, 4\) holds object values"),
        (np.ones((4, 9)), np.ones(9), r"X \(4, 9\) looks transposed beside y \(9,\); save X.T"),
        (np.ones((9, 4)), np.ones((2, 9)), r"y \(2, 9\) looks transposed beside X \(9, 4\); save y.T"),
        (np.ones(9), np.ones(9), r"X has shape \(9,\).*save X.reshape\(-1, 1\)"),
        (np.ones((9, 4)), np.ones(()), r"y is a single number"),
    ],
)
def test_tables_that_do_not_fit_say_why(
    tmp_path: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], reason: str
) -> None:
    path = tmp_path / "data.npz"
    # A third table that would fit by shape does not make up for the one that is called y.
    np.savez(path, X=x, y=y, spare=np.ones((7, 2)))
    with pytest.raises(SourceError, match=reason) as caught:
        discover(path)
    assert "Pass --x" not in str(caught.value)


def test_two_tables_without_telling_names_say_why_they_do_not_fit(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", one=(9, 3), two=(8,))
    with pytest.raises(SourceError, match=r"the rows of one \(9, 3\) and two \(8,\) do not match"):
        discover(path)
    np.save(tmp_path / "c.npy", np.ones((3, 3), complex))
    with pytest.raises(SourceError, match=r"complex128 values, which are not real numbers"):
        discover(tmp_path / "c.npy")
    np.savez(path, X=np.ones((9, 4)))
    with pytest.raises(SourceError, match=r"c\.npy holds .*complex128"):
        discover(path, y=str(tmp_path / "c.npy"))


def test_the_parameters_of_a_layer_are_no_data_unless_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "layer.pt"
    torch.save(torch.nn.Linear(3, 1).state_dict(), path)
    with pytest.raises(SourceError, match="parameters of a layer"):
        discover(path)
    found = discover(path, x="weight", y="bias")
    assert (found.x, found.y) == (f"{path}::weight", f"{path}::bias")
    torch.save({"head.weight": torch.ones(9, 3), "head.bias": torch.ones(9), "X": torch.ones(9, 2), "b": 1}, path)
    with pytest.raises(SourceError, match="Pass the other one with --y"):
        discover(path)


@pytest.mark.parametrize(("x", "y"), [("a::b", "c::d"), ("u/v", "/w"), ("a::b[0:2]", "/w/"), ("u::v", "c::d")])
def test_keys_that_hold_colons_and_slashes(tmp_path: Path, x: str, y: str) -> None:
    path, X, Y = tmp_path / "data.npz", np.arange(12.0).reshape(4, 3), np.arange(4.0)
    np.savez(path, **{"a::b": X, "u/v": X, "u::v": X, "c::d": Y, "/w": Y, "/w/": Y})
    for found in (discover(path, x=x, y=y), discover(path, x=f"{path}::{x}", y=f"{path}::{y}")):
        assert (found.x, found.y) == (f"{path}::{x}", f"{path}::{y}")
        assert open_source(found.x).shape[0] == open_source(found.y).shape[0] == 4
    with pytest.raises(SourceError, match="there is no file e"):
        discover(path, x=x, y="e::f")


@pytest.mark.parametrize(
    ("x", "y", "missing"),
    [((0, 1, 3), (0, 1, 2, 3), "X_2.npy is"), ((0, 1), (0, 1, 2, 3), "X_2.npy, X_3.npy are"), ((1, 2), (2,), "")],
)
def test_a_file_that_is_missing_from_one_of_two_is_named(
    tmp_path: Path, x: tuple[int, ...], y: tuple[int, ...], missing: str
) -> None:
    for number in x:
        np.save(tmp_path / f"X_{number}.npy", np.ones((5, 3)))
    for number in y:
        np.save(tmp_path / f"Y_{number}.npy", np.ones(5))
    wanted = f"by the numbers of the files {missing} missing; bring" if missing else "do not match; save a row"
    with pytest.raises(SourceError, match=wanted):
        discover(tmp_path / "X_*.npy", y=str(tmp_path / "Y_*.npy"))
    files = [str(tmp_path / f"X_{number}.npy") for number in x]
    with pytest.raises(SourceError, match=wanted):
        discover(join_files(files), y=str(tmp_path / "Y_*.npy"))
