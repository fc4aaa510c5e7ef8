"""Many tasks on one base in memory: the answers are those of each task alone."""

import json
import shutil

import pytest
import torch

from biasline.bases.pin import read_pin, verified_folder
from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from biasline.evaluation.serving import Package, SharedBase
from biasline.params import Task
from biasline.tokens.template import Turn

PIN = "data/bases/tiny-bloom.json"


def package(workspace, seed, labels=(), **more):
    """A task on the demo base, see `moved`."""
    kind = "classification" if labels else "instruction"
    return moved(
        workspace / PIN, Task(kind=kind, base=PIN, data="d", evaluate={"max_new_tokens": 6}, **more), seed, labels
    )


def moved(path, task, seed, labels):
    """A task whose biases and head were moved at random, as training would."""
    pin = read_pin(path)
    about = {"pooling": "mean"} if task.train.pooling == "mean" else {}
    empty = Package(task, _Labelled(labels, about), pin, path)
    model = empty.load(empty.base())
    head = [name for name, _ in model.named_parameters() if name.startswith(("score", "classifier"))]
    tuning = tune_biases(model, "attention+mlp", head=head)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for master in tuning.masters:
            master.add_(torch.randn(master.shape, generator=generator) * 0.3)
    base = {"name": pin.name, "digest": pin.digest}
    return Package(task, BiasDelta.of(tuning, base=base, about=about, labels=labels), pin, path)


class _Labelled:
    """As much of a delta as loading its base asks for."""

    def __init__(self, labels, about):
        self.manifest = self
        self.labels = list(labels)
        self.about = about


TEXTS = ["Count to three.", "What a fine day"]
ROWS = {
    "answers": [{"instruction": text} for text in TEXTS],
    "rhymes": [{"instruction": text} for text in TEXTS],
    "mood": [{"text": text} for text in TEXTS],
    "topic": [{"text": text} for text in TEXTS],
}


@pytest.fixture
def packages(workspace):
    return {
        "mood": package(workspace, 1, ["bad", "good"]),
        "answers": package(workspace, 2),
        "topic": package(workspace, 3, ["art", "music", "sport"]),
        "rhymes": package(workspace, 4),
    }


def test_four_tasks_on_one_base_answer_as_each_does_alone(packages):
    alone = {name: one.predictor()(ROWS[name]) for name, one in packages.items()}
    assert alone["answers"] != alone["rhymes"]
    base = SharedBase(packages)
    assert base.loads == 1
    for name in ("mood", "answers", "rhymes", "topic", "answers", "mood", "mood"):
        predictor, _ = base.ask(name)
        assert predictor(ROWS[name]) == alone[name], name
    assert base.loads == 1  # what a change of tasks does not take is a new base
    bodies = {base.ask(name)[0].model.base_model for name in packages}
    assert len(bodies) == 1


def test_classifiers_alone_share_a_base_too(packages):
    two = {name: packages[name] for name in ("mood", "topic")}
    base = SharedBase(two)
    assert base.loads == 1
    for name in ("topic", "mood"):
        assert base.ask(name)[0](ROWS[name]) == two[name].predictor()(ROWS[name])


def test_no_delta_stays_behind(packages):
    base = SharedBase(packages)
    body = base.ask("answers")[0].model.base_model
    pin, folder = verified_folder(packages["mood"].pin_path)
    own = packages["answers"].load(folder).base_model.state_dict()
    packages["answers"].delta.revert(base.ask("answers")[0].model)
    assert all(torch.equal(value, own[name]) for name, value in body.state_dict().items())


def test_tasks_of_different_bases_are_not_mixed(packages, workspace):
    bf16 = package(workspace, 5, load={"dtype": "bfloat16"})
    with pytest.raises(BiaslineError, match=r"other: its base is tiny-bloom in bfloat16, that of mood is .* float32"):
        SharedBase({"mood": packages["mood"], "other": bf16})


def test_a_delta_of_another_base_is_not_packaged(packages, workspace):
    one = packages["answers"]
    files = {name: workspace / name for name in ("delta", "task", "pin")}
    one.delta.save(files["delta"])
    files["task"].write_text(one.task.model_dump_json())
    files["pin"].write_text(one.pin.model_copy(update={"files": {"config.json": "0" * 64}}).dumps())
    with pytest.raises(BiaslineError, match="the delta was trained on the base tiny-bloom"):
        Package.read(files, one.pin_path)
    shutil.copy(workspace / PIN, files["pin"])
    assert Package.read(files, one.pin_path).predictor()(ROWS["answers"])


def test_what_was_said_before_is_part_of_the_question(packages):
    ask = packages["answers"].predictor()
    before = [{"role": "user", "content": "Count to two."}, {"role": "assistant", "content": "one, two"}]
    row = {"instruction": "And on."}
    plain, told = ask([row, row | {"history": before}])
    assert told != plain
    shapes = [
        [list(turn.values()) for turn in before],
        json.dumps(before),
        [{"from": "human", "value": "Count to two."}, before[1]],
    ]
    assert ask([row | {"history": shape} for shape in shapes]) == [told] * 3
    assert ask([row | {"history": none} for none in (None, float("nan"), "", [])]) == [plain] * 4
    seen = ask._dialogues.prompts(
        [[Turn("user", "Count to two."), Turn("assistant", "one, two"), Turn("user", "And on.")]]
    )
    assert (
        ask.tokenizer.decode(seen[0]) == "Human: Count to two.\n\nAssistant: one, two</s>Human: And on.\n\nAssistant: "
    )


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ("not json", "row 2: `history` must be a list of {role, content}"),
        ([{"role": "robot", "content": "x"}], "row 2: `history` must be a list of {role, content}"),
        (7, "row 2: `history` must be a list"),
        ([{"role": "user", "content": "x"}], "user and assistant must speak in turn, the assistant last"),
    ],
)
def test_a_history_that_is_none_is_told(packages, history, told):
    with pytest.raises(BiaslineError, match=told):
        packages["answers"].predictor()([{"instruction": "so"}, {"instruction": "so", "history": history}])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "row 2: `instruction` must be a text, not missing"),
        ({"instruction": 5}, "row 2: `instruction` must be a text, not a value of type int"),
        ({"instruction": ["a"]}, "row 2: `instruction` .* type list → give one text per row"),
        ({"instruction": " \n"}, "row 2: `instruction` must be a text, not an empty one"),
        ({"instruction": "a \ud83d"}, "row 2: `instruction` has half a surrogate pair at character 2"),
        ({"instruction": "a", "input": 5}, "row 2: `input` must be a text"),
        ({"instruction": "a", "input": False}, "row 2: `input` must be a text"),
        ({"instruction": "a", "history": 0.5}, "row 2: `history` must be a list"),
        ({"instruction": "a", "history": "[" * 10_000}, "row 2: `history` must be a list"),
        ({"instruction": "a", "history": [["user", "\ud83d"], ["assistant", "b"]]}, "row 2: `history` has half a"),
    ],
)
def test_a_cell_that_is_no_text_is_told_by_row_and_column(packages, row, told):
    with pytest.raises(BiaslineError, match=told):
        packages["answers"].predictor()([{"instruction": "so", "input": None}, row])


def test_settings_out_of_their_limits_are_refused(packages):
    """Nothing longer than a row of training: one request must not keep a server busy for hours."""
    ask, row = packages["answers"].predictor(), [{"instruction": "so"}]
    limits = {"max_new_tokens": (0, 257, None, 1.5), "temperature": (-1, 1e-5, 11, float("nan"))}
    limits |= {"top_p": (0, 1.1, "x"), "seed": (-1, 2**63, None)}
    for name, values in limits.items():
        for value in values:
            with pytest.raises(BiaslineError, match=rf"^params: {name}: .* is refused"):
                ask(row, {name: value})
    with pytest.raises(BiaslineError, match="^params: seed: true is no number"):
        ask(row, {"seed": True})
    with pytest.raises(BiaslineError, match="params: batch_size: unknown; known are max_new_tokens, temperature"):
        ask(row, {"batch_size": 1})
    with pytest.raises(BiaslineError, match="no rows"):
        ask([])
    assert ask(row, {"max_new_tokens": 256, "temperature": 1, "top_p": 0.5, "seed": 2**63 - 1})


def test_the_longest_answer_leaves_prompts_their_positions(packages):
    from dataclasses import replace

    ask = packages["answers"].predictor()
    assert ask.longest_answer == 256  # ALiBi knows no positions
    assert replace(ask, positions=300).longest_answer == 300 - 256
    assert replace(ask, positions=256).longest_answer == ask.task.evaluate.max_new_tokens
    row = {"instruction": "so " * 300}
    for positions, room in ((None, 254), (300, 254), (256, 256 - ask.task.evaluate.max_new_tokens)):
        [given] = replace(ask, positions=positions).inputs([row])
        assert room - 1 <= len(given["input_ids"]) <= room
    [given] = replace(ask, positions=256).inputs([row], max_new_tokens=100)
    assert 155 <= len(given["input_ids"]) <= 156


@pytest.fixture
def bert(workspace):
    """A tiny BERT with a pooler, and the demo's tokenizer; makes packages on it."""
    from transformers import BertConfig, BertModel

    from biasline.bases.create import create_pin

    folder = workspace / "data/bases/bert"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    BertModel(BertConfig(**sizes, vocab_size=1792)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(workspace / "data/bases/tiny-bloom" / name, folder)
    path = folder.with_suffix(".json")
    path.write_text(create_pin(str(folder), path).dumps())

    def make(seed, labels, pooling):
        task = Task(kind="classification", base="data/bases/bert.json", data="d", train={"pooling": pooling})
        return moved(path, task, seed, labels)

    return make


def test_tasks_that_pool_alike_share_a_base_and_others_do_not(bert):
    packages = {
        "mood": bert(1, ["bad", "good"], "mean"),
        "topic": bert(2, ["art", "music", "sport"], "mean"),
        "tone": bert(3, ["kind", "rude"], "model"),
    }
    alone = {name: one.predictor()(ROWS["mood"]) for name, one in packages.items()}
    base = SharedBase(packages)
    assert base.loads == 2
    for name in ("tone", "mood", "topic", "tone"):
        assert base.ask(name)[0](ROWS["mood"]) == alone[name], name
