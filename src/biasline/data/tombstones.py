"""Tombstones: hashes of rows that were erased, by which they are known if they come back."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from biasline.errors import BiaslineError, shown
from biasline.layout import write_text

_HEAD = "# Rows that were erased, as hashes of their content; a row of this content is refused. Salt: "
_HASH = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Tombstones:
    """Hashes of content keys (see `split.content_key`).

    Attributes:
        salt: of the hashes: a list of common texts, hashed once, finds nothing in two files.
        hashes: of what was erased.
    """

    salt: str
    hashes: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path) -> "Tombstones":
        """Those of a file; none, with a salt of their own, where there is no file.

        Raises:
            BiaslineError: for a file that was changed by hand.
        """
        if not path.is_file():
            return cls(secrets.token_hex(16))
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        hashes = [line.strip() for line in lines if line.strip()]
        if not head.startswith(_HEAD) or not all(map(_HASH.fullmatch, hashes)):
            raise BiaslineError(
                f"{shown(path)}: no file of erased rows", "restore it from git; of a merge, both sides' hashes stay"
            )
        return cls(head.removeprefix(_HEAD), frozenset(hashes))

    def hash(self, key: str) -> str:
        """Of a content key."""
        return hashlib.sha256(f"{self.salt}\x1f{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def has(self, key: str) -> bool:
        """Whether a row of this key was erased."""
        return bool(self.hashes) and self.hash(key) in self.hashes

    def write(self, path: Path, more: Iterable[str]) -> "Tombstones":
        """Add hashes to a file."""
        found = Tombstones(self.salt, self.hashes | frozenset(more))
        write_text(path, "\n".join([_HEAD + found.salt, *sorted(found.hashes)]) + "\n")
        return found
