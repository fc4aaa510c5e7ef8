"""API keys: what they allow, how much, and what is said to others."""

import threading
import time

import pytest
from typer.testing import CliRunner

from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.serving.http import create_app
from biasline.serving.server.keys import ApiKey, KeyRefused, Keys, new_key, read_keys, sha256_of
from biasline.serving.server.settings import ServerSettings, read_settings
from tests.serving.server.conftest import Client, serving


def key(name, **more):
    return ApiKey(name=name, sha256=sha256_of(f"key of {name}"), **more)


@pytest.mark.parametrize(
    ("models", "task", "tenant", "may"),
    [
        (("*",), "mood", "", True),
        (("mood",), "mood", "", True),
        (("mood",), "moody", "", False),
        (("mood*",), "moody", "", True),
        (("shops",), "shops", "one", True),
        (("shops/one",), "shops", "one", True),
        (("shops/one",), "shops", "One", False),
        (("shops/one",), "shops", "one/more", False),
        (("shops/one*",), "shops", "one/more", True),
        (("shops/one",), "shops", "", False),
        ((), "mood", "", False),
    ],
)
def test_patterns_allow_tasks_and_tenants(models, task, tenant, may):
    assert key("a", models=models).allows(task, tenant) is may


def test_limits_are_kept_and_say_when_to_come_again():
    known = Keys([key("a", requests_per_minute=2, concurrency=1), key("b", tokens_per_minute=10)])
    a, b = known.find("key of a"), known.find("key of b")
    assert known.find("key of c") is None and known.find(None) is None and known.find("") is None
    with known.used(a), pytest.raises(KeyRefused, match="1 requests of this key are under way"), known.used(a):
        pass
    with known.used(a):
        pass
    with pytest.raises(KeyRefused, match="requests of a minute are used up") as caught, known.used(a):
        pass
    assert 1 <= caught.value.retry_s <= 60
    with known.used(b):
        known.charge(b, 25)
    with pytest.raises(KeyRefused, match="tokens of a minute are used up") as caught, known.used(b):
        pass
    assert 80 <= caught.value.retry_s <= 100


def test_tokens_are_counted_before_they_are_written():
    """Or a hundred requests at once would pass where the minute has room for one."""
    known = Keys([key("a", tokens_per_minute=100)])
    a = known.find("key of a")
    with known.used(a), known.used(a):
        assert known.reserve(a, 150) == 150
        with pytest.raises(KeyRefused, match="tokens of a minute are used up"):
            known.reserve(a, 1)
        known.charge(a, 20 - 150)
    with known.used(a):
        assert known.reserve(a, 1) == 1
    assert known.reserve(None, 5) == Keys([key("b")]).reserve(key("b"), 5) == 0


def test_a_key_that_was_made_is_read_again(tmp_path, monkeypatch):
    made = CliRunner().invoke(app, ["api-key", 'acme: "1"', "--model", "shops/acme*"])
    path = tmp_path / "keys.yaml"
    path.write_text(made.stdout)
    given = made.stderr.split()[-1]
    assert len(given) > 40 and given not in path.read_text()
    found = read_keys(str(path))
    assert found.find(given).name == 'acme: "1"' and found.find(given).models == ("shops/acme*",)
    monkeypatch.setenv("BIASLINE_API_KEY", "of the environment")
    assert len(read_keys(str(path))) == 2 and read_keys("").find("of the environment").is_whole
    assert new_key() != new_key()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "a list of API keys was expected"),
        ("a: b", "a list of API keys was expected"),
        ("- name: a", "key 1: sha256: Field required"),
        ("- {name: a, sha256: abc}", "key 1: sha256: String should match"),
        ("- {name: a, sha256: '" + "0" * 64 + "', rights: all}", "key 1: rights: Extra inputs"),
        ("[", "no API keys can be read"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused(tmp_path, content, told):
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    with pytest.raises(BiaslineError, match=told):
        read_keys(str(path))
    with pytest.raises(BiaslineError, match="no API keys can be read"):
        read_keys(str(tmp_path / "none.yaml"))


def test_beyond_loopback_a_server_needs_keys(monkeypatch):
    monkeypatch.delenv("BIASLINE_API_KEY", raising=False)
    with pytest.raises(
        BiaslineError, match=r"0\.0\.0\.0 is reached from beyond this machine, and there are no API keys"
    ):
        create_app(ServerSettings(host="0.0.0.0"))
    assert create_app(ServerSettings(host="0.0.0.0", insecure=True)) and create_app(ServerSettings())
    monkeypatch.setenv("BIASLINE_API_KEY", "one")
    assert create_app(ServerSettings(host="0.0.0.0"))
    result = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--settings", "none.yaml"])
    assert "none.yaml: no settings can be read" in str(result.exception)


def test_settings_come_from_file_environment_and_options(tmp_path, monkeypatch):
    path = tmp_path / "serve.yaml"
    path.write_text("port: 9000\naliases: [candidate, champion]\nrows: 7\n")
    monkeypatch.setenv("BIASLINE_SERVE", str(path))
    monkeypatch.setenv("BIASLINE_SERVE_TASKS", "a,b")
    monkeypatch.setenv("BIASLINE_SERVE_ROWS", "9")
    found = read_settings(given={"port": 9001})
    assert (found.port, found.rows, found.tasks, found.aliases) == (9001, 9, ("a", "b"), ("candidate", "champion"))
    path.write_text("aliasses: 9000\n")
    with pytest.raises(BiaslineError, match="aliasses: no such setting → did you mean 'aliases'"):
        read_settings()


@pytest.fixture(scope="module")
def guarded(held):
    from tests.serving.server.conftest import FakeRegistry

    registry = FakeRegistry()
    for name, (package, predictions) in held.items():
        registry.register(name, package, predictions)
    keys = [
        key("all"),
        key("mood", models=("mood",)),
        key("one", models=("shops/one",)),
        key("few", models=("mood",), requests_per_minute=2),
        key("slow", models=("mood",), concurrency=1),
    ]
    with serving(registry, keys) as (_, port):
        yield port


def classify(client, model="mood", **headers):
    return client.post("/v1/classify", {"model": model, "input": "a text"}, **headers)


def test_without_a_key_nothing_is_told(guarded):
    for client in (Client(guarded), Client(guarded, "another")):
        status, headers, told = classify(client)
        assert status == 401 and headers["www-authenticate"] == "Bearer" and "mood" not in str(told)
        assert client.get("/v1/models")[0] == client.get("/metrics")[0] == client.get("/v1/models/mood")[0] == 401
        assert client.post("/invocations/mood", {"inputs": ["x"]})[0] == 401
        assert client.get("/ready")[2] == {"ready": True} and client.get("/health")[0] == 200
    assert classify(Client(guarded), X_API_Key="key of mood")[0] == 200


def test_a_key_sees_and_asks_what_it_may(guarded):
    mood, one, whole = (Client(guarded, f"key of {name}") for name in ("mood", "one", "all"))
    assert classify(mood)[0] == 200
    status, _, told = classify(mood, "topic")
    absent = classify(mood, "tropic")
    assert status == absent[0] == 404
    assert str(told).replace("topic", "") == str(absent[2]).replace("tropic", "")
    assert [model["id"] for model in mood.get("/v1/models")[2]["data"]] == ["mood"]
    assert [model["id"] for model in one.get("/v1/models")[2]["data"]] == ["shops/one"]
    assert len(whole.get("/v1/models")[2]["data"]) == 9
    assert mood.get("/metrics")[0] == 403 and whole.get("/metrics")[0] == 200
    assert "models" not in mood.get("/ready")[2] and "models" in whole.get("/ready")[2]


def test_a_tenants_key_reaches_no_other_tenant(guarded):
    one = Client(guarded, "key of one")
    ask = {"messages": [{"role": "user", "content": "x"}]}
    fingerprint = Client(guarded, "key of all").get("/v1/models/shops")[2]["fingerprint"]
    assert one.post("/v1/chat/completions", {"model": "shops/one", **ask})[0] == 200
    for name in ("shops/Two/2", "shops@champion/few", f"shops@{fingerprint}/few", f"{fingerprint}/few", "answers"):
        assert one.post("/v1/chat/completions", {"model": name, **ask})[0] == 404, name
    rows = [{"instruction": "x", "shop": "one"}, {"instruction": "x", "shop": "few"}]
    known = one.post("/invocations/shops", {"dataframe_records": rows})
    unknown = one.post("/invocations/shops", {"dataframe_records": [rows[0], {**rows[1], "shop": "fox"}]})
    assert known[0] == unknown[0] == 404
    assert known[2]["message"].replace("few", "") == unknown[2]["message"].replace("fox", "")
    assert one.post("/invocations/shops", {"dataframe_records": rows[:1]})[0] == 200
    assert one.post("/invocations/shops/one", {"dataframe_records": rows})[0] == 400


def test_limits_are_answered_with_429(guarded):
    few = Client(guarded, "key of few")
    assert [classify(few)[0] for _ in range(2)] == [200, 200]
    status, headers, told = classify(few)
    assert status == 429 and 1 <= int(headers["retry-after"]) <= 60
    assert told["error"]["code"] == "rate_limit_exceeded"
    slow, found = Client(guarded, "key of slow"), []

    def ask():
        body = {"dataframe_records": [{"text": "a text " * 50}] * 400}
        found.append(slow.post("/invocations/mood", body)[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert 200 in found and 429 in found and set(found) == {200, 429}
