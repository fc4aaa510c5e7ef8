"""Tags of words, from a raw file to answers of a promoted champion."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from biasline.bases.pin import read_pin
from biasline.bitfit import BiasDelta
from biasline.cli import app
from biasline.data.sources import read_asked
from biasline.errors import BiaslineError
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import columns_of
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.serving.package import Package
from biasline.serving.packaging import signature
from biasline.serving.rescore import scored_on
from biasline.tokens.saved import IGNORED, read_summary, read_token_set
from tests.conftest import LENIENT_GATES, enter, lay_workspace, run_stages

pytestmark = pytest.mark.e2e  # whole runs of stages

LABELS = ["O", "B-LOC", "B-PER", "I-PER"]
SETTINGS = {
    "kind": "tagging",
    "base": "data/bases/tiny-bloom.json",
    "data": "rows.conll",
    "quality": {"near_duplicate": 1.0, "off": ["leak"]},
    "train": {"min_steps": 20, "epochs": 0.1, "batch_size": 8},
    "gates": LENIENT_GATES,
}


def sentence(number):
    """Words and tags: with one name or two, a place, and a number that makes it another sentence."""
    name = [("Ada", "B-PER"), ("Lovelace", "I-PER")][: 1 + number % 2]
    place = ("Oslo", "Bergen", "Turku")[number % 3]
    return [*name, ("left", "O"), (place, "B-LOC"), ("on", "O"), ("day", "O"), (str(number), "O"), (".", "O")]


def conll(count=96):
    return "\n".join("".join(f"{word} {tag}\n" for word, tag in sentence(number)) for number in range(1, count))


def laid(folder, **settings):
    (folder / "rows.conll").write_text(conll())
    return Task.model_validate(SETTINGS | settings), TaskPlace("names")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """The workspace after all stages up to evaluation, and what that said."""
    folder = tmp_path_factory.mktemp("names")
    lay_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        task, place = laid(folder)
        return folder, task, place, run_stages(task, place)


@pytest.fixture
def run(run_once, workspace, empty_store):
    """A copy of it to work in, with an empty store: its task and place."""
    folder, task, place, _ = run_once
    for name in ("rows.conll", place.folder):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, workspace / name)
    shutil.copy(empty_store, workspace)
    (workspace / "params.yaml").write_text(json.dumps({"tasks": {"names": SETTINGS}}))
    return task, place


def package(task, place):
    return Package(task, BiasDelta.load(place.delta), read_pin(Path(task.base)), Path(task.base))


def test_rows_of_a_conll_file_become_words_and_tags(run):
    clean = pl.read_parquet(run[1].split("train"))
    first = clean.sort("row").row(0, named=True)
    words = sentence(first["row"])
    assert first["text"] == " ".join(word for word, _ in words)
    assert first["tags"] == " ".join(tag for _, tag in words)


def test_the_first_token_of_each_word_has_its_tag(run, demo_tokenizer):
    _, place = run
    assert read_summary(place)["labels"] == LABELS
    for row in read_token_set(place, "train").to_list()[:10]:
        ids, labels = [], []
        for at, (word, tag) in enumerate(sentence(row["row"])):
            tokens = demo_tokenizer(" " * bool(at) + word).input_ids
            ids += tokens
            labels += [LABELS.index(tag), *[IGNORED] * (len(tokens) - 1)]
        assert (row["input_ids"], row["labels"]) == (ids, labels)


def test_the_pages_say_what_there_is(run):
    _, place = run
    page = place.quality_page.read_text()
    assert "| PER | 95 |" in page and "| LOC | 95 |" in page
    preview = place.preview.read_text()
    assert "tags O, B-LOC, B-PER, I-PER" in preview and "Ada/B-PER" in preview


def test_evaluation_judges_by_f1_of_entities(run_once, run):
    _, place = run
    metrics = json.loads(place.metrics.read_text())
    assert metrics["metric"] == "f1" and metrics["sliced_by"] == "exact_match"
    names = {"f1", "f1_low", "f1_high", "precision", "recall", "accuracy", "accuracy_low", "exact_match"}
    for who in ("base", "probe", "tuned"):
        assert names <= set(metrics[who])
    assert run_once[3].startswith("f1 on ")
    # Each word has one tag here, so that the most frequent one is right wherever the word was seen.
    assert metrics["base"]["f1"] == 1.0
    rows = pl.read_parquet(place.predictions)
    assert rows["base"].to_list() == rows["tags"].to_list()


def test_the_card_has_a_line_for_each_type(run):
    card = run[1].card.read_text()
    assert "| tag that each word mostly has |" in card and "| head alone on the frozen base |" in card
    assert "| type | in rows | given | right | precision | recall | F1 |" in card
    assert "\n| LOC | " in card and "\n| PER | " in card and "## Most wrong tags" in card
    pairs = pl.read_csv(run[1].confusion / "labels.csv")
    assert pairs.columns == ["actual", "predicted"] and pairs["actual"].is_in(["LOC", "PER", "O"]).all()


@pytest.mark.slow
def test_all_stages_again_give_the_same_bytes(run):
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
        assert (answer["words"], answer["tags"]) == (wanted["words"], wanted["tags"])
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
        for one, other in zip(answer["entities"], wanted["entities"], strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    given = scored_on(package(task, place), evaluated)
    names = ["row", "tags", "tuned", "tuned_exact"]
    assert given.select(names).equals(evaluated.select(names)) and "tuned_probabilities" in given.columns


def test_entities_stand_at_their_places_in_running_text(run):
    predictor = package(*run).predictor()
    text = "Ada Lovelace left  Oslo, on day 7."
    [answer, listed] = predictor([{"text": text}, {"text": ["Ada", "left", "Oslo", "."]}])
    assert answer["words"] == ["Ada", "Lovelace", "left", "Oslo", ",", "on", "day", "7", "."]
    assert len(answer["tags"]) == len(answer["probabilities"]) == 9 and answer["entities"]
    for one in answer["entities"]:
        assert text[one["start"] : one["end"]] == one["text"]
    for one in listed["entities"]:
        assert "Ada left Oslo ."[one["start"] : one["end"]] == one["text"]


def test_a_text_over_the_length_is_tagged_to_its_end(run):
    task, place = run
    short = task.model_copy(update={"tokens": task.tokens.model_copy(update={"max_length": 16})})
    words = [word for number in range(1, 30) for word, _ in sentence(number)]
    [answer] = package(short, place).predictor()([{"text": words}])
    assert len(answer["tags"]) == len(words) and all(0 < one <= 1 for one in answer["probabilities"])
    assert any(one["end"] > len(" ".join(words)) // 2 for one in answer["entities"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "row 2: `text` must be a text or a list of words, not missing"),
        (3, "row 2: `text` must be a text or a list of words, not a value of type int"),
        ("  ", "row 2: `text` must be a text, not an empty one"),
        ([], "row 2: `text` must be a text or a list of words, not an empty one"),
        (["a", ""], "row 2: `text` must be a text or a list of words; '' is no word"),
        (["a b"], "row 2: .*'a b' is no word → give one text per row"),
        (["a", None], "row 2: .*a value of type NoneType is no word"),
        (["a\ud83d"], "row 2: `text` has half a surrogate pair"),
    ],
)
def test_what_is_neither_a_text_nor_words_is_refused(run, given, told):
    predictor = package(*run).predictor()
    with pytest.raises(BiaslineError, match=told):
        predictor([{"text": "so"}, {"text": given}])


def test_a_file_of_texts_and_lists_is_asked(run, workspace):
    Path("asked.jsonl").write_text('{"text": "I saw Oslo, today."}\n{"text": ["the", "U.S."]}\n')
    rows = read_asked(Path("asked.jsonl"), columns_of("tagging"), run[0].source)
    assert rows == [{"text": "I saw Oslo, today."}, {"text": ["the", "U.S."]}]
    Path("asked.csv").write_text('text\n"[""the"", ""U.S.""]"\n[1] is cited\n')
    rows = read_asked(Path("asked.csv"), columns_of("tagging"), run[0].source)
    assert rows == [{"text": ["the", "U.S."]}, {"text": "[1] is cited"}]
    Path("asked.jsonl").write_text('{"text": 5}\n')
    assert read_asked(Path("asked.jsonl"), columns_of("tagging"), run[0].source) == [{"text": 5}]
    Path("asked.conll").write_text("Ada B-PER\nleft O\n")
    assert read_asked(Path("asked.conll"), columns_of("tagging"), run[0].source) == [{"text": ["Ada", "left"]}]


def test_an_answer_in_a_line_and_in_a_signature():
    answering = find_answering("tagging")
    told = [{"text": "Ada Lovelace", "type": "PER"}, {"text": "Oslo", "type": "LOC"}]
    assert answering.line({"entities": told}) == "Ada Lovelace/PER Oslo/LOC"
    assert answering.line({"entities": []}) == "(none)"
    outputs = json.loads(signature(Task.model_validate(SETTINGS)).to_dict()["outputs"])
    assert [one["name"] for one in outputs] == ["words", "tags", "probabilities", "entities"]
    assert set(outputs[-1]["items"]["properties"]) == {"type", "text", "start", "end", "probability"}


def test_a_second_text_is_refused(run):
    told = CliRunner().invoke(app, ["predict", "names", "one", "--input", "two"])
    assert told.exit_code == 2 and "names takes one text a row" in told.output


@pytest.mark.slow
def test_plain_tags_of_json_rows_and_another_method(workspace):
    words = [sentence(number) for number in range(1, 60)]
    tags = {"O": "X", "B-PER": "NOUN", "I-PER": "NOUN", "B-LOC": "NOUN"}
    rows = [{"tokens": [word for word, _ in row], "tags": [tags[tag] for _, tag in row]} for row in words]
    Path("rows.json").write_text(json.dumps(rows))
    task, place = laid(workspace, data="rows.json", train={**SETTINGS["train"], "min_steps": 2, "method": "lora"})
    run_stages(task, place)
    assert "tags mark no entities" in place.quality_page.read_text()
    metrics = json.loads(place.metrics.read_text())
    assert metrics["tuned"]["f1"] == pytest.approx(metrics["tuned"]["accuracy"], abs=1e-6)


@pytest.mark.slow
def test_from_two_lines_of_params_to_a_champion_that_is_asked(run, monkeypatch):
    from biasline.registry.promote import promote
    from biasline.registry.sync import register
    from biasline.serving.package_check import check_package
    from biasline.tracking.record import record_of_workspace
    from biasline.tracking.store import connect

    task, place = run
    monkeypatch.setattr("biasline.registry.versions.check_package", check_package)
    client, record = connect(), record_of_workspace("names")
    register(client, record)
    decision = promote(client, "names", task, by="tests", reason="a first one")
    assert decision.promoted, decision.verdict
    Path("asked.jsonl").write_text('{"text": ["a b"]}\n')
    refused = CliRunner().invoke(app, ["predict", "names", "--file", "asked.jsonl"])
    assert isinstance(refused.exception, BiaslineError)
    assert str(refused.exception).startswith("row 1: `text` must be a text or a list of words; 'a b' is no word")
    text = "Ada Lovelace left Oslo on day 7."
    told = CliRunner().invoke(app, ["predict", "names", text])
    assert told.exit_code == 0, told.output
    shared = CliRunner().invoke(app, ["predict", "--tasks", "names", text, "--json"])
    [row] = json.loads(shared.stdout[shared.stdout.index("[") :])
    assert find_answering("tagging").line(row) == told.stdout.rstrip("\n")
    assert all(text[one["start"] : one["end"]] == one["text"] for one in row["entities"])
    merged = CliRunner().invoke(app, ["merge", "names", "merged"])
    assert merged.exit_code == 0, merged.output
    usage = Path("merged/README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir("merged")
    printed: list[object] = []
    exec(usage, {"print": printed.append})
    evaluated = pl.read_parquet(Path("..") / place.predictions).row(0, named=True)
    assert printed == [[*zip(evaluated["text"].split(" "), evaluated["tuned"].split(" "), strict=True)]]
