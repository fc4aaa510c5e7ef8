"""The deltas of a fleet's tenants: one file each and an index, in a folder or packed into one archive."""

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import IO

from biasline.bitfit.delta import BiasDelta
from biasline.errors import BiaslineError, first_line, shown

INDEX = "index.json"
_NAMED = 5
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that an archive can tell


def file_of(tenant: str) -> str:
    """The name of the file of a tenant's delta: names of tenants may be anything, names of files may not."""
    return f"{hashlib.sha256(tenant.encode()).hexdigest()[:16]}.safetensors"


def alike(name: str, known: Collection[str]) -> str:
    """Asks whether a known tenant was meant, as what a reader can do about a name that is not; empty for no idea."""
    folded = {one.casefold(): one for one in known}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)
    return f"did you mean {folded[near[0]]!r}?" if near else ""


def write_index(folder: Path, own: Collection[str], shared: Collection[str]) -> None:
    """Say whose deltas lie in a folder, and which tenants the shared delta serves."""
    told = {"own": {name: file_of(name) for name in sorted(own)}, "shared": sorted(shared)}
    (folder / INDEX).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def pack(folder: Path, target: Path | IO[bytes]) -> None:
    """Put a folder of deltas into one archive, uncompressed; equal folders give equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name, _NO_TIME), path.read_bytes())


class Deltas:
    """Which delta serves which tenant; each is read when it is wanted.

    Args:
        place: a folder that `write_index` was called for, or what `pack` made of one.

    Attributes:
        own: tenants that have a delta of their own → its file's name.
        shared: tenants that the shared delta serves.

    Raises:
        BiaslineError: for a place that is missing or no such folder or archive.
    """

    def __init__(self, place: Path | str) -> None:
        self._place = place = Path(place)
        with ExitStack() as stack:
            self._archive = None
            try:
                if place.is_file():
                    self._archive = stack.enter_context(zipfile.ZipFile(place))
                index = json.loads(self._bytes(INDEX))
                self.own: Mapping[str, str] = index["own"]
                self.shared = frozenset(index["shared"])
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
                raise BiaslineError(
                    f"{shown(place)}: no deltas of tenants there: {first_line(error)}", "restore it: `dvc checkout`"
                ) from None
            stack.pop_all()

    def __contains__(self, tenant: object) -> bool:
        return tenant in self.own or tenant in self.shared

    def __len__(self) -> int:
        return len(self.own) + len(self.shared)

    def alike(self, tenant: str) -> str:
        """See the function of this name."""
        return alike(tenant, [*self.own, *self.shared])

    def unknown(self, tenants: Sequence[str]) -> BiaslineError:
        """What to say of tenants that are not known."""
        return BiaslineError(
            f"tenant {', '.join(map(repr, tenants[:_NAMED]))}: not among the {len(self)} that were trained",
            self.alike(tenants[0]) or "train it, or allow the shared delta for it (tenants.unknown: shared)",
        )

    def file(self, tenant: str) -> bytes:
        """The bytes of a tenant's own delta, which are an ordinary delta's file.

        Raises:
            BiaslineError: for a tenant that has none, or whose file is gone.
        """
        if tenant not in self.own:
            raise BiaslineError(f"tenant {tenant!r}: no delta of its own", "the shared delta serves it")
        try:
            return self._bytes(self.own[tenant])
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise BiaslineError(f"{shown(self._place)}: delta of {tenant!r}: {first_line(error)}") from None

    def load(self, tenant: str) -> BiasDelta:
        """A tenant's own delta.

        Raises:
            BiaslineError: as `file`, and where it is damaged.
        """
        if self._archive is None and tenant in self.own:
            return BiasDelta.load(self._place / self.own[tenant])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file_of(tenant)
            path.write_bytes(self.file(tenant))
            return BiasDelta.load(path)

    def _bytes(self, name: str) -> bytes:
        return self._archive.read(name) if self._archive is not None else (self._place / name).read_bytes()
