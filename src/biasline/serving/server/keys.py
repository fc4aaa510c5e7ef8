"""Who may ask what, and how much: API keys, of which only hashes are kept."""

import hashlib
import hmac
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, ValidationError

from biasline.errors import BiaslineError, first_line, shown
from biasline.params.group import Group

KEY_VARIABLE = "BIASLINE_API_KEY"
_BEGIN = "bl-"


class ApiKey(Group):
    """What a key may do.

    `models` are patterns of names, as `support`, `shops/acme*` (tenants of a fleet whose names begin so), `*`. One that
    allows a task allows each of its versions, and all tenants of a fleet.
    """

    name: str = Field(min_length=1, max_length=100, description="who it belongs to; what logs say")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the key")
    models: tuple[str, ...] = Field(("*",), description="patterns of the models that it may ask")
    requests_per_minute: float = Field(0, ge=0, description="0: no limit")
    tokens_per_minute: float = Field(0, ge=0, description="of prompts and answers; 0: no limit")
    concurrency: int = Field(0, ge=0, description="requests at once; 0: no limit")

    def allows(self, task: str, tenant: str = "") -> bool:
        """Whether it may ask a task's models, of a fleet those of a tenant."""
        return any(
            fnmatchcase(task, pattern) or bool(tenant and fnmatchcase(f"{task}/{tenant}", pattern))
            for pattern in self.models
        )

    def allows_some(self, task: str) -> bool:
        """Whether it may ask a fleet's models, or those of some of its tenants."""
        return self.allows(task) or any(fnmatchcase(task, one.partition("/")[0]) for one in self.models if "/" in one)

    @property
    def is_whole(self) -> bool:
        """Whether it may ask everything, and so see what there is."""
        return "*" in self.models


class KeyRefused(Exception):
    """A request that a key's limits do not allow now.

    Attributes:
        retry_s: when it may be asked again.
    """

    def __init__(self, told: str, retry_s: float) -> None:
        super().__init__(told)
        self.retry_s = max(1, math.ceil(retry_s))


class _Bucket:
    """So much a minute, and a minute's worth at once; what was taken too much is waited for."""

    def __init__(self, per_minute: float) -> None:
        self._rate, self._most = per_minute / 60, per_minute
        self._left, self._at = per_minute, time.monotonic()

    def wait_s(self) -> float:
        """How long until something is left; 0 where it is."""
        now = time.monotonic()
        self._left, self._at = min(self._most, self._left + (now - self._at) * self._rate), now
        # One whole request, or any token.
        return max(0.0, (min(1.0, self._most) - self._left) / self._rate)

    def take(self, amount: float) -> None:
        self._left -= amount


class _Use:
    """What a key has used."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self.requests = _Bucket(key.requests_per_minute) if key.requests_per_minute else None
        self.tokens = _Bucket(key.tokens_per_minute) if key.tokens_per_minute else None
        self.at_once = 0


class Keys:
    """The keys of a server; without any, whoever reaches it may ask everything.

    Args:
        keys: as they were read.

    Raises:
        BiaslineError: where two are the same.
    """

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._uses = {key.sha256: _Use(key) for key in keys}
        if len(self._uses) < len(keys):
            raise BiaslineError("two API keys have the same sha256", "give each its own")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._uses)

    def find(self, given: str | None) -> ApiKey | None:
        """The key that was given; None where it is none of these."""
        digest = sha256_of(given or "")
        found = None
        for known, use in self._uses.items():  # all of them, whichever it is
            if hmac.compare_digest(known, digest):
                found = use.key
        return found

    @contextmanager
    def used(self, key: ApiKey | None) -> Iterator[None]:
        """The block in which a request of a key is answered.

        Raises:
            KeyRefused: where its limits do not allow another one now.
        """
        if key is None:
            yield
            return
        use = self._uses[key.sha256]
        with self._lock:
            if key.concurrency and use.at_once >= key.concurrency:
                raise KeyRefused(f"{key.concurrency} requests of this key are under way already", 1)
            for bucket, told in ((use.requests, "requests"), (use.tokens, "tokens")):
                if bucket is not None and (wait := bucket.wait_s()) > 0:
                    raise KeyRefused(f"this key's {told} of a minute are used up", wait)
            if use.requests is not None:
                use.requests.take(1)
            use.at_once += 1
        try:
            yield
        finally:
            with self._lock:
                use.at_once -= 1

    def charge(self, key: ApiKey | None, tokens: int) -> None:
        """Count tokens of a request: those that it may come to before it is answered, less what it did not need."""
        if key is not None and (bucket := self._uses[key.sha256].tokens) is not None:
            with self._lock:
                bucket.take(tokens)

    def reserve(self, key: ApiKey | None, tokens: int) -> int:
        """Count tokens that a request may come to, before it is answered; how many to take off of its bill.

        Raises:
            KeyRefused: where others have used up the minute's meanwhile.
        """
        if key is None or (bucket := self._uses[key.sha256].tokens) is None:
            return 0
        with self._lock:
            if (wait := bucket.wait_s()) > 0:
                raise KeyRefused("this key's tokens of a minute are used up", wait)
            bucket.take(tokens)
        return tokens


def sha256_of(key: str) -> str:
    """What is kept of a key: it is long and random, so that a plain hash tells nothing of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """A key that nobody has."""
    return _BEGIN + secrets.token_urlsafe(32)


def read_keys(path: str) -> Keys:
    """The keys of a YAML file, a list of what `ApiKey` has, and that of the environment, which may ask everything.

    Raises:
        BiaslineError: naming the file and the first key that is wrong.
    """
    keys = []
    if path:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        file = Path(path)
        try:
            found = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise BiaslineError(f"{shown(file)}: no API keys can be read: {first_line(error)}") from None
        if not isinstance(found, list) or not found:
            raise BiaslineError(f"{shown(file)}: a list of API keys was expected", "`biasline api-key NAME` makes one")
        for number, one in enumerate(found, 1):
            try:
                keys.append(ApiKey.model_validate(one))
            except ValidationError as error:
                first = error.errors(include_input=False)[0]
                told = f"key {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
                raise BiaslineError(f"{shown(file)}: {told}") from None
    if given := os.environ.get(KEY_VARIABLE):
        keys.append(ApiKey(name=KEY_VARIABLE, sha256=sha256_of(given)))
    return Keys(keys)
