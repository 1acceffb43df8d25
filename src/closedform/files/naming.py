"""What the names of tables say: features or targets, train or test, sample weights."""

from __future__ import annotations

import re

__all__ = [
    "INDEX_COLUMNS",
    "LAYER_NAMES",
    "TARGET_COLUMNS",
    "WEIGHT_NAMES",
    "is_label",
    "is_test",
    "names_target",
    "other_words",
    "stem",
]


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The words that tell the features from the targets. Both keys may hold other words, but the same ones.
PAIRS: tuple[tuple[frozenset[str], frozenset[str]], ...] = tuple(
    (_word_set(x), _word_set(y))
    for x, y in (
        ("kernel kernels", "vector vectors"),
        ("x", "y"),
        ("a", "b"),
        ("feature features", "target targets label labels"),
        ("embedding embeddings", "target targets label labels"),
        ("data", "target targets label labels"),
        ("input inputs", "output outputs target targets label labels"),
    )
)
KNOWN_WORDS = frozenset().union(*(x | y for x, y in PAIRS))
TRAIN_WORDS = frozenset({"train", "training"})
TEST_WORDS = frozenset({"test", "testing"})
TARGET_COLUMNS = frozenset({"y", "target", "targets", "label", "labels"})
WEIGHT_NAMES = frozenset({"sample_weight", "sample_weights"})
# What layers call their parameters: a state_dict holds no data. Those of TensorFlow end in ":0".
LAYER_NAMES = _word_set(
    "weight bias kernel:0 bias:0 gamma:0 beta:0 moving_mean:0 moving_variance:0 embeddings:0 recurrent_kernel:0 "
    "depthwise_kernel:0 running_mean running_var num_batches_tracked weight_g weight_v in_proj_weight "
    "in_proj_bias weight_ih_l0 weight_hh_l0 bias_ih_l0 bias_hh_l0 lora_a lora_b"
)
# What labels or describes the rows and is never a target, unless the user says so.
LABEL_WORDS = _word_set(
    "id ids uid uids index indexes indices idx idxs row rows time times timestamp timestamps date dates length "
    "lengths len lens mask masks fold folds split splits name names offset offsets"
)
# Row numbers that pandas writes beside the data; they are not features.
INDEX_COLUMNS = frozenset({"", "Unnamed: 0", "__index_level_0__"})


def words(key: str) -> tuple[str, ...]:
    """Split a key into lower-case words; ``Xtest`` is two words because ``x`` is one we know.

    Example:
        >>> words("kernels/train_kernel"), words("Xtest"), words("latest")
        (('kernels', 'train', 'kernel'), ('x', 'test'), ('latest',))
    """
    found: list[str] = []
    for word in re.split(r"[/_\-.\s]+", key.lower()):
        prefixed = re.fullmatch("(train|test)(.+)", word)
        suffixed = re.fullmatch("(.+)(train|test)", word)
        if prefixed and prefixed[2] in KNOWN_WORDS:
            found += prefixed.groups()
        elif suffixed and suffixed[1] in KNOWN_WORDS:
            found += suffixed.groups()
        elif word:
            found.append(word)
    return tuple(found)


def is_test(key: str) -> bool:
    """Return whether a key names test rows."""
    return not TEST_WORDS.isdisjoint(words(key))


def stem(key: str) -> tuple[str, ...]:
    """Return the words of a key less train and test: the same for a table and its test counterpart.

    Example:
        >>> stem("X_train") == stem("test/X")
        True
    """
    return tuple(word for word in words(key) if word not in TRAIN_WORDS | TEST_WORDS)


def is_label(key: str) -> bool:
    """Return whether a key names what labels or describes rows (ids, times, lengths, masks) and is no target.

    Example:
        >>> is_label("image_ids"), is_label("time"), is_label("time/X")
        (True, True, False)
    """
    return not LABEL_WORDS.isdisjoint(words(key.rsplit("/", 1)[-1]))


def names_target(key: str) -> bool:
    """Return whether a key says by itself that it is the target: ``y``, ``labels``, ``train/target``.

    Example:
        >>> names_target("y_train"), names_target("label_ids"), names_target("b")
        (True, False, False)
    """
    last = stem(key.rsplit("/", 1)[-1])
    return bool(last) and TARGET_COLUMNS.issuperset(last)


def other_words(key: str) -> tuple[list[tuple[int, tuple[str, ...]]], list[tuple[int, tuple[str, ...]]]]:
    """Return how a key reads as features, and how as targets: the pair of words, and its words besides that pair's.

    Two keys belong together where they read by one pair of words and have the same other words.

    Example:
        >>> other_words("probe/X"), other_words("noise")
        (([(1, ('probe',))], []), ([], []))
    """
    all_words = stem(key)
    sides: tuple[list[tuple[int, tuple[str, ...]]], ...] = ([], [])
    for number, pair in enumerate(PAIRS):
        for readings, known in zip(sides, pair, strict=True):
            other = tuple(word for word in all_words if word not in known)
            if len(other) < len(all_words):
                readings.append((number, other))
    return sides[0], sides[1]
