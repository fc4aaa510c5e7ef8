"""A thousand requests that nobody means well by: each is refused or answered in its own right, and the server lives."""

import json
import random
import socket
import time
from urllib.parse import quote

import pytest

from biasline.serving.server.keys import ApiKey, sha256_of
from tests.serving.packages import TEXTS
from tests.serving.server.conftest import Client, serving

KEY, OTHER = "the key of one", "the key of all"
BODIES = {
    "/v1/chat/completions": {
        "model": "shops/one",
        "messages": [{"role": "user", "content": TEXTS[0]}],
        "max_tokens": 2,
    },
    "/v1/completions": {"model": "shops/one", "prompt": TEXTS[0], "max_tokens": 2, "temperature": 0.5, "seed": 1},
    "/v1/classify": {"model": "mood", "input": TEXTS[0]},
    "/invocations": {"model": "mood", "inputs": [{"text": TEXTS[0]}]},
    "/invocations/shops/one": {"dataframe_records": [{"instruction": TEXTS[0], "shop": "one"}]},
}
# What stands where something else was expected.
VALUES = [
    *(None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", " ", "\x00", "\ud800", "x" * 100_000),
    *([], {}, [[]], [None], {"a": {"b": {}}}, ["x"] * 3_000, "Two/2", "shops/Two/2", "../shops", "shops@9"),
    *("base:tiny-bloom", "𝒔𝒉𝒐𝒑𝒔/one", "ONE", "one\n", "'; drop table tags; --", "{{7*7}}", "%00", "${jndi:ldap://x}"),
]


def places(value, at=()):
    """Where a value has parts, itself included."""
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*at, name))


def put(value, at, other):
    """A value with another in the place of one of its parts."""
    if not at:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put(copy[at[0]], at[1:], other)
    return copy


def odd(draw):
    """A path and a body that was right before something was done to it."""
    path = draw.choice([*BODIES])
    body = BODIES[path]
    way = draw.randrange(5)
    if way < 3:  # a part in the place of which something else stands
        return path, json.dumps(put(body, draw.choice([*places(body)]), draw.choice(VALUES))).encode("utf-8", "replace")
    content = bytearray(json.dumps(body).encode())
    if way == 3:  # bytes that are none of it
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    else:  # half of it, twice, or deep within itself
        cut = draw.randrange(len(content))
        deep = b"[" * 50_000
        content = draw.choice(
            [content[:cut], content + content, content[:cut] + deep + content[cut:], deep, b"\xff\xfe"]
        )
    return path, bytes(content)


@pytest.fixture(scope="module")
def guarded(held):
    """A server with a key for one tenant and one task, and one for everything; its registry's models."""
    from tests.serving.server.conftest import FakeRegistry

    registry = FakeRegistry()
    for name, (package, predictions) in held.items():
        registry.register(name, package, predictions)
    keys = [
        ApiKey(name="one", sha256=sha256_of(KEY), models=("shops/one", "mood")),
        ApiKey(name="all", sha256=sha256_of(OTHER), models=("*",)),
    ]
    with serving(registry, keys, body_s=1.0, body_bytes=300_000) as (service, port):
        yield service, port


def deltas(port):
    """Hash of the delta of each model and tenant that there is."""
    whole = Client(port, OTHER)
    names = [one["id"] for one in whole.get("/v1/models")[2]["data"]]
    return {name: whole.get(f"/v1/models/{quote(name)}")[2]["delta_sha256"] for name in names}


def test_a_thousand_odd_requests_are_refused_and_nothing_of_others_is_seen(guarded):
    service, port = guarded
    draw, client, known = random.Random(0), Client(port, KEY), deltas(port)
    own = {known["shops/one"], known["mood"]}
    others = {delta for delta in known.values() if delta not in own}
    assert others and len(own) == 2
    answered = 0
    for number in range(1_000):
        path, body = odd(draw)
        status, headers, told = client.post(path, body)
        assert status == 200 or 400 <= status < 500, (number, path, body[:200], status, told)
        said = json.dumps(told) + json.dumps(headers)
        assert not any(delta in said for delta in others), (number, path, body[:200])
        answered += status == 200
    assert answered < 500  # most were wrong
    assert service.is_whole
    assert client.post("/v1/classify", BODIES["/v1/classify"])[0] == 200
    assert Client(port, OTHER).get("/ready")[2]["ready"]


@pytest.mark.parametrize("given", ["", KEY + "x", KEY.upper(), "k" * 9_000])
def test_another_key_sees_nothing(guarded, given):
    _, port = guarded
    for path, body in BODIES.items():
        status, _, told = Client(port, given).post(path, body)
        assert status in (400, 401, 431), (path, status)
        assert "delta" not in json.dumps(told)
    assert Client(port, KEY).post("/v1/classify", {"model": "topic", "input": "x"})[0] == 404
    assert Client(port, KEY).get("/metrics")[0] == 403


HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
GOOD = json.dumps(BODIES["/v1/classify"]).encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, where there is none
        HEAD + b"Content-Length: 100\r\n\r\n" + GOOD[:10],  # half a body, and no more
        HEAD + b"Content-Length: -1\r\n\r\n" + GOOD,
        HEAD + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\n" + GOOD,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n" + GOOD,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx",
        HEAD + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
        HEAD + b"X: y\r\n" * 20_000 + b"\r\n",
        HEAD.replace(b"/v1/classify", b"/v1/classify\r\nX: y") + b"\r\n",
        HEAD.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
        HEAD.replace(b"POST", b"P\x00ST") + b"\r\n",
        HEAD.replace(b"/v1/classify", b"/" + b"a" * 100_000) + b"\r\n",
    ],
)
def test_what_is_no_http_or_half_of_it_holds_nothing_up(guarded, sent):
    """It is refused or let go within seconds, and others are answered meanwhile."""
    service, port = guarded
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        assert Client(port, KEY).post("/v1/classify", BODIES["/v1/classify"])[0] == 200
        if sent[:4] == b"POST":
            answer = connection.recv(200)
            assert answer == b"" or answer[9:10] == b"4", answer
    assert service.is_whole


def test_slow_clients_are_given_up_and_others_are_answered(guarded):
    service, port = guarded
    slow = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(30)]
    began = time.monotonic()
    for connection in slow:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
    for _ in range(5):
        assert Client(port, KEY).post("/v1/classify", BODIES["/v1/classify"])[0] == 200
    for connection in slow:
        assert b" 408 " in connection.recv(200)
        connection.close()
    assert time.monotonic() - began < 8
    assert service.is_whole
