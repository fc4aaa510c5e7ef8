"""Versions on trial: a shadow that tells nobody, a share of the requests, and what is kept of both."""

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.serving.server.traffic import SCHEMA, Traffic, agree
from biasline.serving.server.trials import Trials
from tests.serving.packages import ROWS, TEXTS
from tests.serving.server.conftest import Client, serving
from tests.serving.server.test_follower import ask, moved, until


def test_trials_are_read_from_texts():
    found = Trials.read(["a@candidate"], ["b=candidate:5%", "c=previous:12.5%"])
    assert found.shadows == {"a": "candidate"} and found.splits == {"b": ("candidate", 0.05), "c": ("previous", 0.125)}
    assert found.places == {("a", "candidate"), ("b", "candidate"), ("c", "previous")}
    for shadows, splits in ((["a"], []), (["@x"], []), ([], ["a=b"]), ([], ["a=b:200%"]), ([], ["a:b=5%"])):
        with pytest.raises(BiaslineError, match="was expected"):
            Trials.read(shadows, splits)


def test_a_share_of_the_keys_goes_to_the_version_on_trial_and_each_key_always_to_the_same():
    trials = Trials.read([], ["a=candidate:20%"])
    routed = [trials.routed("a", str(number)) for number in range(5000)]
    assert set(routed) == {"a", "a@candidate"} and 0.17 < routed.count("a@candidate") / 5000 < 0.23
    assert routed == [trials.routed("a", str(number)) for number in range(5000)]
    assert {trials.routed("a/x/y", str(number)) for number in range(99)} == {"a/x/y", "a@candidate/x/y"}
    assert {trials.routed(name, str(number)) for name in ("b", "a@1") for number in range(99)} == {"b", "a@1"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ({"label": "a", "probability": 0.9}, {"label": "a", "probability": 0.6}, True),
        (
            {"label": "a", "probability": 0.9, "probs": [0.9, 0.1]},
            {"label": "b", "probability": 0.9, "probs": [0.1]},
            False,
        ),
        ({"score": 1.5}, {"score": 2.5}, None),
        ({"labels": ["a"], "probabilities": {"a": 0.9}}, {"labels": ["a"], "probabilities": {"a": 0.8}}, True),
        ({"labels": ["a"], "probabilities": {"a": 0.9}}, {"labels": [], "probabilities": {"a": 0.4}}, False),
        ({"words": ["a"], "tags": ["O"]}, {"words": ["a"], "tags": ["B-X"]}, False),
    ],
)
def test_answers_agree_by_what_they_say(one, other, same):
    assert agree(one, other) is same


def test_a_split_is_answered_by_both_and_says_by_which(two):
    registry, texts = two
    moved(registry, "2", "candidate")
    with serving(registry, split=("answers=candidate:50%",)) as (_, port):
        client, found = Client(port), {}
        for key in range(40):
            body = {"model": "answers", "messages": [{"role": "user", "content": TEXTS[0]}]}
            _, headers, told = client.post("/v1/chat/completions", body, x_request_key=str(key))
            found[key] = told["choices"][0]["message"]["content"], headers["x-biasline-version"]
        assert set(found.values()) == {(text, number) for number, text in texts.items()}
        for key in range(5):
            _, headers, _ = client.post("/v1/chat/completions", body, x_request_key=str(key))
            assert headers["x-biasline-version"] == found[key][1]
        assert ask(client, "answers@champion") == (texts["1"], "1")


@pytest.mark.parametrize("texts_too", [True, False])
def test_a_shadow_is_asked_the_same_and_tells_only_the_files(two, held, tmp_path, texts_too):
    registry, texts = two
    moved(registry, "2", "candidate")
    registry.register("mood", *held["mood"], "1")
    registry.register("mood", *held["mood"], "2", "candidate")
    folder = tmp_path / "traffic"
    options = {"shadow": ("answers@candidate", "mood@candidate"), "traffic": str(folder), "traffic_texts": texts_too}
    with serving(registry, **options) as (service, port):
        client = Client(port)
        assert ask(client) == (texts["1"], "1")
        streamed = {"model": "answers", "stream": True, "messages": [{"role": "user", "content": TEXTS[1]}]}
        assert client.post("/v1/chat/completions", streamed)[0] == 200
        assert client.post("/invocations/answers", {"dataframe_records": ROWS["answers"]})[0] == 200
        assert client.post("/v1/classify", {"model": "mood", "input": TEXTS})[0] == 200
        assert client.post("/v1/completions", {"model": "answers", "prompt": "The house"})[0] == 200
        until(lambda: len(service.traffic._rows) == 7)
        until(lambda: all(served.users == 0 for _, _, served in service.follower.served))
        figures = client.get("/metrics")[2]
        assert 'biasline_shadow_total{model="mood",said="agrees"} 2.0' in figures
        assert 'biasline_shadow_total{model="answers",said="differs"}' in figures
    kept = pl.read_parquet(folder)
    assert dict(kept.schema) == SCHEMA and kept.height == 7
    assert kept.filter(pl.col("task") == "mood")["agrees"].to_list() == [True, True]
    answers = kept.filter(pl.col("task") == "answers")
    assert answers["version"].unique().to_list() == ["1"]
    assert answers["shadow_version"].to_list().count("2") == 4 and answers["shadow_version"].null_count() == 1
    if texts_too:
        both = answers.filter(pl.col("shadow_version") == "2")
        assert both["agrees"].to_list() == (both["answer"] == both["shadow_answer"]).to_list()
        assert (texts["1"], texts["2"]) in set(zip(both["answer"], both["shadow_answer"], strict=True))
        assert TEXTS[0] in kept["asked"][0]
    else:
        assert kept["asked"].null_count() == kept["answer"].null_count() == kept["shadow_answer"].null_count() == 7


def test_a_shadow_that_fails_changes_no_answer(two, held, monkeypatch, tmp_path):
    registry, texts = two
    moved(registry, "2", "candidate")
    with serving(registry, shadow=("answers@candidate",), traffic=str(tmp_path)) as (service, port):
        shadow = service.router.find("answers@candidate").served.held.predictor

        def failing(*_, **__):
            raise RuntimeError("the shadow fails")

        monkeypatch.setattr(shadow.model, "generate", failing)
        assert ask(Client(port)) == (texts["1"], "1")
        until(lambda: 'biasline_shadow_total{model="answers",said="failed"} 1.0' in Client(port).get("/metrics")[2])
        assert service.router.find("answers@candidate").served.users == 0
    assert pl.read_parquet(tmp_path)["agrees"].to_list() == [False]


def test_rows_wait_where_the_folder_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    traffic = Traffic(str(tmp_path / "file" / "folder"))
    traffic.add({"task": "a", "version": "1", "fingerprint": "f"}, [], ["x"], ["y"])
    traffic.flush()
    assert len(traffic._rows) == 1
    (tmp_path / "file").unlink()
    traffic.flush()
    assert pl.read_parquet(tmp_path / "file" / "folder").height == 1 and not traffic._rows
    nowhere = Traffic()
    nowhere.add({"task": "a", "version": "1", "fingerprint": "f"}, [], ["x"], ["y"])
    assert not nowhere._rows


def test_a_trial_that_is_not_there_is_told(two):
    registry, _ = two
    with serving(registry, shadow=("answers@candidate",)) as (_, port):
        client = Client(port)
        assert client.get("/ready")[2]["problems"] == {"answers@candidate": "the registry has no such model or alias"}
        assert client.get("/ready")[0] == 200
