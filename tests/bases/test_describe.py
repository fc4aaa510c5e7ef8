import json
import re
import subprocess
import sys

import pytest

from biasline.bases.create import config_file, inventory_of
from biasline.bases.describe import as_data, as_text
from biasline.errors import BiaslineError

LARGE = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "bloom": {"hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250880},
    "falcon": {
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "vocab_size": 65024,
        "multi_query": True,
        "bias": False,
    },
}
# Parameters and biases of these models, as their authors' files have them.
COUNTS = {
    "llama": (6_738_415_616, 0),
    "bloom": (7_069_016_064, 1_359_872),
    "falcon": (6_921_720_704, 33 * 4544),
}


@pytest.fixture
def large(tmp_path):
    """Config files of the three, and nothing else."""
    for name, sizes in LARGE.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"model_type": name, **sizes}))
    return tmp_path


@pytest.mark.slow
def test_seven_billion_parameters_within_a_gigabyte(large):
    """All three in one process, whose memory is that of the one command."""
    script = (
        "import json, re\n"
        "from pathlib import Path\n"
        "from biasline.bases.create import inventory_of\n"
        "found = {name: inventory_of(Path(f'{name}.json')) for name in ('llama', 'bloom', 'falcon')}\n"
        "told = {name: (one.total, one.summary()['biases']) for name, one in found.items()}\n"
        # Not getrusage: what that tells of a child counts the memory of the parent that it was forked from.
        "told['kb'] = int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "print(json.dumps(told))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=large, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told.pop("kb") < 1_000_000
    assert {name: tuple(counts) for name, counts in told.items()} == COUNTS


def test_a_large_model_is_told_on_one_screen(large):
    text = as_text(inventory_of(large / "bloom.json"), 140)
    assert "bloom: 7,069,016,064 parameters, 1,359,872 biases (0.0192%" in text
    assert re.search(
        r"value +transformer\.h\.#\.self_attention\.query_key_value\.bias +0-29 +12288 \(4096 of them\)", text
    )
    assert len(text.splitlines()) < 45
    assert max(map(len, text.splitlines())) <= 140
    missing = as_text(inventory_of(large / "llama.json"), 140)
    assert "inject" in missing and "model.layers.#.self_attn.k_proj.bias" in missing


def test_the_data_have_each_bias_with_layer_role_shape_and_count(large):
    data = as_data(inventory_of(large / "bloom.json"))
    one = next(row for row in data["biases_found"] if row["layer"] == 7 and row["role"] == "value")
    assert one["name"] == "transformer.h.7.self_attention.query_key_value.bias"
    assert (one["shape"], one["count"], one["cut"]) == ([3 * 4096], 4096, [2 * 128, 128, 3 * 128, 32])
    assert sum(row["count"] for row in data["biases_found"]) == data["biases"]
    json.dumps(data)


def test_a_head_is_counted_apart(large):
    data = as_data(inventory_of(large / "bloom.json", labels=3))
    assert data["head"] == 3 * 4096
    assert data["biases"] == 1_359_872
    assert [row["name"] for row in data["head_found"]] == ["score.weight"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"model_type": "no-such-model"}', "no-such-model"),
        ("{}", "model_type"),
        ("{", "broken JSON"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "hidden_size"),
    ],
)
def test_a_config_that_is_none_is_told(tmp_path, text, told):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(BiaslineError, match=told):
        inventory_of(config_file(str(tmp_path / "odd.json")))


def test_what_leads_to_no_config_is_told(tmp_path):
    with pytest.raises(BiaslineError, match=r"no config\.json"):
        config_file(str(tmp_path))
    with pytest.raises(BiaslineError, match="no pin, folder, config file or hub id"):
        config_file("a b")


@pytest.mark.parametrize(
    ("named", "head", "pooler"),
    [
        ("BertForQuestionAnswering", 2 * 16 + 2, False),
        ("BertForSequenceClassification", 2 * 16 + 2, True),
        ("BertForMaskedLM", 0, True),
        ("", 0, True),
    ],
)
def test_the_model_is_the_one_that_the_config_names(tmp_path, named, head, pooler):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "bert", **sizes, **({"architectures": [named]} if named else {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = inventory_of(config_file(str(tmp_path)))
    assert found.summary()["head"] == head
    assert ("pooler" in found.summary()["roles"]) == pooler


def test_a_package_is_inspected_as_it_is_pinned(tmp_path, monkeypatch, large):
    package = tmp_path / "site" / "has_config"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (large / "bloom.json").rename(package / "model" / "config.json")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert config_file("package:has_config/model") == package / "model" / "config.json"
