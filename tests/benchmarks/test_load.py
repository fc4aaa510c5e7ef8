"""Loops of requests against a server that counts them, and the page of what was measured."""

import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load.loops import beside_each_other, closed, opened, posting, steady
from benchmarks.load.page import page


class Handler(BaseHTTPRequestHandler):
    """Answers 200, but every fifth request 500."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500 if next(self.server.numbers) % 5 == 0 else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.numbers = itertools.count(1)  # one at a time, whichever thread asks
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize(
    "loop",
    [
        closed,
        lambda ask, seconds: opened(ask, seconds, 100.0),
        lambda ask, seconds: beside_each_other([steady(ask, 100.0)], seconds)[0],
    ],
)
def test_each_request_is_an_answer_or_a_failure(server, loop):
    ask = posting(f"http://127.0.0.1:{server.server_port}/", lambda number: {"number": number})
    found = loop(ask, 0.5)
    asked = next(server.numbers) - 1
    assert len(found.waited) + found.failed == asked > 10
    assert found.failed == asked // 5
    assert found.told["a_second"] == len(found.waited) / 0.5 and found.told["p99_ms"] <= found.longest


def test_nobody_there_is_a_failure():
    found = opened(posting("http://127.0.0.1:9/", lambda number: {}), 0.2, 50.0)
    assert not found.waited and found.failed > 0


def test_the_page_tells_what_there_is():
    waits = {"a_second": 10.0, "failed": 0, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    servers = {
        "biasline": waits,
        "mlflow": {**waits, "a_second": 5.0},
        "times": 2.0,
        "open": {"a_second": 2.5, "biasline": waits, "mlflow": waits, "half": {"a_second": 5.0, "biasline": waits}},
    }
    found = {
        "machine": {"processor": "P", "cores": 2},
        "start": {"start_s": 9.0, "again_s": 8.0, "memory_mb": 700.0},
        "tenants": {"1": {"a_second": 1.0, "p95_ms": 1.0, "answers_a_second": 99.0}},
        "servers": {"sentiment": servers},
        "change": {"labels_a_second": 50.0, "answers_a_second": 25.0}
        | {
            name: {"longest_ms": 30.0, "p99_ms": 9.0, "answers_p99_ms": 99.0, "failed": 1}
            for name in ("quiet", "versions")
        }
        | {"fleet": {"longest_ms": 30.0, "p99_ms": 9.0, "answers_p99_ms": 99.0, "failed": 1, "served_s": 8.0}},
        "soak": {
            "minutes": 10.0,
            "answers": 1234,
            "failed": 0,
            "wrong": 0,
            "moves": 99,
            "memory_mb": [700.0, 710.0],
            "slope_mb_a_minute": 0.01,
        },
    }
    text = page(found)
    assert "sentiment 2.0 ×" in text and "1,234 answers while aliases moved 99 times: 0 failed" in text
    assert (
        "| nothing changes | 30 | 9 | 99 | 1 |" in text
        and "after 9.0 s" in text
        and "| beside one tenant | 1.00 |" in text
    )
    assert page({"machine": found["machine"]}).startswith("# The server under load")
