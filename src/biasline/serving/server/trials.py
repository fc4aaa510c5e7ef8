"""Versions on trial: asked beside the one that answers, or answering for a share of the requests."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from biasline.errors import BiaslineError

_PARTS = 10_000


@dataclass(frozen=True)
class Trials:
    """Which tasks have a version on trial.

    Attributes:
        shadows: task → alias whose version is asked the same, its answers told to nobody.
        splits: task → alias whose version answers a share of the requests, and that share, 0 to 1.
    """

    shadows: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, shadows: Sequence[str], splits: Sequence[str]) -> "Trials":
        """From `TASK@ALIAS` and `TASK=ALIAS:5%`.

        Raises:
            BiaslineError: naming the one that is written otherwise.
        """
        asked, shares = {}, {}
        for text in shadows:
            task, _, alias = text.partition("@")
            if not task or not alias:
                raise BiaslineError(f"--shadow {text!r}: TASK@ALIAS was expected", "as `support@candidate`")
            asked[task] = alias
        for text in splits:
            found = re.fullmatch(r"([^=@/]+)=([^:@/]+):([0-9.]+)%", text)
            if found is None or not 0 <= float(found[3]) <= 100:
                raise BiaslineError(f"--split {text!r}: TASK=ALIAS:SHARE% was expected", "as `support=candidate:5%`")
            shares[found[1]] = found[2], float(found[3]) / 100
        return cls(asked, shares)

    @property
    def places(self) -> set[tuple[str, str]]:
        """Tasks and aliases that have to be served for it."""
        return {*self.shadows.items(), *((task, alias) for task, (alias, _) in self.splits.items())}

    def routed(self, name: str, request_key: str) -> str:
        """The model that a request is answered by: the one that it names, or the one on trial for its share.

        Args:
            name: as the caller gave it; one that names a version itself stays.
            request_key: equal for requests that are to be answered by the same version, as those of one user.
        """
        task, slash, tenant = name.partition("/")
        if task not in self.splits:
            return name
        alias, share = self.splits[task]
        place = (
            int.from_bytes(hashlib.sha256(f"{task}\n{request_key}".encode("utf-8", "replace")).digest()[:8]) % _PARTS
        )
        return f"{task}@{alias}{slash}{tenant}" if place < share * _PARTS else name
