"""Requests that a served model must refuse, made from lists, and odd ones that it must answer."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """A request, and what an answer that refuses it must say.

    Attributes:
        name: of the test's own, told when it fails.
        body: as it goes over the wire; None for a request without one.
        says: words that the refusal must contain.
    """

    name: str
    body: bytes | None
    says: str = ""
    method: str = "POST"
    path: str = "/invocations"
    content_type: str | None = JSON


def as_json(name: str, body: Any, says: str = "") -> Request:
    return Request(name, json.dumps(body).encode(), says)


# What no text is. NaN and Infinity are none of JSON's, but Python's reader takes them.
NO_TEXTS: dict[str, Any] = {
    "a whole number": 7,
    "a fraction": 1.5,
    "a huge number": 10**300,
    "a number beyond all": 10**400,
    "yes": True,
    "no": False,
    "nothing": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "a list": ["a"],
    "an empty list": [],
    "a deep list": [[[["a"]]]],
    "a dict": {"a": "b"},
    "an empty dict": {},
}
NO_WORDS = {"an empty text": "", "a blank": " ", "line breaks": "\n\t\r", "a wide blank": "\u3000"}
# Taken as no second text and no history.
ABSENT = ("nothing", "NaN")


def malformed(first: str, second: str) -> list[Request]:
    """Requests that any kind refuses.

    Args:
        first: the required text column.
        second: the optional one.
    """
    return [*_no_requests(), *_no_json(first), *_no_rows(first), *_no_texts(first, second)]


def _no_requests() -> Iterator[Request]:
    """Wrong before a body is read."""
    good = json.dumps({"dataframe_records": []}).encode()
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        yield Request(f"{method} in place of POST", None if method == "GET" else good, method=method)
    for path in ("/", "/invocation", "/predict", "/invocations/1", "/../etc/passwd", "/%00"):
        yield Request(f"the path {path}", good, path=path)
    for kind in (
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "nonsense",
        "application/x-www-form-urlencoded",
    ):
        yield Request(f"the content type {kind}", good, "content types", content_type=kind)
    yield Request("another character set", good, "UTF-8", content_type="application/json; charset=latin-1")
    yield Request("an unknown content parameter", good, "format", content_type="application/json; format=pandas-split")
    yield Request("JSON that is called CSV", good, content_type="text/csv")
    yield Request("an empty CSV", b"", content_type="text/csv")
    yield Request("a CSV that is no UTF-8", b"\xff\xfe\xfa", content_type="text/csv")
    yield Request("JSON that is called Parquet", good, content_type="application/vnd.apache.parquet")


def _no_json(first: str) -> Iterator[Request]:
    bodies = {
        "nothing at all": b"",
        "blanks": b"  \n ",
        "half an object": b"{",
        "half a request": b'{"dataframe_records": [{"' + first.encode() + b'": "a',
        "a comma too many": b'{"dataframe_records": [{"x": "a"},]}',
        "single quotes": b"{'dataframe_records': []}",
        "two objects": b"{}{}",
        "bare words": b"hello",
        "a NUL": b"\x00",
        "no UTF-8": b'{"dataframe_records": [{"' + first.encode() + b'": "\xff\xfe"}]}',
        "a cut UTF-8 character": b'{"dataframe_records": [{"' + first.encode() + b'": "\xe4\xbd"}]}',
        "a bare control character in a text": b'{"dataframe_records": [{"' + first.encode() + b'": "a\x00b"}]}',
        "a bad escape": b'{"dataframe_records": [{"' + first.encode() + b'": "\\q"}]}',
        "brackets to a depth of 500": b"[" * 500,
        "random bytes": bytes(range(128, 256)),
    }
    for name, body in bodies.items():
        yield Request(name, body, "JSON")
    for name, body in {"null": None, "a number": 5, "a text": "text", "true": True, "a list": [], "[[]]": [[]]}.items():
        yield as_json(f"{name} in place of an object", body)


def _no_rows(first: str) -> Iterator[Request]:
    """JSON, but no table of rows, or one without the required column."""
    row = {first: "a"}
    for name, body in {
        "no key": {},
        "an unknown key": {"rows": [row]},
        "a key in capitals": {"DATAFRAME_RECORDS": [row]},
        "two formats": {"dataframe_records": [row], "inputs": [row]},
        "params alone": {"params": {}},
    }.items():
        yield as_json(name, body)
    tables: dict[str, Any] = {
        "null": None,
        "a number": 5,
        "a text": "a",
        "true": True,
        "no rows": [],
        "a table of no columns": {},
        "empty rows": [{}],
        "rows that are numbers": [1, 2],
        "rows that are texts": ["a", "b"],
        "rows that are null": [None],
        "rows that are lists": [["a"], ["b"]],
        "rows of another column": [{"txt": "a"}],
        "rows of the column in capitals": [{first.upper(): "a"}],
        "rows in rows": [[row]],
        "mixed rows": [row, 5],
    }
    for key in ("dataframe_records", "inputs", "instances"):
        for name, table in tables.items():
            yield as_json(f"{name} as {key}", {key: table})
    split: dict[str, Any] = {
        "a list": [row],
        "no data": {"columns": [first]},
        "no columns": {"data": [["a"]]},
        "no rows": {"columns": [first], "data": []},
        "another column": {"columns": ["txt"], "data": [["a"]]},
        "rows longer than the header": {"columns": [first], "data": [["a", "b"]]},
        "rows shorter than the header": {"columns": [first, "x", "y"], "data": [["a", "b"]]},
        "rows of different lengths": {"columns": [first, "x"], "data": [["a"], ["b", "c", "d"]]},
        "a second row that is short of the text": {"columns": ["x", first], "data": [["a", "b"], ["c"]]},
        "a further key": {"columns": [first], "data": [["a"]], "names": []},
        "columns that are no list": {"columns": 5, "data": [["a"]]},
        "the column twice": {"columns": [first, first], "data": [["a", "b"]]},
        "data that is a text": {"columns": [first], "data": "a"},
        "data that is null": {"columns": [first], "data": None},
    }
    for name, table in split.items():
        yield as_json(f"{name} as dataframe_split", {"dataframe_split": table})
    columns = {"columns of different lengths": {first: ["a", "b"], "x": ["c"]}, "an empty column": {first: []}}
    for name, table in columns.items():
        yield as_json(f"{name} as inputs", {"inputs": table})


def _no_texts(first: str, second: str) -> Iterator[Request]:
    """A table with a cell that is no text, named by row and column."""
    for name, cell in (NO_TEXTS | NO_WORDS).items():
        yield as_json(f"{name} as `{first}`", {"dataframe_records": [{first: cell}]}, f"`{first}`")
        rows = [{first: "a"}, {first: cell}, {first: "b"}]
        yield as_json(f"{name} as `{first}` of row 2", {"dataframe_records": rows}, f"row 2: `{first}`")
        split = {"columns": [first], "data": [["a"], [cell]]}
        yield as_json(f"{name} as `{first}` in a split", {"dataframe_split": split}, f"row 2: `{first}`")
        yield as_json(f"{name} as `{first}` of inputs", {"inputs": [{first: "a"}, {first: cell}]}, f"row 2: `{first}`")
    for name, cell in NO_TEXTS.items():
        if name not in ABSENT:
            rows = [{first: "a", second: "b"}, {first: "a", second: cell}]
            yield as_json(f"{name} as `{second}`", {"dataframe_records": rows}, f"row 2: `{second}`")
            yield as_json(f"{name} as `{second}` alone", {"dataframe_records": rows[1:]}, f"row 1: `{second}`")
    # The table that MLflow makes of a request holds no half pairs: MLflow itself says so.
    lone = b'{"dataframe_records": [{"%s": "a \\ud800 b"}]}' % first.encode()
    yield Request("half a surrogate pair", lone, "surrogates not allowed")
    low = b'{"inputs": [{"%s": "a", "%s": "\\udfff"}]}' % (first.encode(), second.encode())
    yield Request("the other half of a surrogate pair", low, "surrogates not allowed")
    texts = {first: ["a", "b"]}
    yield as_json("columns of texts as inputs", {"inputs": texts}, "columns of texts go as dataframe_split")


def _asked(**further: Any) -> dict[str, Any]:
    return {"dataframe_records": [{"instruction": "a", **further}]}


def malformed_instructions() -> list[Request]:
    """Requests that an instruction task refuses besides: its settings and its history."""
    huge = 10**9
    wrong: dict[str, tuple[Any, ...]] = {
        "max_new_tokens": (0, -1, 1.5, "x", "5", None, True, [], [5], {}, huge, 10**30, float("nan")),
        "temperature": (-1, -0.001, 11, 1e308, float("nan"), float("inf"), float("-inf"), "x", None, True, [0.5], {}),
        "top_p": (0, -0.5, 1.01, 2, float("nan"), float("inf"), "x", None, True, [], {"p": 1}),
        "seed": ("x", 1.5, None, True, [], {}, float("nan"), 10**30, -(10**30), 2**63, -1),
    }
    requests = [
        as_json(f"{name} {value!r}", {**_asked(), "params": {name: value}}, name)
        for name, values in wrong.items()
        for value in values
    ]
    for value in (5, "x", True, [], [1], ["temperature"]):
        requests.append(as_json(f"params {value!r}", {**_asked(), "params": value}))
    user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    histories = {
        "a number": 5,
        "a fraction": 0.5,
        "Infinity": float("inf"),
        "yes": True,
        "a word": "hello",
        "a broken JSON text": "[{",
        "a JSON text of a number": "5",
        "a JSON text of a word": '"hello"',
        "a JSON text of nothing": "null",
        "a dict": user,
        "a list of numbers": [1, 2],
        "a list of nothing": [None, None],
        "a list of words": ["user", "assistant"],
        "an empty turn": [{}, {}],
        "no content": [{"role": "user"}, assistant],
        "no role": [{"content": "a"}, assistant],
        "an unknown role": [{"role": "king", "content": "a"}, assistant],
        "a role that is a number": [{"role": 1, "content": "a"}, assistant],
        "content that is a number": [{"role": "user", "content": 1}, assistant],
        "content that is null": [user, {"role": "assistant", "content": None}],
        "content that is a picture": [{"role": "user", "content": [{"type": "image_url", "url": "a"}]}, assistant],
        "the user last": [user],
        "the assistant first": [assistant, user],
        "the user twice": [user, user],
        "the system last": [user, assistant, {"role": "system", "content": "s"}],
        "three in a pair": [["user", "a", "b"], ["assistant", "c"]],
        "half a surrogate pair": [{"role": "user", "content": "\ud800"}, assistant],
        "a deep list": [[[["a"]]]],
        "deep brackets in a JSON text": "[" * 5000,
    }
    for name, history in histories.items():
        requests.append(as_json(f"{name} as history", _asked(history=history), "row 1"))
        rows = [{"instruction": "a"}, {"instruction": "b", "history": history}]
        requests.append(as_json(f"{name} as history of row 2", {"dataframe_records": rows}, "row 2"))
    return requests


def not_ours(first: str, second: str) -> list[tuple[Request, int, str]]:
    """Malformed requests that are answered otherwise than with 4xx, the status, and why that cannot be mended here.

    MLflow (3.17) reads a request before a model sees it, and no signature changes how.
    """
    row, brackets = {first: "a"}, b"[" * 5000
    twice = {"columns": [first, second, second], "data": [["a", "b", "c"], ["a", "b", "c"]]}
    split = {"columns": [first], "data": [["a"]]}
    good = json.dumps({"dataframe_records": [row]}).encode()
    number = b'{"dataframe_records": [{"%s": %s}]}' % (first.encode(), b"9" * 5000)
    return [
        (Request("no content type", good, content_type=None), 500, "it is split without a look whether it is there"),
        (Request("brackets to a depth of 5000", brackets), 500, "Python's reader of JSON gives up at about 1000"),
        (Request("a number of 5000 digits", number), 500, "Python refuses to read it, with an error nobody expects"),
        (as_json("a column called by a dict", {"dataframe_split": split | {"columns": [row]}}), 500, "no set takes it"),
        (as_json("an index too long", {"dataframe_split": split | {"index": [1, 2]}}), 200, "pandas repeats the row"),
        (as_json("a column twice", {"dataframe_split": twice}), 200, "the model is given the column's name as text"),
        (as_json("a number in instances", {"instances": [row, {first: 5}]}), 200, "NumPy makes a text of it"),
        (
            as_json("a column nobody knows", {"dataframe_records": [{**row, "txt": 5}]}),
            200,
            "columns beyond are ignored",
        ),
        (as_json("a setting nobody knows", {"dataframe_records": [row], "params": {"tokens": 1}}), 200, "likewise"),
    ]


def damaged(body: Any, count: int = 200) -> list[Request]:
    """A well-formed request with bytes changed, cut out or doubled, the same each time; some stay well formed."""
    chance, requests = random.Random(0), []
    good = json.dumps(body).encode()
    for number in range(count):
        start = chance.randrange(len(good))
        end = min(len(good), start + chance.choice((1, 1, 3, 20)))
        middle = chance.choice((b"", good[start:end] * 2, chance.randbytes(end - start), b"null", b"[", b'"', b"7"))
        requests.append(Request(f"damage {number}", good[:start] + middle + good[end:]))
    return requests


def odd(first: str, second: str) -> list[Request]:
    """Requests that look odd and are well formed: they are answered."""
    texts = {
        "100 kB of one word": "a" * 100_000,
        "100 kB of words": "lovely film " * 8_500,
        "100 kB of Chinese": "字" * 34_000,
        "control characters": "a\x00b\x01\x1b[31m\x7f",
        "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "right to left": "\u202eabc\u202c \u05d0\u05d1",
        "marks of a template": "\ue0000c\ue001</s><s>[INST]{{ x }}",
        "JSON": '{"dataframe_records": []}',
        "combining marks": "e" + "\u0301" * 500,
    }
    requests = [as_json(name, {"dataframe_records": [{first: text, second: text}]}) for name, text in texts.items()]
    rows = [{first: "a"}, {first: "b", second: None}, {first: "c", second: "d"}, {first: "e", second: float("nan")}]
    requests.append(as_json("a missing, a null and a NaN second text", {"dataframe_records": rows}))
    requests.append(as_json("300 rows", {"dataframe_records": [{first: f"row {number}"} for number in range(300)]}))
    utf16 = json.dumps({"dataframe_records": [{first: "a"}]}).encode("utf-16")
    return [
        *requests,
        Request("UTF-16", utf16),
        Request("a byte order mark", b"\xef\xbb\xbf" + json.dumps({"inputs": [{first: "a"}]}).encode()),
    ]
