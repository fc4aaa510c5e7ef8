"""What clients say of answers: kept beside the traffic, and found again by the answer's id."""

import json

import pytest

from biasline.serving.server.keys import ApiKey, sha256_of
from biasline.watching.feedback import matched, said_in_folder
from tests.serving.packages import TEXTS
from tests.serving.server.conftest import TENANTS, Client, serving


def question(model, stream=False):
    return {"model": model, "stream": stream, "max_tokens": 3, "messages": [{"role": "user", "content": TEXTS[0]}]}


def test_feedback_finds_the_answer_that_it_is_about(registry, tmp_path):
    with serving(registry, traffic=str(tmp_path), traffic_texts=True) as (_, port):
        client = Client(port)
        _, headers, labels = client.post("/v1/classify", {"model": "mood", "input": TEXTS})
        assert labels["id"] == f"classify-{headers['x-request-id']}"
        _, headers, rows = client.post("/invocations/mood", {"instances": TEXTS[:1]})
        _, _, chat = client.post("/v1/chat/completions", question("answers"))
        _, _, streamed = client.post("/v1/chat/completions", question("answers", stream=True))
        [own] = {json.loads(line[6:])["id"] for line in streamed.split("\n\n") if line.startswith("data: {")}
        for body in (
            {"model": "mood", "id": labels["id"], "index": 1, "right": "else"},
            {"model": "mood", "id": headers["x-request-id"], "thumb": "up"},
            {"model": "answers", "id": chat["id"], "right": "a better answer"},
            {"model": "answers", "id": own, "thumb": "down"},
        ):
            status, _, told = client.post("/v1/feedback", body)
            assert (status, told["object"]) == (200, "feedback"), told
    found = matched(said_in_folder(tmp_path, "mood")[0], tmp_path, "mood", "classification")
    assert [(row.row, row.right) for row in found.rows] == [
        ({"text": TEXTS[1]}, "else"),
        ({"text": TEXTS[0]}, rows["predictions"][0]["label"]),
    ]
    assert not found.left_out and found.confirmed == 1
    found = matched(said_in_folder(tmp_path, "answers")[0], tmp_path, "answers", "instruction")
    assert [(row.row, row.right) for row in found.rows] == [({"instruction": TEXTS[0]}, "a better answer")]
    assert list(found.left_out) == ["said to be wrong, and not what would be right"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"model": "mood", "id": "a"}, 400, "`right` or `thumb` was expected"),
        ({"model": "mood", "id": "../a", "thumb": "up"}, 400, "id: "),
        ({"model": "mood", "id": "a", "thumb": "sideways"}, 400, "thumb: "),
        ({"model": "mood", "id": "a", "thumb": "up", "index": -1}, 400, "index: "),
        ({"model": "moody", "id": "a", "thumb": "up"}, 404, "mood"),
    ],
)
def test_what_is_no_feedback_is_refused(registry, tmp_path, body, status, word):
    with serving(registry, traffic=str(tmp_path), traffic_texts=True) as (_, port):
        found, _, told = Client(port).post("/v1/feedback", body)
        assert found == status and word in told["error"]["message"]
    assert not (tmp_path / "feedback").exists()


def test_a_server_that_keeps_no_texts_takes_none(registry, tmp_path):
    with serving(registry, traffic=str(tmp_path)) as (_, port):
        status, _, told = Client(port).post("/v1/feedback", {"model": "mood", "id": "a", "thumb": "up"})
        assert status == 409 and "traffic_texts" in told["error"]["message"]


def test_a_tenants_key_speaks_for_that_tenant_alone(registry, tmp_path):
    keys = [ApiKey(name="one", sha256=sha256_of("k1"), models=["shops/one"])]
    with serving(registry, keys, traffic=str(tmp_path), traffic_texts=True) as (_, port):
        client = Client(port, "k1")
        _, _, chat = client.post("/v1/chat/completions", question(f"shops/{TENANTS[0]}"))
        assert client.post("/v1/feedback", {"model": "shops/few", "id": chat["id"], "right": "x"})[0] == 404
        status, _, refused = client.post("/v1/feedback", {"model": "shops", "id": chat["id"], "right": "x"})
        assert status == 400 and "shops is a fleet: name a tenant" in refused["error"]["message"]
        assert client.post("/v1/feedback", {"model": "shops/one", "id": chat["id"], "right": "x"})[0] == 200
    [said] = said_in_folder(tmp_path, "shops")[0]
    assert (said.tenant, said.right) == ("one", "x")
