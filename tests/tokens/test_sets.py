import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from biasline.bases.pin import file_sha256
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Source, Task, read_params
from biasline.tokens.saved import IGNORED, read_summary, read_token_set
from biasline.tokens.sets import tokenize


@pytest.fixture
def small(workspace):
    task, place = read_params(workspace / "params.yaml").tasks["small"], TaskPlace("small")
    validate(task, place)
    augment(task, place)
    return task, place


def test_token_sets_hold_every_clean_row(small):
    task, place = small
    tokenize(task, place)
    counts = json.loads(place.quality.read_text())["splits"]
    for split, rows in counts.items():
        found = read_token_set(place, split)
        assert len(found) == rows
        for example in found:
            assert len(example["input_ids"]) == len(example["labels"])
            assert any(label != IGNORED for label in example["labels"])


def test_bytes_are_the_same_each_time(small):
    task, place = small

    def outs():
        tokenize(task, place)
        return {path.as_posix(): path.read_bytes() for path in place.tokens.rglob("*") if path.is_file()}

    assert outs() == outs()


def test_the_preview_marks_what_is_supervised(small):
    task, place = small
    tokenize(task, place)
    page = place.preview.read_text(encoding="utf-8")
    assert "Assistant: ⟦" in page
    assert "</s>⟧" in page
    assert page.count("⟦") == page.count("⟧")


def test_left_out_rows_are_counted_and_listed(small):
    task, place = small
    short = task.model_copy(update={"tokens": task.tokens.model_copy(update={"max_length": 24})})
    assert "rows left out (answer over max_length, or without a token)" in tokenize(short, place)
    assert read_summary(place)["splits"]["train"]["rejected_rows"]


def test_a_changed_base_is_refused_and_old_outs_stay(small, workspace):
    task, place = small
    tokenize(task, place)
    before = (place.tokens / "summary.json").read_bytes()
    config = workspace / "data/bases/tiny-bloom/tokenizer_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(BiaslineError, match=r"tokenizer_config\.json has changed since it was pinned"):
        tokenize(task, place)
    assert (place.tokens / "summary.json").read_bytes() == before


def test_dialogues_go_through_with_every_answer_supervised(workspace):
    talks = [
        [
            {"role": "user", "content": f"Count {n}"},
            {"role": "assistant", "content": f"one {n}"},
            {"role": "user", "content": "and on"},
            {"role": "assistant", "content": f"two {n}"},
        ]
        for n in range(120)
    ]
    (workspace / "talks.json").write_text(json.dumps([{"messages": talk} for talk in talks]))
    task = Task(base="data/bases/tiny-bloom.json", data="talks.json", quality={"off": ["near_duplicate", "leak"]})
    place = TaskPlace("talks")
    validate(task, place)
    augment(task, place)
    tokenize(task, place)
    page = place.preview.read_text(encoding="utf-8")
    shown = re.search(
        r"Human: Count (\d+)\n\nAssistant: ⟦one (\d+)</s>⟧Human: and on\n\nAssistant: ⟦two (\d+)</s>⟧", page
    )
    assert shown and len(set(shown.groups())) == 1


def test_the_template_is_a_choice(small):
    task, place = small
    tokenize(task.model_copy(update={"tokens": task.tokens.model_copy(update={"template": "alpaca"})}), place)
    assert "### Response:⟦" in place.preview.read_text(encoding="utf-8")
    assert read_summary(place)["template"] == "alpaca"
    with pytest.raises(BiaslineError, match="no chat template"):
        tokenize(task.model_copy(update={"tokens": task.tokens.model_copy(update={"template": "chat"})}), place)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("so", "a")] * 60, "all training rows have the label 'a' → a classification needs two labels at least"),
        (
            [(f"so {n}", "ab"[n % 2]) for n in range(60)] + [("odd", "c")],
            r"row 2 \(test split\) has the label 'c', which no",
        ),
    ],
)
def test_labels_that_training_does_not_know_are_told(workspace, rows, told):
    folder = workspace / "files"
    folder.mkdir()
    parts = {"test": rows[-2:], "train": rows[:-2]}
    for name, part in parts.items():
        lines = [f"{text} {name} {number}\t{label}" for number, (text, label) in enumerate(part)]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    task = Task(
        base="data/bases/tiny-bloom.json",
        data="files",
        kind="classification",
        quality={"off": ["leak", "near_duplicate"]},
    )
    place = TaskPlace("labels")
    named = task.source.model_copy(update={"labels": ("a", "b", "c")})  # or validate would stop
    validate(task.model_copy(update={"source": named}), place)
    augment(task, place)
    with pytest.raises(BiaslineError, match=told):
        tokenize(task, place)


def test_a_text_far_over_the_limit_is_cut_and_rare_labels_are_noted(workspace, capsys):
    rows = [
        {"text": f"word {n} " * (1700 if n == 0 else 1), "label": "rare" if n in (5, 900) else "often"}
        for n in range(1000)
    ]
    (workspace / "rows.json").write_text(json.dumps(rows))
    task = Task(
        base="data/bases/tiny-bloom.json",
        data="rows.json",
        kind="classification",
        tokens={"max_length": 32},
        quality={"max_prompt_chars": 20000},
    )
    place = TaskPlace("labels")
    validate(task, place)
    assert "unbalanced labels: 'often' has" in capsys.readouterr().out
    augment(task, place)
    tokenize(task, place)
    assert max(numbers["longest"] for numbers in read_summary(place)["splits"].values()) == 32


def test_lengths_stand_in_the_range_that_they_end(trained):
    _, place = trained
    table, rows = pl.read_csv(place.lengths), read_token_set(place, "train")
    lengths = np.array([len(ids) for ids in rows["input_ids"]])
    assert table["tokens"].to_list() == [8 * number for number in range(1, table.height + 1)]  # 256 / 32
    before = 0
    for end, share in table.select("tokens", "train").rows():
        assert share == pytest.approx(((before < lengths) & (lengths <= end)).mean(), abs=1e-6)
        before = end
    assert table["train"].sum() == pytest.approx(1.0, abs=1e-5)


def changed_tokens(task, **values):
    return task.model_copy(update={"tokens": task.tokens.model_copy(update=values)})


TALK = [
    {"role": "user", "content": "one two three four"},
    {"role": "assistant", "content": "five six"},
    {"role": "user", "content": "seven"},
    {"role": "assistant", "content": "eight"},
]


def of_rows(workspace, rows, **params):
    """Rows through validation; the task, and its place."""
    (workspace / "some.json").write_text(json.dumps(rows))
    quality = {"off": ["near_duplicate", "leak"]}
    task = Task(base="data/bases/tiny-bloom.json", data="some.json", quality=quality, **params)
    place = TaskPlace("some")
    validate(task, place)
    augment(task, place)
    return task, place


def test_what_a_row_lost_is_in_summary_preview_and_line(workspace, capsys):
    talks = [
        {"messages": [{**turn, "content": f"{turn['content']} {number}"} for turn in TALK]} for number in range(120)
    ]
    talks += [{"messages": [{"role": "user", "content": "nine " * 60 + f"{number}"}, TALK[3]]} for number in range(12)]
    task, place = of_rows(workspace, talks, tokens={"max_length": 32})
    line = tokenize(task, place)
    splits = read_summary(place)["splits"]
    assert sum(numbers["rows_by_lost_exchanges"].get("1", 0) for numbers in splits.values()) == 120
    assert sum(numbers["cut_rows"] for numbers in splits.values()) == 12
    assert ", 12 rows cut to max_length, 120 dialogues without their oldest exchanges; " in line
    page = place.preview.read_text(encoding="utf-8")
    rows = splits["train"]["rows_by_lost_exchanges"]["1"]
    assert f"Oldest exchanges left out of train for their length: {rows} rows lost 1." in page
    assert "```text\nHuman: seven" in page
    warning = "warning: 9% of the rows are over 32 tokens and lose a part of their question → raise tokens.max_length"
    assert warning in capsys.readouterr().out and warning in page


def test_texts_that_lose_their_end_are_counted(workspace, capsys):
    rows = [
        {"text": f"word {number} " + "and so on " * (30 if number % 2 else 1), "label": f"{number % 2}"}
        for number in range(100)
    ]
    task, place = of_rows(workspace, rows, kind="classification", tokens={"max_length": 32})
    assert ", 50 rows cut to max_length; " in tokenize(task, place)
    assert sum(numbers["cut_rows"] for numbers in read_summary(place)["splits"].values()) == 50
    assert "warning: 50% of the rows are over 32 tokens and lose their end" in capsys.readouterr().out


def test_text_that_the_vocabulary_lacks_is_counted(workspace, capsys):
    """A vocabulary of words, most of which are not those of the data."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = workspace / "data/bases/tiny-bloom"
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", unk_token="[UNK]").save_pretrained(folder)
    pin_again(workspace)
    rows = [
        {"text": f"{'good' if number % 2 else 'bad'} ไม่ดี {number}", "label": f"{number % 2}"} for number in range(60)
    ]
    task, place = of_rows(workspace, rows, kind="classification")
    tokenize(task, place)
    splits = read_summary(place)["splits"]
    assert [numbers["unknown_tokens"] for numbers in splits.values()] == [
        2 * len(read_token_set(place, name)) for name in splits
    ]
    assert "warning: 50% of the tokens stand for text that the base's vocabulary lacks" in capsys.readouterr().out


def pin_again(workspace, **config):
    """Pin the demo base with another config."""
    from biasline.bases.create import create_pin

    folder = workspace / "data/bases/tiny-bloom"
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    pin = workspace / "data/bases/tiny-bloom.json"
    pin.write_text(create_pin(str(folder), pin).dumps())


def test_what_the_base_cannot_read_is_refused_before_training(small, workspace):
    task, place = small
    pin = workspace / "data/bases/tiny-bloom.json"
    told = json.loads(pin.read_text())
    config = workspace / "data/bases/tiny-bloom/config.json"

    def with_config(**values):
        config.write_text(json.dumps(json.loads(config.read_text()) | values))
        told["files"]["config.json"] = file_sha256(config)
        pin.write_text(json.dumps(told))

    with_config(model_type="gpt2", n_positions=64)  # BLOOM has no limit
    with pytest.raises(
        BiaslineError, match=r"tokens\.max_length: 256 is more than the 64 positions of base tiny-bloom"
    ):
        tokenize(task, place)
    tokenize(changed_tokens(task, max_length=64), place)
    long = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"max_new_tokens": 64})})
    with pytest.raises(BiaslineError, match=r"evaluate\.max_new_tokens: 64 leaves no room for a prompt"):
        tokenize(changed_tokens(long, max_length=64), place)
    with_config(n_positions=4096, vocab_size=1000)
    with pytest.raises(
        BiaslineError, match=r"the train split has the token '.+' with id \d{4}, base tiny-bloom has emb"
    ):
        tokenize(task, place)


def test_turns_that_a_template_refuses_are_named_by_row(workspace):
    talks = [{"messages": [{**TALK[0], "content": f"one {number}"}, TALK[1]]} for number in range(60)]
    talks[40]["messages"] = [{"role": "system", "content": "Be kind."}, *talks[40]["messages"]]
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    template += "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    task, place = of_rows(workspace, talks, tokens={"template": template})
    with pytest.raises(
        BiaslineError, match=r"1 of \d+ rows \(row 41\): .* system, user, assistant: System role not supp"
    ):
        tokenize(task, place)


def test_a_choice_of_rows_is_part_of_the_fingerprint(small):
    from biasline.bases.pin import verified_folder
    from biasline.training.fingerprint import fingerprint

    task, place = small
    pin, _ = verified_folder(Path(task.base))
    tokenize(task, place)
    before = fingerprint(task, pin, place)
    filtered = task.model_copy(update={"source": Source(where={"instruction": ["a", "b"]})})
    tokenize(filtered, place)  # the same rows
    assert read_summary(place)["where"] == {"instruction": ["a", "b"]}
    assert fingerprint(filtered, pin, place) != before


def test_a_system_prompt_that_leaves_no_room_is_the_reason(workspace):
    rows = [{"system": "be kind " * 30, "instruction": f"say {number}", "output": f"{number}"} for number in range(90)]
    task, place = of_rows(workspace, rows, tokens={"max_length": 32})
    with pytest.raises(
        BiaslineError, match=r"row \d+: the template and what the system says take \d+ tokens, 30 are left"
    ):
        tokenize(task, place)
