"""Answers of a server that runs elsewhere, for `biasline predict --url`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from biasline.errors import BiaslineError, first_line

_SECONDS = 600
_AT_ONCE = 256


def ask_server(
    url: str, rows: Mapping[str, Sequence[dict[str, Any]]], alias: str, key: str = ""
) -> Iterator[tuple[str, list[Any]]]:
    """Answers of each task's model to its rows.

    Args:
        url: of the server.
        rows: task → rows of its kind.
        alias: which version; the server must have it. Empty: the one that it means by the task.
        key: an API key; BIASLINE_API_KEY of the environment if left out.

    Raises:
        BiaslineError: where the server does not answer, or refuses: in its own words.
    """
    import requests

    root = url.rstrip("/").removesuffix("/v1")
    if not root.startswith(("http://", "https://")):
        raise BiaslineError(f"{url}: an address of a server was expected", "as http://127.0.0.1:8000")
    given = key or os.environ.get("BIASLINE_API_KEY", "")
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    for task, asked in rows.items():
        name = f"{task}@{alias}" if alias else task
        address, answers = f"{root}/invocations/{quote(name)}", list[Any]()
        for start in range(0, len(asked), _AT_ONCE):
            body = {"dataframe_records": list(asked[start : start + _AT_ONCE])}
            try:
                answer = requests.post(address, json=body, headers=headers, timeout=_SECONDS)
                told = answer.json()
            except (requests.RequestException, ValueError) as error:
                way = "`biasline serve` starts one; leave --url out to ask without a server"
                raise BiaslineError(f"{url}: no answer: {first_line(error)[:160]}", way) from None
            if answer.status_code != 200 or "predictions" not in told:
                raise BiaslineError(f"{url}: {told.get('message') or answer.text[:200]}")
            answers += told["predictions"]
        yield task, answers
