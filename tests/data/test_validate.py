import json
import os
import re
import subprocess
import sys

import polars as pl
import pytest

from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.tokens.sets import tokenize


def task(**more):
    return Task(base="b", data="rows.jsonl", **more)


def test_the_outs_hold_every_row_once(workspace):
    place = TaskPlace("small")
    told = validate(task(), place)
    assert told.startswith("200 rows")
    rows = [
        row for name in ("train", "valid", "test", "quarantine") for row in pl.read_parquet(place.split(name))["row"]
    ]
    assert sorted(rows) == list(range(1, 201))
    numbers = json.loads(place.quality.read_text())
    assert numbers["rows"] == 200
    assert sum(numbers["splits"].values()) + numbers["quarantined"] == 200


def test_outs_are_the_same_bytes_each_time(workspace):
    place = TaskPlace("small")

    def outs():
        validate(task(), place)
        return {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}

    assert outs() == outs()


def test_the_page_shows_the_refused_rows(workspace):
    with open("rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "tell | me", "input": "", "output": "a\x07"}) + "\n")
    place = TaskPlace("small")
    validate(task(), place)
    page = place.quality_page.read_text(encoding="utf-8")
    assert "| 201 | control_characters | tell \\| me |  | a\\x07 |" in page


def test_a_failure_leaves_the_old_outs(workspace):
    place = TaskPlace("small")
    validate(task(), place)
    before = {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    with pytest.raises(BiaslineError):
        validate(task(quality={"max_output_chars": 1}), place)
    assert {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before


def test_the_page_shows_how_long_rows_are(workspace):
    place = TaskPlace("small")
    validate(task(), place)
    page = place.quality_page.read_text(encoding="utf-8")
    assert "| characters of the prompt | rows | |" in page and "| characters of the output | rows | |" in page
    rows = [{"text": f"text number {n}", "label": "ab"[n % 4 == 0]} for n in range(80)]
    (workspace / "labels.json").write_text(json.dumps(rows))
    validate(Task(base="b", data="labels.json", kind="classification"), place)
    page = place.quality_page.read_text(encoding="utf-8")
    assert f"| a | 60 | {'█' * 30} |\n| b | 20 | {'█' * 10} |" in page


def test_what_is_left_out_is_counted_and_said(workspace, capsys):
    place = TaskPlace("small")
    validate(task(), place)
    assert "left_out" not in json.loads(place.quality.read_text())
    skills = pl.read_parquet(place.split("train"))["skill"].unique().sort().to_list()
    validate(task(source={"where": {"skill": skills[:1]}}, split={"valid": 0.3, "test": 0.3}), place)
    numbers = json.loads(place.quality.read_text())
    assert numbers["rows"] + numbers["left_out"]["source.where"] == 200
    note = f"source.where leaves out {numbers['left_out']['source.where']:,} of the data's records"
    assert f"note: {note}" in capsys.readouterr().out and f"- {note}" in place.quality_page.read_text()
    for name in ("train", "valid", "test"):
        assert pl.read_parquet(place.split(name))["skill"].unique().to_list() == skills[:1]


def test_a_filter_leaves_every_row_in_its_split(workspace):
    place = TaskPlace("small")

    def splits():
        return {
            row: name
            for name in ("train", "valid", "test")
            for row in pl.read_parquet(place.split(name))["row"].to_list()
        }

    validate(task(), place)
    before = splits()
    validate(task(source={"where": "length(output) > 2"}), place)
    after = splits()
    assert len(after) < len(before) and after.items() <= before.items()


def test_labels_that_differ_in_form_are_said(workspace, capsys):
    rows = [{"text": f"visit {n} was fine", "label": ["Yes", "yes", "no"][n % 3]} for n in range(120)]
    (workspace / "forms.json").write_text(json.dumps(rows))
    validate(Task(base="b", data="forms.json", kind="classification"), TaskPlace("forms"))
    assert "note: labels that differ in form alone are classes of their own: 'Yes' (40 rows) and 'yes'" in (
        capsys.readouterr().out
    )


ROW = '{"instruction": "Ask %d", "input": "", "output": "say %d"}'


def rows(count, *more):
    return "\n".join([*(ROW % (n, n) for n in range(count)), *more])


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("[" + rows(40).replace("\n", ",\n"), r"bad\.json: broken JSON at line 40, column \d+: the array does not end"),
        ("[]", r"bad\.json: no rows in it"),
        ("", r"bad\.json: empty"),
        (ROW % (1, 1), r"the (train|valid|test) split is empty: 1 good row is too few"),
        (
            "\n".join(json.dumps({"instruction": f"Ask {n}", "output": ""}) for n in range(40)),
            r"40 of 40 rows \(100\.0%\) break",
        ),
        (
            rows(40, *(json.dumps({"instruction": "Ask", "output": n}) for n in range(9))),
            r"9 of 49 rows \(18\.4%\) break the hard rule not_text",
        ),
        (
            rows(40, *(json.dumps({"instruction": f"A\0 {n}", "output": "b"}) for n in range(9))),
            "hard rule control_characters",
        ),
        ("instruction,output,output\na,b,c\n", r"column 'output' stands twice in the header"),
        ("instruction,output\na,b\nc\n", r"row 2 \(line 3\) has 1 fields, the first line has 2"),
    ],
)
def test_bad_input_is_told_and_leaves_the_old_outs(workspace, raw, told):
    place = TaskPlace("small")
    validate(task(), place)
    before = {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    (workspace / "bad.json").write_text(raw, encoding="utf-8")
    bad = Task(base="b", data="bad.json")
    with pytest.raises(BiaslineError, match=told):
        validate(bad, place)
    assert {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before
    assert not list(place.folder.glob(".*"))


def test_a_folder_without_data_is_told(workspace):
    (workspace / "nothing").mkdir()
    with pytest.raises(BiaslineError, match="nothing: no data file in this folder → files end in"):
        validate(Task(base="b", data="nothing"), TaskPlace("small"))


def test_a_cell_of_ten_megabytes_goes_to_quarantine(workspace):
    (workspace / "long.json").write_text(rows(60, json.dumps({"instruction": "x" * 10_000_000, "output": "y"})))
    place = TaskPlace("small")
    validate(Task(base="b", data="long.json"), place)
    assert pl.read_parquet(place.split("quarantine"))["reasons"].to_list() == [["long_prompt"]]
    assert place.quality_page.stat().st_size < 10_000


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the system refuses longer files, as a full disk would
from biasline.process import exit_on_error
from biasline.layout import TaskPlace
from biasline.params import read_task
from biasline.data.augment import augment
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.tokens.sets import tokenize
place = TaskPlace("small")
stage = {"validate": validate, "augment": augment, "tokenize": tokenize}[sys.argv[1]]
exit_on_error(lambda: stage(read_task(place.resolved), place))
"""


@pytest.mark.e2e  # processes
@pytest.mark.parametrize(
    "stage", ["validate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("augment", "tokenize"))]
)
def test_what_cannot_be_written_is_told_and_leaves_the_old_outs(workspace, root, stage):
    place = TaskPlace("small")
    small = Task(base="data/bases/tiny-bloom.json", data="rows.jsonl", augment={"eda": 2})
    validate(small, place)
    augment(small, place)
    tokenize(small, place)
    place.resolved.write_text(small.model_dump_json())
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, stage],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root / "src")},
    )
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"^error: data/small/\w+(\.parquet)?: cannot be written: .*File too large.* → free some space",
        done.stderr,
        re.M,
    )
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before
    assert not list(place.folder.glob(".*"))


def test_a_test_file_of_which_nothing_is_left_is_no_test(workspace):
    folder = workspace / "files"
    folder.mkdir()
    (folder / "train.jsonl").write_text(rows(100))
    (folder / "test.jsonl").write_text(
        "\n".join(json.dumps({"instruction": f"Test {n}", "output": ""}) for n in range(9))
    )
    with pytest.raises(BiaslineError, match="the test file has 9 rows and none keeps the contract → mend it"):
        validate(Task(base="b", data="files"), TaskPlace("small"))


def test_a_training_file_of_which_all_leaks_is_told(workspace):
    folder = workspace / "files"
    folder.mkdir()
    for name in ("train", "test"):
        lines = [f"{'A good' if n % 2 else 'A bad'} film number {n}\t{n % 2}" for n in range(60)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    small = Task(base="b", data="files", kind="classification", quality={"max_quarantine": 1, "off": ["duplicate"]})
    with pytest.raises(BiaslineError, match="the train split is empty"):
        validate(small, TaskPlace("small"))


def test_a_damaged_split_is_told(workspace):
    place = TaskPlace("small")
    validate(task(), place)
    place.split("train").write_bytes(b"PAR1junk")
    with pytest.raises(BiaslineError, match=r"train\.parquet: damaged: .* → dvc repro --force validate@small"):
        augment(task(), place)


def test_a_label_that_no_held_out_row_has_is_told(workspace, capsys):
    rows = [{"text": f"visit number {number} was fine", "label": "good"} for number in range(300)]
    (workspace / "rare.json").write_text(json.dumps([*rows, {"text": "a rare thing", "label": "bad"}]))
    place = TaskPlace("rare")
    validate(
        Task(base="b", data="rare.json", kind="classification", quality={"off": ["leak", "near_duplicate"]}), place
    )
    told = capsys.readouterr().out
    for split in ("valid", "test"):
        assert f"no {split} row has the label 'bad': no number of that split says anything about it" in told
    assert "no test row has the label 'bad'" in place.quality_page.read_text()
