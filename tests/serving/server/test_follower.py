"""What is served while aliases move: at once, whole, and never what was not shown to answer as it was evaluated."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.serving.server.registry import Version
from tests.serving.packages import TEXTS
from tests.serving.server.conftest import Client, FakeRegistry, serving


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def ask(client, model="answers", **more):
    body = {"model": model, "messages": [{"role": "user", "content": TEXTS[0]}], **more}
    status, headers, told = client.post("/v1/chat/completions", body)
    return (told["choices"][0]["message"]["content"], headers["x-biasline-version"]) if status == 200 else status


def moved(registry, number, alias="champion"):
    registry.aliases["answers", alias] = next(one for one in registry.held if one.number == number)


def looked(service):
    """Wait until a look at the registry ended that began after this."""
    for _ in range(3):
        heard = service.follower.heard
        until(lambda heard=heard: service.follower.heard > heard)


def test_an_alias_that_moves_is_followed_both_ways(two):
    registry, texts = two
    with serving(registry) as (service, port):
        client = Client(port)
        assert ask(client) == (texts["1"], "1")
        for number in ("2", "1", "2"):
            moved(registry, number)
            until(lambda number=number: service.router.find("answers").served.version == number)
            assert ask(client) == (texts[number], number)
        [base] = service.follower.bases
        until(lambda: len(base.engine.lanes[0].bank.filled) == 1)
        assert base.loads == 1


def test_requests_under_way_end_with_the_delta_that_they_began_with(two, held):
    registry, _ = two
    long = {"max_tokens": 200}
    with serving(registry) as (service, port):
        client = Client(port)
        whole = ask(client, **long)[0]
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, client, **long) for _ in range(8)]
            until(lambda: service.router.find("answers").served.users > 3)
            moved(registry, "2")
            until(lambda: service.router.find("answers").served.version == "2")
            after = [pool.submit(ask, client, **long) for _ in range(4)]
        assert {one.result() for one in asked} == {(whole, "1")}
        other = {one.result() for one in after}
        assert len(other) == 1 and other != {(whole, "1")}


def test_no_answer_is_by_another_delta_than_its_header_says_while_aliases_move(two):
    registry, texts = two
    with serving(registry) as (service, port):
        client, stop, found = Client(port), threading.Event(), []

        def load():
            while not stop.is_set():
                found.append(ask(client))

        with ThreadPoolExecutor(6) as pool:
            for _ in range(6):
                pool.submit(load)
            for turn in range(12):
                moved(registry, "21"[turn % 2])
                until(lambda turn=turn: service.router.find("answers").served.version == "21"[turn % 2])
            stop.set()
        assert len(found) > 30 and set(found) == {(text, number) for number, text in texts.items()}


def test_a_version_that_fails_its_canary_is_not_served(two, held):
    registry, texts = two
    bad = held["rhymes"][0], held["answers"][1]
    with serving(registry) as (service, port):
        client = Client(port)
        registry.register("answers", *bad, "3")
        until(lambda: ("answers", "champion") in service.follower.problems)
        assert ask(client) == (texts["1"], "1")
        status, _, told = client.get("/ready")
        problem = told["problems"]["answers@champion"]
        assert status == 200 and "version 3 is not served: it answers" in problem and "version 1 goes on" in problem
        assert 'biasline_model_problem{alias="champion",task="answers"} 1.0' in client.get("/metrics")[2]
        moved(registry, "2")
        until(lambda: not service.follower.problems)
        assert ask(client) == (texts["2"], "2")
    fresh = FakeRegistry()
    fresh.register("answers", *bad)
    with serving(fresh, tasks=("answers", "nobody")) as (service, port):
        client = Client(port)
        assert ask(client) == 404 and client.get("/ready")[0] == 503
        assert set(client.get("/ready")[2]["problems"]) == {"answers@champion", "nobody@champion"}


def test_labels_have_a_canary_too_and_each_tenant_its_own(held):
    registry = FakeRegistry()
    package, predictions = held["mood"]
    registry.register("mood", package, predictions.with_columns((1 - pl.col("probability")).alias("probability")))
    fleet, told = held["shops"]
    odd = told.with_columns(pl.when(pl.col("shop") == "few").then(0.5).otherwise("tuned_nll").alias("tuned_nll"))
    registry.register("shops", fleet, odd)
    with serving(registry) as (service, _):
        assert "version 1 is not served: it answers 2 of 2" in service.follower.problems["mood", "champion"]
        assert "tenant 'few': its delta answers otherwise" in service.follower.problems["shops", "champion"]
        assert not any(lane.bank.filled for base in service.follower.bases for lane in base.engine.lanes)


def test_a_registry_that_is_away_changes_nothing(two):
    registry, texts = two
    with serving(registry) as (service, port):
        client = Client(port)
        registry.away = True
        until(lambda: service.follower.away)
        time.sleep(0.2)
        assert ask(client) == (texts["1"], "1")
        status, _, told = client.get("/ready")
        assert status == 200 and told["registry"] == "does not answer: no route to it" and told["registry_age_s"] > 0
        registry.away = False
        moved(registry, "2")
        until(lambda: service.router.find("answers").served.version == "2")
        assert "registry" not in client.get("/ready")[2]


def test_a_registry_that_is_away_at_the_start_is_waited_for(two):
    registry, texts = two
    registry.away = True
    with serving(registry, wait=False) as (service, port):
        client = Client(port)
        assert ask(client) == 503 and client.get("/ready")[0] == 503 and client.get("/health")[0] == 200
        registry.away = False
        until(lambda: service.follower.loaded)
        assert ask(client) == (texts["1"], "1")


def test_a_model_whose_alias_is_gone_is_served_no_longer(two):
    registry, _ = two
    with serving(registry) as (service, port):
        client = Client(port)
        del registry.aliases["answers", "champion"]
        until(lambda: not len(service.follower.served))
        assert ask(client) == 404 and client.get("/ready")[0] == 503


def test_several_aliases_versions_and_fingerprints_are_names(two):
    registry, texts = two
    moved(registry, "2", "candidate")
    with serving(registry, aliases=("champion", "candidate")) as (service, port):
        client = Client(port)
        fingerprint = service.router.find("answers@candidate").served.fingerprint
        for name in ("answers", "answers@champion", "answers@1"):
            assert ask(client, name) == (texts["1"], "1")
        for name in ("answers@candidate", "answers@2", f"answers@{fingerprint}", fingerprint):
            assert ask(client, name) == (texts["2"], "2")
        assert ask(client, "answers@3") == ask(client, "answers@previous") == 404
        [base] = service.follower.bases
        moved(registry, "1", "candidate")
        until(lambda: service.router.find("answers@candidate").served.version == "1")
        until(lambda: len(base.engine.lanes[0].bank.filled) == 1)  # held once for both


def test_what_cannot_be_read_is_told_and_tried_again_only_when_it_changes(two, monkeypatch):
    registry, texts = two
    asked, whole = [], registry.package

    def package(version, scratch):
        asked.append(version.number)
        if version.number == "3":
            raise BiaslineError("delta.safetensors: damaged", "restore it")
        return whole(version, scratch)

    registry.package = package
    registry.held[registry.register("answers", None, None, "3")] = None
    with serving(registry) as (service, port):
        assert "damaged" in service.follower.problems["answers", "champion"]
        time.sleep(0.3)
        assert asked == ["3"]
        moved(registry, "1")
        until(lambda: len(service.follower.served) == 1)
        assert ask(Client(port)) == (texts["1"], "1")


def test_a_model_that_was_deleted_and_made_anew_is_another_version(two, held):
    """Its numbers begin again at 1."""
    registry, texts = two
    with serving(registry) as (service, port):
        before = service.router.find("answers").served.fingerprint
        again = Version("answers", "1", "f" * 16)
        registry.held[again] = held["rhymes"]
        registry.aliases["answers", "champion"] = again
        until(lambda: service.router.find("answers").served.fingerprint != before)
        assert ask(Client(port)) == (texts["2"], "1")


def test_a_base_that_cannot_be_read_leaves_no_thread_behind(held, tmp_path):
    package, predictions = held["mood"]
    registry = FakeRegistry()
    registry.register("mood", replace(package, pin_path=tmp_path / "none.json"), predictions)
    before = threading.active_count()
    with serving(registry) as (service, _):
        assert ("mood", "champion") in service.follower.problems
        assert not [one for one in threading.enumerate() if one.name.startswith("engine")]
    until(lambda: threading.active_count() <= before)


def test_a_base_that_nothing_stands_on_leaves_memory(two, held):
    registry, texts = two
    registry.register("mood", *held["mood"])
    with serving(registry) as (service, port):
        [base] = service.follower.bases
        del registry.aliases["answers", "champion"]
        until(lambda: len(service.follower.served) == 1)
        assert base.engine.alive and base.users == 1
        del registry.aliases["mood", "champion"]
        until(lambda: not base.engine.alive)
        assert not list(service.follower.bases) and Client(port).get("/health")[0] == 200
        moved(registry, "1")
        until(lambda: len(service.follower.served) == 1)
        assert ask(Client(port)) == (texts["1"], "1")


class Gate:
    """A registry whose package (or predictions) of one version come only when they are let through."""

    def __init__(self, registry, number, what="package"):
        self.open, self.asked = threading.Event(), []
        whole = getattr(registry, what)

        def asked(version, *more):
            self.asked.append(version.number)
            if version.number == number:
                assert self.open.wait(20)
            return whole(version, *more)

        setattr(registry, what, asked)


def test_no_alias_waits_until_another_version_is_loaded(two, held):
    registry, texts = two
    with serving(registry) as (service, port):
        gate = Gate(registry, "9")
        registry.register("mood", *held["mood"], "9")
        until(lambda: gate.asked == ["9"])
        moved(registry, "2")
        until(lambda: service.router.find("answers").served.version == "2")
        assert ask(Client(port)) == (texts["2"], "2") and len(service.follower.served) == 1
        gate.open.set()
        until(lambda: len(service.follower.served) == 2)
        assert gate.asked == ["9", "2"]


def test_a_version_that_is_wanted_no_longer_when_it_is_loaded_is_not_served(two):
    registry, texts = two
    with serving(registry) as (service, port):
        gate = Gate(registry, "2")
        moved(registry, "2")
        until(lambda: gate.asked == ["2"])
        moved(registry, "1")
        looked(service)
        gate.open.set()
        until(lambda: not service.follower._loading)
        assert ask(Client(port)) == (texts["1"], "1")
        [base] = service.follower.bases
        until(lambda: len(base.engine.lanes[0].bank.filled) == 1)
        assert not service.follower.problems


def test_a_version_that_was_loaded_is_loaded_anew_while_others_of_its_look_are_not_yet(two, held):
    """As at the start of a server, where all that there is was found at one look."""
    registry, texts = two
    gate = Gate(registry, "9", "predictions")
    registry.register("topic", *held["topic"], "9")
    with serving(registry, wait=False) as (service, port):
        until(lambda: gate.asked == ["1", "9"])
        for number in ("2", "1"):
            moved(registry, number)
            until(lambda number=number: service.router.find("answers").served.version == number)
            assert ask(Client(port)) == (texts[number], number)
        assert not service.follower.loaded  # the first look is not done with
        gate.open.set()
        until(lambda: len(service.follower.served) == 2)


def test_a_version_that_two_aliases_get_one_after_the_other_is_loaded_once(two):
    registry, texts = two
    with serving(registry, aliases=("champion", "candidate")) as (service, port):
        gate = Gate(registry, "2")
        moved(registry, "2", "candidate")
        until(lambda: gate.asked == ["2"])
        moved(registry, "2")
        looked(service)
        gate.open.set()
        until(lambda: service.router.find("answers").served.version == "2")
        assert gate.asked == ["2"] and ask(Client(port), "answers@candidate") == (texts["2"], "2")


def test_a_version_that_cannot_be_read_is_no_problem_once_its_alias_moved_on(two):
    registry, _ = two
    with serving(registry) as (service, _):
        gate = Gate(registry, "3")
        registry.held[registry.register("answers", None, None, "3")] = None
        until(lambda: gate.asked == ["3"])
        moved(registry, "1")
        looked(service)
        gate.open.set()
        until(lambda: not service.follower._loading)
        assert not service.follower.problems


def test_a_server_with_nothing_to_serve_says_why(two, caplog):
    registry, _ = two
    with serving(registry, aliases=("champoin",)) as (_, port):
        client = Client(port)
        status, _, told = client.get("/ready")
        assert status == 503 and "no registered model has this alias" in told["problems"]["*@champoin"]
        _, _, told = client.post("/v1/chat/completions", {"model": "x", "messages": [{"role": "user", "content": "x"}]})
        assert "none is served; /ready says why" in told["error"]["message"]
        time.sleep(0.3)
    assert len([one for one in caplog.records if "*@champoin" in one.getMessage()]) == 1
    with serving(registry, aliases=("candidate", "champion")) as (service, port):
        assert service.follower.problems == {("answers", "candidate"): "the registry has no such model or alias"}
        body = {"model": "answers@candidate", "messages": [{"role": "user", "content": "x"}]}
        told = Client(port).post("/v1/chat/completions", body)[2]["error"]["message"]
        assert told.endswith("answers is served as champion (version 1)")


def test_an_app_that_cannot_start_says_so_in_a_line(monkeypatch):
    from biasline.serving import http

    monkeypatch.setenv("BIASLINE_SERVE_PROT", "1")
    with pytest.raises(SystemExit, match="error: settings: prot: no such setting"):
        _ = http.app
