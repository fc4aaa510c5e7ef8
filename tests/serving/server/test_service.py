"""Clients that are slow, large, many or gone, and a server that stops."""

import asyncio
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from biasline.evaluation.generate import Drawing
from biasline.serving.server.logs import REQUESTS, JsonLines
from biasline.serving.server.texts import Written
from tests.serving.packages import TEXTS
from tests.serving.server.conftest import Client, FakeRegistry, serving
from tests.serving.server.test_follower import until

LONG = {"model": "answers", "max_tokens": 250, "stop": None, "messages": [{"role": "user", "content": TEXTS[0]}]}


@pytest.fixture
def registry(held):
    found = FakeRegistry()
    for name in ("answers", "mood"):
        found.register(name, *held[name])
    return found


def raw(port, path, body, length=None):
    """A connection on which a request was begun."""
    found = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    found.sendall(head.encode() + body)
    return found


def test_a_body_that_is_too_large_or_too_slow_is_refused(registry):
    with serving(registry, body_bytes=2000, body_s=0.3) as (service, port):
        client = Client(port)
        assert client.post("/v1/classify", {"model": "mood", "input": "x" * 5000})[0] == 413
        with raw(port, "/v1/classify", b'{"model"', 100) as slow:
            assert b"408" in slow.recv(4096).splitlines()[0]
        assert client.post("/v1/classify", {"model": "mood", "input": "x"})[0] == 200


def test_half_a_body_leaves_nothing_behind(registry):
    with serving(registry) as (service, port):
        for _ in range(5):
            raw(port, "/v1/classify", b'{"model"', 100).close()
        until(lambda: service._under_way == 0)
        assert Client(port).post("/v1/classify", {"model": "mood", "input": "x"})[0] == 200


@pytest.mark.parametrize("stream", [True, False])
def test_what_nobody_waits_for_is_given_up(registry, stream, monkeypatch):
    with serving(registry) as (service, port):
        lane = service.router.find("answers").served.held.lane
        slow = lane._logits

        def slowly(*args):
            time.sleep(0.02)
            return slow(*args)

        monkeypatch.setattr(lane, "_logits", slowly)
        longest = Drawing(3000, 3.0, 1.0, 0)
        monkeypatch.setattr("biasline.serving.server.texts.Writer.drawing", lambda self, params: longest)
        monkeypatch.setattr("biasline.serving.server.texts.Writer.chat_prompt", lambda *_: [5, 6, 7])
        connection = raw(port, "/v1/chat/completions", json.dumps({**LONG, "stream": stream}).encode())
        until(lambda: lane.load == 1)
        connection.close()
        until(lambda: lane.load == 0)
        until(lambda: service._under_way == 0)
        assert service.router.find("answers").served.users == 0


def test_what_takes_too_long_is_told_so(registry, monkeypatch):
    with serving(registry, timeout_s=0.3) as (service, port):
        gate = threading.Event()
        engine = service.router.find("mood").served.held.engine
        engine.between(lambda: gate.wait(20))
        client = Client(port)
        for path, body in (("/v1/classify", {"model": "mood", "input": "x"}), ("/v1/chat/completions", LONG)):
            status, headers, told = client.post(path, body)
            assert status == 503 and told["error"]["code"] == "timeout" and headers["retry-after"]
        gate.set()
        until(lambda: engine.idle)
        assert client.post("/v1/classify", {"model": "mood", "input": "x"})[0] == 200


def test_too_many_at_once_are_told_to_come_again(registry):
    with serving(registry, waiting=3) as (service, port):
        gate = threading.Event()
        service.router.find("mood").served.held.engine.between(lambda: gate.wait(20))
        client = Client(port)

        def ask(_):
            return client.post("/v1/classify", {"model": "mood", "input": "x"})[0]

        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask, number) for number in range(6)]
            until(lambda: sum(one.done() for one in asked) == 3)
            gate.set()
        assert sorted(one.result() for one in asked) == [200] * 3 + [503] * 3


def test_a_server_that_stops_answers_what_is_under_way(registry):
    with serving(registry) as (service, port):
        gate = threading.Event()
        service.router.find("mood").served.held.engine.between(lambda: gate.wait(20))
        client = Client(port)
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(client.post, "/v1/classify", {"model": "mood", "input": "x"})
            until(lambda: service._under_way == 1)
            stopping = pool.submit(service.close)
            until(lambda: service.stopping)
            assert client.post("/v1/classify", {"model": "mood", "input": "x"})[0] == 503
            assert client.get("/health")[0] == 503
            gate.set()
            assert asked.result()[0] == 200
            stopping.result()


def test_the_log_tells_who_asked_what_and_no_text(registry, caplog):
    with caplog.at_level(logging.INFO), serving(registry) as (_, port):
        Client(port).post("/v1/classify", {"model": "mood", "input": "a secret text"})
    [record] = [record for record in caplog.records if record.name == REQUESTS]
    told = json.loads(JsonLines().format(record))
    assert told["model"] == "mood" and told["status"] == 200 and told["rows"] == 1 and told["prompt_tokens"] > 2
    assert "secret" not in JsonLines().format(record)
    caplog.clear()
    with caplog.at_level(logging.INFO), serving(registry, log_texts=True) as (_, port):
        Client(port).post("/v1/classify", {"model": "mood", "input": "a secret text"})
    assert "a secret text" in JsonLines().format(next(one for one in caplog.records if one.name == REQUESTS))


def test_a_stream_that_nobody_reads_ends_in_time(registry, monkeypatch):
    monkeypatch.setattr("biasline.serving.server.texts._LATE_S", 0.2)

    async def endless(self, *_):
        while True:
            yield Written("x" * 100_000)
            await asyncio.sleep(0)

    monkeypatch.setattr("biasline.serving.server.texts.Writer.written", endless)
    with serving(registry, timeout_s=0.5) as (service, port):
        with raw(port, "/v1/chat/completions", json.dumps({**LONG, "stream": True}).encode()):
            until(lambda: service._under_way == 1)
            until(lambda: service._under_way == 0)
        assert service.router.find("answers").served.users == 0
