"""Which split the name of a file or folder says, by the rule of the Hugging Face hub.

A split word counts where no letters stand beside it: `train`, `banking77_train`, `train-00000-of-00001`, `test2013`.
Beyond the hub's rule the case does not matter, `testSet` and `testset` say test, and Chinese names are known.
"""

import re
from collections.abc import Sequence

from biasline.errors import first_few

# Held-out splits come first: where a name says two splits, its rows are not trained on.
PRECEDENCE = ("test", "valid", "train", None)
# As `datasets.data_files.SPLIT_KEYWORDS` has them, and the Chinese words.
_WORDS = {
    "test": ("testing|test|evaluation|eval|holdout|heldout", "测试"),
    "valid": ("validation|valid|val|dev", "验证|开发"),
    "train": ("training|train", "训练"),
}
_LETTER = "[A-Za-z\u00c0-\u024f]"
_PATTERNS = {
    split: re.compile(rf"(?<!{_LETTER})(?:{words})(?:set|data)?(?!{_LETTER})|(?:{chinese})集", re.IGNORECASE)
    for split, (words, chinese) in _WORDS.items()
}
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
LISTED = 10


def splits_in(name: str) -> list[str]:
    """The splits that a name says, held-out ones first."""
    spaced = _HUMP.sub("_", name)
    return [split for split, pattern in _PATTERNS.items() if pattern.search(spaced)]


def named_splits(parts: Sequence[str]) -> list[str]:
    """The splits that a path says, the deciding one first.

    Args:
        parts: names of the folders and of the file, without its suffixes. The file's own name decides before the
            nearest folder, that before the next.
    """
    return list(dict.fromkeys(split for part in reversed(parts) for split in splits_in(part)))


def dealt_by_names(names: Sequence[str], said: Sequence[Sequence[str]]) -> tuple[list[str | None], list[str]]:
    """The split of each file of a task, and what a person should know about it.

    Where no file is a test file, the validation files are the test, as the public part of GLUE has it.

    Args:
        names: of the files, as a person knows them.
        said: the splits that each says, the deciding one first (see `named_splits`).

    Returns:
        A split or None for each file, and notes.
    """
    splits: list[str | None] = [found[0] if found else None for found in said]
    notes = [
        f"{name} names more than one split ({', '.join(found)}); its rows are taken as {found[0]}"
        for name, found in zip(names, said, strict=True)
        if len(found) > 1
    ]
    as_test = "valid" in splits and "test" not in splits
    if as_test:
        splits = ["test" if split == "valid" else split for split in splits]
    if len(names) > 1:
        notes.insert(0, _which_is_what(names, splits, as_test))
    return splits, notes


def _which_is_what(names: Sequence[str], splits: Sequence[str | None], as_test: bool) -> str:
    by_split = {split: [name for name, its in zip(names, splits, strict=True) if its == split] for split in PRECEDENCE}
    if len(by_split[None]) == len(names):
        return f"no name of the {len(names)} files says a split: all of their rows are dealt by their content"
    told = [
        f"{split} from {first_few(found, LISTED)}" + (" (no name says test)" if split == "test" and as_test else "")
        for split, found in by_split.items()
        if split and found
    ]
    if by_split[None]:
        told.append(f"taken as training rows, since the name says no split: {first_few(by_split[None], LISTED)}")
    return "splits by the names of files: " + "; ".join(told)
