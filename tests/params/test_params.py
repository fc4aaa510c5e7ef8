import json
import re

import pytest
from pydantic import ValidationError

from biasline.errors import BiaslineError
from biasline.params import Task, check_inputs, get_task, read_params, read_task
from biasline.paramsfile import add_task


def write(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


MINIMAL = "tasks:\n  support: {base: b.json, data: rows.json}\n"


def test_a_task_needs_two_lines(tmp_path):
    task = read_params(write(tmp_path, MINIMAL)).tasks["support"]
    assert (task.base, task.data) == ("b.json", "rows.json")
    assert task.train.method == "bitfit"
    assert task.tokens.template == "human-assistant"


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "'1e-4'", "1E-4"])
def test_numbers_are_read_as_numbers(tmp_path, text):
    path = write(tmp_path, f"tasks: {{a: {{base: b, data: d, train: {{learning_rate: {text}}}}}}}")
    assert read_params(path).tasks["a"].train.learning_rate == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "tasks: {a: {base: b, data: d, train: {lerning_rate: 3}}}",
            ["tasks.a.train.lerning_rate", "3", "learning_rate"],
        ),
        ("tasks: {a: {base: b, data: d, trian: {}}}", ["tasks.a.trian", "did you mean 'train'"]),
        ("task: {a: {base: b, data: d}}", ["task", "did you mean 'tasks'"]),
        ("tasks: {a: {base: b}}", ["tasks.a.data", "missing", "the raw data file"]),
        ("tasks: {a: {base: b, data: d, train: {epochs: -1}}}", ["tasks.a.train.epochs", "-1", "greater than 0"]),
        ("tasks: {a: {base: b, data: d, train: {batch_size: many}}}", ["tasks.a.train.batch_size", "many", "integer"]),
        ("tasks: {a: {base: b, data: d, train: {learning_rate: .nan}}}", ["tasks.a.train.learning_rate", "finite"]),
        ("tasks: {a: {base: b, data: d, train: {schedule: cos}}}", ["tasks.a.train.schedule", "cos", "'cosine'"]),
        ("tasks: {a: {base: b, data: d, split: {valid: 0.6, test: 0.5}}}", ["tasks.a.split", "below 1", "1.1"]),
        ("tasks: {A b: {base: b, data: d}}", ["tasks.A b", "small letters"]),
        ("tasks: [a]", ["tasks", "refused"]),
        ("tasks: 5", ["tasks", "5", "refused"]),
        ("tasks: &t {a: *t}", ["tasks"]),
        ("tasks: {bases: {base: b, data: d}}", ["tasks.bases", "another name"]),
        ("tasks: {a: {base: b, data: d, train: {epochs: true}}}", ["tasks.a.train", "epochs: true is no number"]),
        ("tasks: {a: {base: b, data: d, split: {test: 0}}}", ["tasks.a.split.test", "greater than 0"]),
        ("tasks: {a: {base: b, data: d, kind: classification, gates: {metric: exact_match}}}", ["accuracy"]),
        ("tasks: {a: {base: b, data: d, gates: {metric: response_log_likelihood, floor: 5}}}", ["5 is above 0"]),
        ("tasks: {a: {base: b, data: d, gates: {floor: 80}}}", ["80 is beyond 0 … 1, which exact_match lies in"]),
        ("tasks: {a: {base: b, data: d, kind: classification, gates: {floor: -1}}}", ["-1 is beyond 0 … 1"]),
        ("tasks: {a: {base: b, data: d, kind: regression, gates: {floor: 2}}}", ["2 is beyond 0 … 1, which pearson"]),
        (
            "tasks: {a: {base: b, data: d, train: {class_weights: balanced}}}",
            ["params.yaml: tasks.a: train.class_weights balanced: no loss of this kind weighs labels (instruction)"],
        ),
        ("just text", ["expected a mapping"]),
        ("tasks: {a: {base: b, base: c}}", ["not valid YAML", "base"]),
        ("tasks: {a: [", ["not valid YAML"]),
    ],
)
def test_errors_name_key_value_and_what_was_expected(tmp_path, text, told):
    with pytest.raises(BiaslineError) as error:
        read_params(write(tmp_path, text))
    message = str(error.value)
    assert "params.yaml" in message
    assert "\n" not in message
    for part in told:
        assert part in message


def test_numbers_where_names_stand_are_names(tmp_path):
    path = write(tmp_path, "tasks: {a: {base: b, data: d, train: {layers: 2}, source: {labels: [0, 1]}}}")
    task = read_params(path).tasks["a"]
    assert (task.train.layers, task.source.labels) == ("2", ("0", "1"))


def test_all_errors_are_told_at_once(tmp_path):
    with pytest.raises(BiaslineError) as error:
        read_params(write(tmp_path, "tasks: {a: {base: b, data: d, train: {epochs: 0, seed: x}}, c: {}}"))
    for part in ("tasks.a.train.epochs", "tasks.a.train.seed", "tasks.c.base", "tasks.c.data"):
        assert part in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BiaslineError, match=r"params\.yaml: not there"):
        read_params(tmp_path / "params.yaml")


def test_params_are_frozen(tmp_path):
    task = read_params(write(tmp_path, MINIMAL)).tasks["support"]
    with pytest.raises(ValidationError):
        task.train.learning_rate = 1.0


def test_an_unknown_task_gets_the_nearest_name(tmp_path):
    params = read_params(write(tmp_path, MINIMAL))
    with pytest.raises(BiaslineError, match="did you mean 'support'"):
        get_task(params, "suport", "params.yaml")


def test_a_resolved_task_reads_back_equal(tmp_path):
    task = Task(base="b", data="d", train={"learning_rate": "3e-3", "biases": "query+mlp_in"})
    (tmp_path / "task.json").write_text(task.model_dump_json())
    assert read_task(tmp_path / "task.json") == task


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("score >= 4", "score >= 4"),
        ("{lang: en}", {"lang": "en"}),
        (
            "{score: 4, ok: true, day: 2020-01-31, none: }",
            {"score": "4", "ok": "true", "day": "2020-01-31", "none": ""},
        ),
        ("{score: [4, 4.5, x]}", {"score": ("4", "4.5", "x")}),
        ("", ""),
    ],
)
def test_a_filter_is_an_expression_or_values_of_columns(tmp_path, text, where):
    task = read_params(write(tmp_path, f"tasks: {{a: {{base: b, data: d, source: {{where: {text}}}}}}}")).tasks["a"]
    assert task.source.where == where
    (tmp_path / "task.json").write_text(task.model_dump_json())
    assert read_task(tmp_path / "task.json") == task


@pytest.mark.parametrize("text", ["{lang: {en: 1}}", "[a, b]", "{lang: [[a]]}"])
def test_a_filter_of_another_form_is_told(tmp_path, text):
    path = write(tmp_path, f"tasks: {{a: {{base: b, data: d, source: {{where: {text}}}}}}}")
    with pytest.raises(BiaslineError, match=r"tasks\.a\.source\.where: .*`column: value`"):
        read_params(path)


def test_a_resolved_task_of_before_reads_with_defaults(tmp_path):
    old = {"base": "b", "data": "d", "source": {"preset": "", "columns": {}, "header": "auto", "labels": []}}
    (tmp_path / "task.json").write_text(json.dumps(old))
    source = read_task(tmp_path / "task.json").source
    assert (source.where, source.answers, source.prefer) == ("", "", "")


def test_every_value_is_documented():
    def undocumented(model, path=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from undocumented(field.annotation, f"{path}{name}.")
            elif not field.description:
                yield path + name

    assert list(undocumented(Task)) == []


@pytest.fixture
def project(tmp_path):
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "rows.json").write_text("[]")
    return write(tmp_path, "# kept comment\ntasks:\n  old: {base: b.json, data: rows.json}  # kept too\n")


def test_task_add_spells_out_every_default_and_keeps_the_file(project):
    add_task(project, "new", "b.json", "rows.json")
    text = project.read_text(encoding="utf-8")
    assert "# kept comment" in text
    assert "# kept too" in text
    assert re.search(r"  learning_rate: +# peak; empty: by method", text)
    assert Task.model_fields["base"].description in text
    params = read_params(project)
    assert params.tasks["new"] == Task(base="b.json", data="rows.json")


def test_task_add_twice_changes_nothing(project):
    add_task(project, "new", "b.json", "rows.json")
    before = project.read_bytes()
    assert "there already" in add_task(project, "new", "b.json", "rows.json")
    assert project.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "base", "data", "told"),
    [
        ("old", "b.json", "other.json", "there already"),
        ("New", "b.json", "rows.json", "small letters"),
        ("new", "none.json", "rows.json", "no such pin"),
        ("new", "b.json", "none.json", "no such file"),
    ],
)
def test_task_add_refuses_and_leaves_the_file(project, name, base, data, told):
    before = project.read_bytes()
    with pytest.raises(BiaslineError, match=told):
        add_task(project, name, base, data)
    assert project.read_bytes() == before


def test_check_inputs_says_how_to_make_a_pin(tmp_path):
    with pytest.raises(BiaslineError, match="biasline pin SOURCE --out nowhere.json"):
        check_inputs("a", Task(base="nowhere.json", data="x"), tmp_path)


def test_a_template_is_a_known_name_or_a_file_of_the_projects_own(tmp_path):
    from biasline.params import CUSTOM, Task, check_inputs, resolved

    with pytest.raises(ValueError, match="template 'humanassistant' is none of human-assistant, alpaca, chat"):
        Task(base="b", data="d", tokens={"template": "humanassistant"})
    for name in ("b", "d", "elsewhere.jinja"):
        (tmp_path / name).write_text("{{ messages }}")
    (tmp_path / CUSTOM).mkdir()
    (tmp_path / CUSTOM / "own.jinja").write_text("{{ messages[0].content }}")
    for path in ("custom/none.jinja", "elsewhere.jinja"):
        with pytest.raises(BiaslineError, match=r"tokens\.template: .*\.jinja: no such file in custom/"):
            check_inputs("t", Task(base="b", data="d", tokens={"template": path}), tmp_path)
    task = Task(base="b", data="d", tokens={"template": "custom/own.jinja"})
    check_inputs("t", task, tmp_path)
    assert resolved(task, tmp_path).tokens.template == "{{ messages[0].content }}"
    assert resolved(task, tmp_path).tokens.template_name == "custom"
    assert task.tokens.template_name == "custom"
