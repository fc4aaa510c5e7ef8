"""Easy data augmentation (Wei and Zou, 2019): a few words of a text swapped, deleted, replaced or put in.

Chinese is segmented by jieba. What is not a word stays where it is: spaces, marks, line breaks. Words with digits and
negations are never touched: without them a text would say something else, and its label or answer would be wrong.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from biasline.errors import BiaslineError, shown

Synonyms = Mapping[str, Sequence[str]]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[{_HAN}]+|(?:(?![{_HAN}])\w)+(?:['’-](?:(?![{_HAN}])\w)+)*|\s+|.", re.DOTALL)
_IS_HAN = re.compile(rf"[{_HAN}]")
_NOT = "not no never nor neither none nothing nobody nowhere without hardly barely cannot don't doesn't didn't isn't "
_NOT += "aren't wasn't weren't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't "
_NOT += "ain't needn't mustn't cant dont doesnt didnt isnt wont"
_NEGATIONS = frozenset(_NOT.split())
_HAN_NEGATION = re.compile("[不没无非未别莫勿毫]")
# Fewer words than that leave nothing to change.
_FEWEST = 3


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Word → its synonyms, from a text file: words that may stand for one another in one line, with commas between.

    Raises:
        BiaslineError: where the file is not UTF-8 or has a line of fewer than two words.
    """
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BiaslineError(f"{shown(path)}: cannot be read: {error}", "a UTF-8 text file was expected") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        group = list(dict.fromkeys(word.strip() for word in re.split("[,，\t]", line) if word.strip()))
        if len({word.lower() for word in group}) < 2:
            raise BiaslineError(
                f"{shown(path)}: line {number}: two different words at least were expected, got {line.strip()[:40]!r}",
                "write words that may stand for one another in one line, with commas between",
            )
        for word in group:
            known = found.setdefault(word.lower(), [])
            known += [other for other in group if other.lower() != word.lower() and other not in known]
    return found


def segment(text: str) -> list[str]:
    """Words and what stands between them; joined, they are the text again."""
    found: list[str] = []
    for piece in _PIECE.findall(text):
        if _IS_HAN.match(piece):
            import rjieba

            found += rjieba.cut(piece)
        else:
            found.append(piece)
    return found


def changed(
    text: str, share: float, operations: Sequence[str], synonyms: Synonyms, chance: random.Random
) -> str | None:
    """The text with `share` of its words (one at least) changed by one of the operations; None where none applies.

    Args:
        text: the text.
        share: of its words.
        operations: some of `OPERATIONS`; tried in an order that chance deals.
        synonyms: see `read_synonyms`.
        chance: what deals operations, places and words.
    """
    pieces = segment(text)
    words = [place for place, piece in enumerate(pieces) if piece[0].isalnum()]
    free = [place for place in words if _may_change(pieces[place])]
    if len(words) < _FEWEST or not free:
        return None
    count = max(1, round(share * len(words)))
    for name in chance.sample(list(operations), len(operations)):
        found = "".join(_OPERATIONS[name](pieces.copy(), free, count, synonyms, chance))
        if found != text and found.strip():
            return found
    return None


def _may_change(word: str) -> bool:
    plain = word.lower().replace("’", "'")
    negates = plain in _NEGATIONS or plain.endswith("n't") or _HAN_NEGATION.search(plain)
    return not negates and not any(char.isdigit() for char in word)


def _swap(pieces: list[str], free: list[int], count: int, _: Synonyms, chance: random.Random) -> list[str]:
    for _time in range(count if len(free) > 1 else 0):
        one, other = chance.sample(free, 2)
        pieces[one], pieces[other] = pieces[other], pieces[one]
    return pieces


def _delete(pieces: list[str], free: list[int], count: int, _: Synonyms, chance: random.Random) -> list[str]:
    for place in chance.sample(free, min(count, len(free) - 1)):
        pieces[place] = ""
        # One of the two spaces around it goes along.
        if place + 1 < len(pieces) and pieces[place + 1].isspace():
            pieces[place + 1] = ""
    return pieces


def _replace(pieces: list[str], free: list[int], count: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    known = [place for place in free if pieces[place].lower() in synonyms]
    for place in chance.sample(known, min(count, len(known))):
        pieces[place] = _synonym(pieces[place], synonyms, chance)
    return pieces


def _insert(pieces: list[str], free: list[int], count: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    known = [place for place in free if pieces[place].lower() in synonyms]
    new = [
        (chance.choice(free), _synonym(pieces[chance.choice(known)].lower(), synonyms, chance)) for _ in known[:count]
    ]
    for place, word in new:
        pieces[place] = f"{word}{'' if _IS_HAN.match(word) else ' '}{pieces[place]}"
    return pieces


def _synonym(word: str, synonyms: Synonyms, chance: random.Random) -> str:
    found = chance.choice(list(synonyms[word.lower()]))
    return found[0].upper() + found[1:] if word[0].isupper() else found


_OPERATIONS: dict[str, Callable[[list[str], list[int], int, Synonyms, random.Random], list[str]]]
_OPERATIONS = {"swap": _swap, "delete": _delete, "replace": _replace, "insert": _insert}
OPERATIONS = tuple(_OPERATIONS)
# Those that need synonyms.
SYNONYMOUS = ("replace", "insert")
