"""Several labels a text, from a raw file to answers of a promoted champion."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from biasline.bases.pin import read_pin
from biasline.bitfit import BiasDelta
from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.serving.package import Package
from biasline.serving.packaging import signature
from biasline.serving.rescore import scored_on
from biasline.tokens.saved import read_summary, read_token_set
from tests.conftest import LENIENT_GATES, enter, lay_workspace, run_stages

pytestmark = pytest.mark.e2e  # whole runs of stages

NAMES = ("art", "money", "sport")
SETTINGS = {
    "kind": "multilabel",
    "base": "data/bases/tiny-bloom.json",
    "data": "rows.json",
    "quality": {"near_duplicate": 1.0, "off": ["leak"]},
    "train": {"min_steps": 20, "epochs": 0.1, "batch_size": 8},
    "gates": LENIENT_GATES,
}


def held(number):
    return [name for place, name in enumerate(NAMES) if number >> place & 1]


def rows(count=96):
    """Each set of labels but the empty one, over and over."""
    numbers = [number for number in range(1, count) if number % 8]
    return [{"text": f"case {number} of {' and '.join(held(number))}", "labels": held(number)} for number in numbers]


def laid(folder, **settings):
    (folder / "rows.json").write_text(json.dumps(rows()))
    return Task.model_validate(SETTINGS | settings), TaskPlace("several")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """The workspace after all stages up to evaluation, and what that said."""
    folder = tmp_path_factory.mktemp("several")
    lay_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        task, place = laid(folder)
        return folder, task, place, run_stages(task, place)


@pytest.fixture
def run(run_once, workspace, empty_store):
    """A copy of it to work in, with an empty store: its task and place."""
    folder, task, place, _ = run_once
    for name in ("rows.json", place.folder):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, workspace / name)
    shutil.copy(empty_store, workspace)
    (workspace / "params.yaml").write_text(json.dumps({"tasks": {"several": SETTINGS}}))
    return task, place


def package(task, place):
    return Package(task, BiasDelta.load(place.delta), read_pin(Path(task.base)), Path(task.base))


def test_rows_become_tokens_with_a_flag_for_each_label(run):
    _, place = run
    summary, train = read_summary(place), read_token_set(place, "train")
    assert summary["labels"] == list(NAMES)
    clean = pl.read_parquet(place.split("train"))
    assert [json.loads(text) for text in clean["labels"]] == [held(number) for number in numbers_of(clean)]
    assert train["row"] == clean["row"].to_list() and "supervised_tokens" not in summary["splits"]["train"]
    flags = [[int(name in held(number)) for name in NAMES] for number in numbers_of(clean)]
    assert train["labels"] == flags
    assert "case 3 of art and money</s> → art, money" in place.preview.read_text()
    assert "any of the labels art, money, sport" in place.preview.read_text()


def numbers_of(frame):
    return [int(text.split()[1]) for text in frame["text"]]


def test_the_exact_tokens_of_a_row(run, demo_tokenizer):
    row = next(row for row in read_token_set(run[1], "train").to_list() if row["row"] == 3)
    expected = [*demo_tokenizer("case 3 of art and money").input_ids, demo_tokenizer.eos_token_id]
    assert row == {"row": 3, "input_ids": expected, "labels": [1, 1, 0]}


def test_the_quality_page_counts_labels_and_how_many_a_row_has(run):
    page = run[1].quality_page.read_text()
    assert "| art | 48 |" in page and "| labels of a row | rows |" in page and "| 3 | 12 |" in page


def test_thresholds_travel_with_the_delta_and_stand_in_the_report(run):
    _, place = run
    told = json.loads(place.train_report.read_text())["settled"]
    assert BiasDelta.load(place.delta).manifest.about["thresholds"] == told["thresholds"]
    found = json.loads(told["thresholds"])
    assert list(found) == list(NAMES) and all(0 < value < 1 for value in found.values())


def test_evaluation_judges_by_micro_f1_and_has_all_metrics_of_all_models(run_once, run):
    _, place = run
    metrics = json.loads(place.metrics.read_text())
    assert metrics["metric"] == "f1_micro" and metrics["sliced_by"] == "exact_match"
    names = {"f1_micro", "f1_micro_low", "f1_micro_high", "f1_macro", "exact_match", "hamming_loss"}
    for who in ("base", "probe", "tuned"):
        assert names <= set(metrics[who])
    assert run_once[3].startswith("f1 micro on ")


def test_what_is_given_is_what_lies_beyond_the_thresholds(run):
    _, place = run
    thresholds = json.loads(json.loads(place.train_report.read_text())["settled"]["thresholds"])
    for row in pl.read_parquet(place.predictions).iter_rows(named=True):
        found = json.loads(row["tuned_probabilities"])
        given = [name for name in NAMES if found[name] >= thresholds[name]]
        assert json.loads(row["tuned"]) == given and row["tuned_exact"] == (given == json.loads(row["labels"]))
        wrong = len({*given} ^ {*json.loads(row["labels"])}) / 3
        assert row["tuned_hamming_loss"] == pytest.approx(wrong, abs=1e-6)


def test_the_card_has_a_line_for_each_label_with_its_threshold(run):
    card = run[1].card.read_text()
    assert "| labels of most rows |" in card and "| head alone on the frozen base |" in card
    assert "| label | threshold | rows | given | precision | recall | F1 |" in card
    assert sum(line.startswith(tuple(f"| {name} | 0." for name in NAMES)) for line in card.splitlines()) == 3


@pytest.mark.slow
def test_all_stages_again_give_the_same_bytes(run, workspace):
    task, place = run
    before = contents(place)
    shutil.rmtree(place.folder)
    run_stages(task, place)
    assert contents(place) == before


def contents(place):
    return {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}


def test_a_package_gives_what_evaluation_gave(run):
    task, place = run
    evaluated = pl.read_parquet(place.predictions)
    answering = find_answering(task.kind)
    answers = package(task, place).predictor()(answering.asked(evaluated))
    for answer, wanted in zip(answers, answering.evaluated(evaluated), strict=True):
        assert answer["labels"] == wanted["labels"]
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
    given = scored_on(package(task, place), evaluated)
    names = ["row", "labels", "tuned", "tuned_exact", "tuned_hamming_loss"]
    assert given.select(names).equals(evaluated.select(names)) and "tuned_probabilities" in given.columns


def test_a_delta_without_thresholds_is_refused(run):
    task, place = run
    one = package(task, place)
    one.delta.manifest.about.pop("thresholds")
    with pytest.raises(BiaslineError, match="the delta: no threshold for the label 'art' → train it again"):
        one.predictor()([{"text": "so"}])


def test_an_answer_in_a_line_and_in_a_signature():
    answering = find_answering("multilabel")
    assert answering.line({"labels": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.77, "c": 0.1}}) == (
        "a|b\t0.9000|0.7700"
    )
    assert answering.line({"labels": [], "probabilities": {"a": 0.1}}) == "\t"
    labels, probabilities = json.loads(signature(Task.model_validate(SETTINGS)).to_dict()["outputs"])
    assert (labels["name"], labels["type"], labels["items"]["type"]) == ("labels", "array", "string")
    assert (probabilities["name"], probabilities["type"], probabilities["values"]["type"]) == (
        "probabilities",
        "map",
        "double",
    )


@pytest.mark.slow
def test_other_methods_have_their_thresholds_too(workspace):
    task, place = laid(workspace, train={**SETTINGS["train"], "min_steps": 2, "method": "lora"}, split={"valid": 0.0})
    run_stages(task, place)
    report = json.loads(place.train_report.read_text())
    assert json.loads(report["settled"]["thresholds"]) == dict.fromkeys(NAMES, 0.5)
    assert any(note.startswith("there are no validation rows to choose thresholds on") for note in report["notes"])


@pytest.mark.slow
def test_from_two_lines_of_params_to_a_champion_that_is_asked(run, monkeypatch):
    from biasline.registry.promote import promote
    from biasline.registry.sync import register
    from biasline.serving.package_check import check_package
    from biasline.tracking.record import record_of_workspace
    from biasline.tracking.store import connect

    task, place = run
    monkeypatch.setattr("biasline.registry.versions.check_package", check_package)
    client, record = connect(), record_of_workspace("several")
    register(client, record)
    decision = promote(client, "several", task, by="tests", reason="a first one")
    assert decision.promoted, decision.verdict
    told = CliRunner().invoke(app, ["predict", "several", "case 3 of art and money"])
    assert told.exit_code == 0, told.output
    given, found = told.stdout.rstrip("\n").split("\t")
    assert set(given.split("|")) <= set(NAMES) and given.count("|") == found.count("|")
    shared = CliRunner().invoke(app, ["predict", "--tasks", "several", "case 3 of art and money", "--json"])
    [row] = json.loads(shared.stdout[shared.stdout.index("[") :])
    assert "|".join(row["labels"]) == given and set(row["probabilities"]) == set(NAMES)
    merged = CliRunner().invoke(app, ["merge", "several", "merged"])
    assert merged.exit_code == 0, merged.output
    assert json.loads(Path("merged/config.json").read_text())["problem_type"] == "multi_label_classification"
    usage = Path("merged/README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir("merged")
    printed: list[object] = []
    exec(usage, {"print": printed.append})
    text = next(line for line in usage.splitlines() if line.startswith("text, text_pair"))
    evaluated = pl.read_parquet(Path("..") / place.predictions).row(0, named=True)
    assert evaluated["text"] in text and printed == [json.loads(evaluated["tuned"])]
