"""The routes: what clients that nobody here wrote ask, and what they are told."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.packages import ROWS, TEXTS
from tests.serving.server.conftest import TENANTS


@pytest.fixture
def client(running):
    return running[2]


@pytest.fixture
def open_ai(client):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{client.port}/v1", api_key="none", max_retries=0)


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def test_the_openai_package_gets_the_answers_that_the_model_gives_alone(open_ai, held):
    for name in ("answers", "rhymes"):
        wanted = held[name][0].predictor()(ROWS[name])
        given = [open_ai.chat.completions.create(model=name, **chat(text)) for text in TEXTS]
        assert [one.choices[0].message.content for one in given] == wanted
        assert {one.choices[0].finish_reason for one in given} <= {"stop", "length"}
        assert all(one.system_fingerprint and one.usage.total_tokens > 3 for one in given)
    assert {one.id for one in open_ai.models.list()} >= {*held, "shops/one"}


def test_a_streamed_answer_is_the_whole_answer(open_ai, held):
    whole = open_ai.chat.completions.create(model="answers", **chat(TEXTS[0]))
    stream = open_ai.chat.completions.create(
        model="answers", stream=True, stream_options={"include_usage": True}, **chat(TEXTS[0])
    )
    chunks = list(stream)
    *said, usage = chunks
    assert "".join(one.choices[0].delta.content or "" for one in said) == whole.choices[0].message.content
    assert said[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.usage == whole.usage and not usage.choices
    assert {one.system_fingerprint for one in chunks} == {whole.system_fingerprint}


def test_what_is_asked_for_takes_the_place_of_the_tasks_settings(open_ai):
    one = open_ai.chat.completions.create(model="answers", max_tokens=1, **chat(TEXTS[0]))
    assert one.usage.completion_tokens == 1 and one.choices[0].finish_reason == "length"
    drawn = [
        open_ai.chat.completions.create(model="answers", temperature=2.0, seed=seed, **chat(TEXTS[0]))
        for seed in (1, 1, 2, 3, 4)
    ]
    texts = [one.choices[0].message.content for one in drawn]
    assert texts[0] == texts[1] and len(set(texts)) > 1
    text = open_ai.chat.completions.create(model="answers", **chat(TEXTS[0])).choices[0].message.content
    cut = open_ai.chat.completions.create(model="answers", stop=[text[2]], **chat(TEXTS[0]))
    assert cut.choices[0].message.content == text[:2].rstrip() and cut.choices[0].finish_reason == "stop"


def test_what_was_said_before_is_read(open_ai, held):
    before = [{"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": "one two"}]
    said = [{"role": "system", "content": "Be kind."}, *before, {"role": "user", "content": TEXTS[1]}]
    given = open_ai.chat.completions.create(model="answers", messages=said).choices[0].message.content
    rows = [{"instruction": TEXTS[1], "history": said[:-1]}]
    assert given == held["answers"][0].predictor()(rows)[0]


def test_openai_errors_are_those_that_its_package_knows(open_ai):
    with pytest.raises(openai.NotFoundError, match="did you mean 'answers'"):
        open_ai.chat.completions.create(model="answer", **chat("x"))
    with pytest.raises(openai.BadRequestError, match="ask /v1/classify"):
        open_ai.chat.completions.create(model="mood", **chat("x"))
    with pytest.raises(openai.BadRequestError, match="max_tokens: 100000 is refused"):
        open_ai.chat.completions.create(model="answers", max_tokens=100_000, **chat("x"))
    with pytest.raises(openai.BadRequestError, match="n: "):
        open_ai.chat.completions.create(model="answers", n=2, **chat("x"))
    with pytest.raises(openai.BadRequestError, match="tools: List should have at most 0 items|tools: not supported"):
        open_ai.chat.completions.create(
            model="answers", tools=[{"type": "function", "function": {"name": "f"}}], **chat("x")
        )


def test_completions_go_on_from_a_text_without_a_template(open_ai, held):
    package = held["answers"][0]
    predictor = package.predictor()
    template = predictor.inputs([{"instruction": TEXTS[0]}])[0]["input_ids"]
    prompt = predictor.tokenizer.decode(template)
    given = open_ai.completions.create(model="answers", prompt=prompt)
    if predictor.tokenizer(prompt).input_ids == template:
        assert given.choices[0].text.strip() == predictor([{"instruction": TEXTS[0]}])[0]
    several = open_ai.completions.create(model="answers", prompt=["The house", "A dog"], max_tokens=3)
    assert [one.index for one in several.choices] == [0, 1]
    pieces = [one.choices[0].text for one in open_ai.completions.create(model="answers", prompt=prompt, stream=True)]
    assert "".join(pieces) == given.choices[0].text


def test_a_base_by_itself_is_answered_for_by_its_own_name_alone(open_ai, held):
    asked = {"prompt": "One two three", "max_tokens": 8}
    texts = [
        open_ai.completions.create(model=name, **asked).choices[0].text
        for name in ("base:tiny-bloom", "answers", "rhymes")
    ]
    assert len(set(texts)) == 3
    with pytest.raises(openai.NotFoundError):
        open_ai.completions.create(model="tiny-bloom", prompt="The house")
    with pytest.raises(openai.BadRequestError, match="knows no dialogues"):
        open_ai.chat.completions.create(model="base:tiny-bloom", **chat("x"))


def test_labels_come_with_all_probabilities(client, held):
    wanted = held["topic"][0].predictor()(ROWS["topic"])
    status, headers, told = client.post("/v1/classify", {"model": "topic", "input": TEXTS})
    assert status == 200
    for one, other in zip(told["data"], wanted, strict=True):
        assert one["label"] == other["label"] and one["num_classes"] == 3
        assert max(one["probs"]) == one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        assert sum(one["probs"]) == pytest.approx(1)
    assert headers["x-biasline-model"] == "topic" and headers["x-biasline-version"] == "1"
    assert told["system_fingerprint"].startswith(headers["x-biasline-fingerprint"])
    assert told["usage"]["prompt_tokens"] == told["usage"]["total_tokens"] > 4
    rows = [{"text": TEXTS[0], "text_pair": "and more"}]
    status, _, pair = client.post("/classify", {"model": "topic", "input": rows})
    assert status == 200 and pair["data"][0]["probs"] != told["data"][0]["probs"]


def test_tenants_are_answered_by_their_own_deltas(client, open_ai, held):
    package = held["shops"][0]
    rows = [{"instruction": text, "shop": name} for text in TEXTS for name in TENANTS]
    wanted = package.predictor()(rows)
    given = [open_ai.chat.completions.create(model=f"shops/{row['shop']}", **chat(row["instruction"])) for row in rows]
    assert [one.choices[0].message.content for one in given] == wanted
    status, headers, told = client.post("/invocations/shops", {"dataframe_records": rows})
    assert (status, told["predictions"]) == (200, wanted)
    status, headers, told = client.post("/invocations/shops/Two/2", {"inputs": TEXTS})
    assert told == {"predictions": [answer for row, answer in zip(rows, wanted, strict=True) if row["shop"] == "Two/2"]}
    assert headers["x-biasline-tenant"] == "Two/2"
    hashes = {client.get(f"/v1/models/shops/{name}")[2]["delta_sha256"] for name in ("one", "Two/2", "few")}
    assert len(hashes) == 3 and client.get("/v1/models/shops")[2]["delta_sha256"] in hashes
    assert client.post("/v1/chat/completions", {"model": "shops", **chat("x")})[0] == 400
    for name in ("shops/One", "shops/", "answers/one"):
        assert client.post("/v1/chat/completions", {"model": name, **chat("x")})[0] == (
            404 if name != "shops/" else 400
        )
    status, _, told = client.post("/invocations/shops", {"dataframe_records": [{**rows[0], "shop": "Zwei"}]})
    assert status == 404 and told["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    status, _, told = client.post("/invocations/shops/one", {"dataframe_records": [{**rows[0], "shop": "Two/2"}]})
    assert status == 400 and "'Two/2' are asked of shops/one" in told["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": TEXTS},
        {"inputs": {"text": TEXTS}},
        {"instances": [{"text": text} for text in TEXTS]},
        {"dataframe_records": [{"text": text} for text in TEXTS]},
        {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
    ],
)
def test_mlflows_forms_are_read(client, held, body):
    wanted = held["mood"][0].predictor()(ROWS["mood"])
    for path, more in (("/invocations/mood", {}), ("/invocations?model=mood", {}), ("/invocations", {"model": "mood"})):
        status, _, told = client.post(path, {**body, **more})
        assert status == 200 and [one["label"] for one in told["predictions"]] == [one["label"] for one in wanted]


def test_csv_is_read_and_params_are_checked(client, held):
    wanted = held["mood"][0].predictor()(ROWS["mood"])
    table = "text\n" + "\n".join(TEXTS)
    status, _, told = client.post("/invocations/mood", table.encode(), Content_Type="text/csv")
    assert status == 200 and [one["label"] for one in told["predictions"]] == [one["label"] for one in wanted]
    body = {"inputs": [TEXTS[0]], "params": {"max_new_tokens": 1}}
    longer = client.post("/invocations/answers", {"inputs": [TEXTS[0]]})[2]["predictions"][0]
    shorter = client.post("/invocations/answers", body)[2]["predictions"][0]
    assert longer.startswith(shorter) and longer != shorter
    assert client.post("/invocations/mood", body)[0] == 400
    assert client.post("/invocations/answers", {**body, "params": {"beams": 3}})[0] == 400
    assert client.post("/invocations", {"inputs": TEXTS})[2]["message"].startswith("several models are served")


def test_mlflows_client_gets_predictions(client, held):
    import requests

    url = f"http://127.0.0.1:{client.port}"
    assert requests.get(f"{url}/ping", timeout=10).status_code == 200
    told = requests.post(f"{url}/invocations/mood", json={"inputs": TEXTS}, timeout=30).json()
    assert len(told["predictions"]) == 2


def test_curl_gets_an_answer(client):
    body = json.dumps({"model": "answers", **chat(TEXTS[0])})
    url = f"http://127.0.0.1:{client.port}/v1/chat/completions"
    done = subprocess.run(["curl", "-sf", url, "-d", body], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_prometheus_reads_the_figures(client):
    client.post("/v1/classify", {"model": "mood", "input": "a text"})
    client.post("/v1/classify", {"model": "nobody" * 20, "input": "a text"})
    status, _, text = client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {
        *("biasline_requests", "biasline_rows", "biasline_tokens", "biasline_request_seconds", "biasline_model"),
        *(
            "biasline_waiting_rows",
            "biasline_passes",
            "biasline_pass_rows",
            "biasline_deltas",
            "biasline_model_problem",
        ),
        *("biasline_registry_heard_timestamp_seconds", "biasline_first_token_seconds", "biasline_requests_under_way"),
    } <= set(families)
    models = {sample.labels["model"] for sample in families["biasline_requests"].samples}
    assert "mood" in models and not any("nobody" in name for name in models)
    assert {sample.labels["task"] for sample in families["biasline_model"].samples} >= {"mood", "shops"}


def test_requests_of_all_models_at_once_get_their_own_answers(client, held):
    wanted = {name: held[name][0].predictor()(ROWS[name]) for name in ("answers", "rhymes", "mood", "topic")}

    def ask(number):
        name = [*wanted][number % 4]
        return name, client.post(f"/invocations/{name}", {"dataframe_records": ROWS[name]})

    with ThreadPoolExecutor(16) as pool:
        for name, (status, headers, told) in pool.map(ask, range(80)):
            assert status == 200 and headers["x-biasline-model"] == name
            for one, other in zip(told["predictions"], wanted[name], strict=True):
                assert (one == other) if isinstance(other, str) else one["label"] == other["label"]


def test_operators_are_told(client):
    assert client.get("/health")[2] == {"status": "ok"}
    status, _, told = client.get("/ready")
    assert status == 200 and told["ready"] and told["models"]["shops@champion"] == "1" and not told["problems"]
    assert told["registry_age_s"] < 5
    schema = client.get("/openapi.json")[2]
    assert "messages" in json.dumps(schema["paths"]["/v1/chat/completions"]["post"]["requestBody"])
    assert client.get("/version")[2]["version"]
    status, headers, page = client.get("/docs")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "POST /v1/chat/completions" in page and "<code>messages</code> *" in page
    assert "http://" not in page and "https://" not in page  # nothing is fetched from elsewhere
    one = client.get("/v1/models/topic")[2]
    assert one["labels"] == ["art", "music", "sport"] and one["kind"] == "classification"


def test_rows_of_several_tenants_say_each_whose_delta_it_was(client, held):
    rows = [{"instruction": TEXTS[0], "shop": name} for name in ("one", " one ", "few")]
    status, headers, told = client.post("/invocations/shops", {"dataframe_records": rows})
    assert status == 200 and headers["x-biasline-delta"] == "by-row"
    own, again, shared = told["deltas"]
    assert own == again != shared
    assert own == client.get("/v1/models/shops/one")[2]["delta_sha256"]
    status, headers, told = client.post("/invocations/shops/one%20", {"inputs": [TEXTS[0]]})
    assert status == 200 and headers["x-biasline-delta"] == own and "deltas" not in told
    assert headers["x-biasline-tenant"] == "one"


def test_draws_differ_unless_a_seed_is_given(open_ai):
    asked = {"model": "answers", "temperature": 3.0, **chat(TEXTS[0])}
    drawn = {open_ai.chat.completions.create(**asked).choices[0].message.content for _ in range(6)}
    assert len(drawn) > 1
    several = open_ai.completions.create(model="answers", prompt=["The house"] * 6, temperature=3.0, seed=1)
    assert len({one.text for one in several.choices}) > 1


def test_figures_have_no_names_that_callers_make_up(client):
    for number in range(5):
        client.post(f"/invocations/made-up-{number}", {"inputs": ["x"]})
        client.get(f"/v1/models/made-up-{number}")
        client.get(f"/made-up-{number}")
    assert "made-up" not in client.get("/metrics")[2]


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "169.254.1.1"])
def test_without_keys_only_this_machine_is_answered_by_its_own_name(client, host):
    assert client.get("/v1/models", Host=host)[0] == client.get("/metrics", Host=host)[0] == 403
    assert client.post("/v1/classify", {"model": "mood", "input": "x"}, Host=host)[0] == 403
    assert "models" not in client.get("/ready", Host=host)[2]
    for own in ("localhost", f"localhost:{client.port}", "127.0.0.1", "[::1]:80"):
        assert client.get("/v1/models", Host=own)[0] == 200


HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"[" * 200_000,
    b'{"a":' * 50_000,
    b"\xff\xfe\x00",
    b'{"model": "\\ud800", "input": "x"}',
    json.dumps({"model": "mood", "input": 7}).encode(),
    json.dumps({"model": "mood", "input": [[["deep"]]]}).encode(),
    json.dumps({"model": "mood", "input": []}).encode(),
    json.dumps({"model": "mood", "input": ["x"] * 5000}).encode(),
    json.dumps({"model": "mood", "input": [{"text": None}]}).encode(),
    json.dumps({"model": "mood", "input": [{"text": {"a": 1}}]}).encode(),
    json.dumps({"model": ["mood"], "input": "x"}).encode(),
    json.dumps({"model": "../../etc/passwd", "input": "x"}).encode(),
    json.dumps({"model": "mood\r\nX: y", "input": "x"}).encode(),
    json.dumps({"model": "mood@" + "9" * 5000, "input": "x"}).encode(),
    json.dumps({"model": "", "input": "x"}).encode(),
    json.dumps({"model": "answers", "messages": []}).encode(),
    json.dumps({"model": "answers", **chat("x", max_tokens=10**400)}).encode(),
    json.dumps({"model": "answers", **chat("x", max_tokens=-1)}).encode(),
    json.dumps({"model": "answers", **chat("x", temperature="hot")}).encode(),
    json.dumps({"model": "answers", **chat("x", temperature=1e9)}).encode(),
    b'{"model": "answers", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    json.dumps({"model": "answers", **chat("x", top_p=0)}).encode(),
    json.dumps({"model": "answers", **chat("x", seed=-5)}).encode(),
    json.dumps({"model": "answers", **chat("x", stop=["a"] * 100)}).encode(),
    json.dumps({"model": "answers", **chat("   ")}).encode(),
    json.dumps({"model": "answers", "messages": [{"role": "assistant", "content": "x"}]}).encode(),
    json.dumps({"model": "answers", "messages": [{"role": "root", "content": "x"}]}).encode(),
    json.dumps({"model": "answers", "messages": [{"role": "user", "content": "x"}] * 2}).encode(),
    json.dumps({"model": "answers", "prompt": ""}).encode(),
    json.dumps({"model": "answers", "prompt": "x " * 100_000}).encode(),
    json.dumps({"model": "mood", "dataframe_split": {"columns": ["text"], "data": [["a", "b"]]}}).encode(),
    json.dumps({"model": "mood", "dataframe_split": {"columns": 3}}).encode(),
    json.dumps({"model": "mood", "inputs": 3}).encode(),
    json.dumps({"model": "mood", "inputs": {"text": ["a"], "text_pair": []}}).encode(),
    json.dumps({"model": "mood", "inputs": ["a"], "instances": ["a"]}).encode(),
    json.dumps({"model": "mood", "inputs": [{"text": "\x00"}], "params": {"x": 1}}).encode(),
    json.dumps({"model": "shops", "inputs": [{"instruction": "x", "shop": 1e308}]}).encode(),
    json.dumps({"model": "shops", "inputs": [{"instruction": "x", "shop": ["one"]}]}).encode(),
    b'{"model": "shops", "inputs": [{"instruction": "x", "shop": 1e999}]}',
    json.dumps({"model": "shops", "inputs": [{"instruction": "x"}]}).encode(),
    json.dumps({"model": "answers", "inputs": [{"instruction": "x", "history": [1, 2]}]}).encode(),
    json.dumps({"model": "answers", "inputs": [{"instruction": "x", "history": "[" * 5000}]}).encode(),
]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/classify", "/invocations"]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_malformed_is_refused_and_the_server_lives(client, path):
    for body in HOSTILE:
        status, headers, _ = client.post(path, body)
        assert 400 <= status < 500, (path, body[:100], status)
        assert "x" not in headers and "X" not in headers
    assert client.get("/health")[0] == 200
    assert client.post("/v1/classify", {"model": "mood", "input": "x"})[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/v1/models/nobody", "/v1/models/%00", "/v1/models/..%2f..", "/invocations/%ff", "/docs/../x"]
)
def test_paths_that_are_none_are_refused(client, path):
    assert 400 <= client.get(path)[0] < 500
    assert 400 <= client.post(path, {"inputs": ["x"]})[0] < 500
