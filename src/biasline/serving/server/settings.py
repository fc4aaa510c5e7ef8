"""What a server is told: by a file, by the environment, or by options of the command line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from biasline.bitfit.deltas import alike
from biasline.errors import BiaslineError, first_line, shown
from biasline.params.group import Group

# Names a YAML file of settings for an app that no command line starts; one setting alone is `BIASLINE_SERVE_PORT`.
ENVIRONMENT = "BIASLINE_SERVE"
_LISTS = ("tasks", "aliases", "shadow", "split")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServerSettings(Group):
    """Settings of a server."""

    tasks: tuple[str, ...] = Field((), description="tasks whose models are served; empty: all that are registered")
    aliases: tuple[str, ...] = Field(("champion",), min_length=1, description="aliases; the first is meant by a task")
    host: str = Field("127.0.0.1", description="address to listen at; beyond loopback it needs keys")
    port: int = Field(8000, ge=0, le=65535, description="port; 0: a free one")
    keys: str = Field("", description="YAML file of API keys; BIASLINE_API_KEY is one that may ask everything")
    insecure: bool = Field(False, description="listen beyond loopback without keys")
    allow_base: bool = Field(False, description="answer for base:NAME, a base without any delta")
    poll_s: float = Field(2.0, gt=0, le=3600, description="how often aliases are looked up")
    canary_rows: int = Field(8, ge=1, le=1000, description="test rows that a model answers again before it is served")
    tenant_canary_rows: int = Field(1, ge=0, le=100, description="test rows of each tenant of a fleet besides")
    threads: int = Field(0, ge=0, le=1024, description="of torch, for each operation; 0: as torch chooses")
    wait_ms: float = Field(2.0, ge=0, le=1000, description="how long a row waits for others that go with it, at most")
    pass_tokens: int = Field(2048, ge=1, description="tokens of a pass over texts or prompts, padding included")
    sequences: int = Field(64, ge=1, description="answers that are written at once")
    cached_tokens: int = Field(65_536, ge=1, description="tokens of these and of their prompts, padding included")
    body_bytes: int = Field(4 << 20, ge=1024, description="largest request")
    rows: int = Field(1024, ge=1, description="most rows of a request")
    waiting: int = Field(2048, ge=1, description="requests at once; those above are told to come again")
    timeout_s: float = Field(120.0, gt=0, description="longest that a request may take")
    body_s: float = Field(20.0, gt=0, description="longest that a request's body may take to arrive")
    start_s: float = Field(
        0.0, ge=0, description="at the start: how long no request is taken while models are loaded; 0: at once, as 503"
    )
    drain_s: float = Field(30.0, ge=0, description="when stopped: how long what is under way may take")
    shadow: tuple[str, ...] = Field((), description="TASK@ALIAS: that version is asked the same, and tells nobody")
    split: tuple[str, ...] = Field((), description="TASK=ALIAS:5%: that version answers this share of the requests")
    traffic: str = Field("", description="folder for Parquet files of what was answered by whom; empty: none")
    traffic_texts: bool = Field(False, description="with questions and answers")
    log_texts: bool = Field(False, description="write questions and answers into the log")

    @property
    def is_local(self) -> bool:
        """Whether nothing beyond this machine can reach it."""
        return self.host in LOOPBACK


def read_settings(path: Path | None = None, given: Mapping[str, Any] | None = None) -> ServerSettings:
    """Settings of a file (else of that which the environment names), then of the environment, then those given.

    Raises:
        BiaslineError: naming the file, and the setting that is unknown or out of its limits.
    """
    named = os.environ.get(ENVIRONMENT, "")
    path = path or (Path(named) if named else None)
    found: dict[str, Any] = {}
    if path is not None:
        found |= _read(path)
    prefix = f"{ENVIRONMENT}_"
    for name, value in os.environ.items():
        if name.startswith(prefix):
            key = name.removeprefix(prefix).lower()
            found[key] = [part for part in value.split(",") if part] if key in _LISTS else value
    found |= given or {}
    try:
        return ServerSettings.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{shown(path)}: " if path is not None else "settings: "
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise BiaslineError(f"{where}{name}: no such setting", alike(name, ServerSettings.model_fields)) from None
        raise BiaslineError(f"{where}{name}: {first['msg']}") from None


def _read(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise BiaslineError(f"{shown(path)}: no settings can be read: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise BiaslineError(f"{shown(path)}: settings are names and values")
    return found
