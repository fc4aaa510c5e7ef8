"""JSON objects from text that arrives in blocks: an array of them, or one after the other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biasline.errors import BiaslineError, shown

Record = dict[str, Any]


class JsonObjects:
    """JSON objects from text that arrives in blocks: those of an array, or one after the other as JSON Lines has them.

    At most one block and one object are held at a time.
    """

    def __init__(self, path: Path, buffer: str, blocks: Iterator[str]) -> None:
        self._path, self._buffer, self._blocks = path, buffer, blocks
        self._position = 0
        self._line, self._column = 1, 1  # of the buffer's beginning
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[Record]:
        self._more()
        in_array = self._buffer[self._position] == "["
        self._position += in_array
        number = 0
        while self._more():
            if in_array and number == 0 and self._buffer[self._position] == "]":
                return
            number += 1
            yield self._object(number)
            if in_array and self._array_ends():
                return
        if in_array:
            raise self._broken("the array does not end", self._position)

    def _array_ends(self) -> bool:
        """Step over the comma behind an item; True at the array's end."""
        if not self._more():
            return False
        mark = self._buffer[self._position]
        if mark not in ",]":
            raise self._broken("expecting ',' delimiter", self._position)
        self._position += 1
        if mark == ",":
            return False
        if self._more():
            raise self._broken("extra data", self._position)
        return True

    def _object(self, number: int) -> Record:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
                break
            except json.JSONDecodeError as error:
                # Cut off by the end of the block, or wrong as it stands?
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._buffer) - 16
                if not (cut and self._load()):
                    raise self._broken(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise BiaslineError(
                    f"{shown(self._path)}: JSON that cannot be read: {error}", "mend or re-export the file"
                ) from None
        if not isinstance(value, dict):
            line, _ = self._place(self._position)
            raise BiaslineError(
                f"{shown(self._path)}: item {number} (line {line}) is {json.dumps(value)[:40]}; an object was expected"
            )
        self._position = end
        return value

    def _more(self) -> bool:
        """Step over white space; False at the end of the text."""
        while True:
            while self._position < len(self._buffer):
                if not self._buffer[self._position].isspace():
                    return True
                self._position += 1
            if not self._load():
                return False

    def _load(self) -> bool:
        """Drop what is done with and take another block."""
        block = next(self._blocks, None)
        if block is None:
            return False
        self._line, self._column = self._place(self._position)
        self._buffer, self._position = self._buffer[self._position :] + block, 0
        return True

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a position in the buffer, from 1 on."""
        before = self._buffer[:position]
        lines = before.count("\n")
        return self._line + lines, position - before.rfind("\n") if lines else self._column + position

    def _broken(self, told: str, position: int) -> BiaslineError:
        line, column = self._place(position)
        return BiaslineError(
            f"{shown(self._path)}: broken JSON at line {line}, column {column}: {told}",
            "mend or re-export the file; no row of it was used",
        )
