"""What the names of tables say: features or targets, train or test, sample weights."""

from __future__ import annotations

import re

__all__ = ["INDEX_COLUMNS", "LAYER_NAMES", "TARGET_COLUMNS", "WEIGHT_NAMES", "is_test", "pair_rank", "stem"]

# The words that tell the features from the targets. Both keys may hold other words, but the same ones.
PAIRS: tuple[tuple[frozenset[str], frozenset[str]], ...] = tuple(
    (frozenset(x.split()), frozenset(y.split()))
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
# What nn.Linear calls its parameters: a state_dict holds no data.
LAYER_NAMES = frozenset({"weight", "bias"})
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


def pair_rank(x: str, y: str, *, x_given: bool = False, y_given: bool = False) -> tuple[int, int] | None:
    """Rank how well two keys read as features and targets; lower is better, None is not at all.

    Best is a pair of words with nothing else, then one with the same other words on both sides, then a word
    on one side where the user gave the other.

    Example:
        >>> pair_rank("X_train", "y_train"), pair_rank("probe/X", "probe/y"), pair_rank("y", "X")
        ((0, 0), (0, 1), None)
    """
    ranks = []
    for x_words, y_words in PAIRS:
        x_other, y_other = _other_words(x, x_words), _other_words(y, y_words)
        if x_other is not None and x_other == y_other:
            ranks.append((0, len(x_other)))
        elif (x_given and y_other == ()) or (y_given and x_other == ()):
            ranks.append((1, 0))
    return min(ranks, default=None)


def _other_words(key: str, known: frozenset[str]) -> tuple[str, ...] | None:
    """Return the words of a key besides ``known``, or None where it has none of these."""
    all_words = stem(key)
    other = tuple(word for word in all_words if word not in known)
    return other if len(other) < len(all_words) else None
