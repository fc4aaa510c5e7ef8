"""Export for llama.cpp: the base's tensors byte for byte, the biases where and as that program wants them."""

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM

from biasline.errors import BiaslineError
from biasline.serving.gguf_export import export_gguf, export_gguf_parts
from tests.bases.ggufs import small_llama, write_gguf
from tests.serving.packages import fleet, on_llama, package

_ABOUT = {"name": "biasline-small 1", "fingerprint": "f" * 16}


def test_it_is_the_base_with_the_biases_as_transformers_would_read_them(llama_pin, tmp_path):
    made, out = on_llama(llama_pin), tmp_path / "out.gguf"
    done = export_gguf(made, out, **_ABOUT)
    assert done.biases == 2 * 7 and done.bytes == out.stat().st_size
    # Built with biases, Transformers finds a place for each of them.
    config = AutoConfig.from_pretrained(made.base())
    config.attention_bias = config.mlp_bias = True
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="out.gguf", config=config, dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        given, wanted, base = (
            model(ids).logits for model in (read.eval(), made.predictor().model, made.load(made.base()))
        )
    assert torch.allclose(given, wanted, atol=1e-5) and not torch.allclose(given, base, atol=0.1)


def test_every_other_tensor_and_field_is_the_files_own(llama_pin, tmp_path):
    export_gguf(on_llama(llama_pin), tmp_path / "out.gguf", **_ABOUT)
    base, out = GGUFReader(tmp_path / "small.gguf"), GGUFReader(tmp_path / "out.gguf")
    found = {tensor.name: tensor for tensor in out.tensors}
    for tensor in base.tensors:
        assert found[tensor.name].tensor_type == tensor.tensor_type
        assert found[tensor.name].data.tobytes() == tensor.data.tobytes()
    added = found.keys() - {tensor.name for tensor in base.tensors}
    assert len(added) == 14 and all(name.endswith(".bias") for name in added)
    before, after = ({key: field.contents() for key, field in one.fields.items()} for one in (base, out))
    own = {"general.name": "biasline-small 1", "biasline.fingerprint": "f" * 16}
    assert {key: after[key] for key in own} == own
    counts = {"GGUF.kv_count", "GGUF.tensor_count", "general.name"}
    assert {key: after[key] for key in before.keys() - counts} == {key: before[key] for key in before.keys() - counts}


def test_the_same_file_comes_each_time_and_has_the_tasks_template(llama_pin, tmp_path):
    made = on_llama(llama_pin, template="human-assistant")
    for name in ("one", "two"):
        export_gguf(made, tmp_path / f"{name}.gguf", **_ABOUT)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    template = GGUFReader(tmp_path / "one.gguf").fields["tokenizer.chat_template"].contents()
    assert "Assistant: " in template


def test_tasks_of_a_folder_share_the_base(llama_pin, tmp_path):
    """llama.cpp opens the first part; tests/real has it answer."""
    folder, sizes = tmp_path / "out", []
    tasks = {
        "one": on_llama(llama_pin),
        "two": on_llama(llama_pin, template="human-assistant"),
        "three": on_llama(llama_pin),
    }
    for task, made in tasks.items():
        sizes.append(export_gguf_parts(made, folder, task=task, **_ABOUT).bytes)
    assert sorted(path.name.partition("-")[0] for path in (folder / "shared").iterdir()) == ["base", "fields", "fields"]
    base = {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(tmp_path / "small.gguf").tensors}
    for task in tasks:
        parts = [folder / f"{task}-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
        read = [GGUFReader(part) for part in parts[1:]]  # gguf reads no file without tensors
        assert [one.fields["split.no"].contents() for one in read] == [1, 2]
        tensors = {tensor.name: tensor.data.tobytes() for one in read for tensor in one.tensors}
        assert {name: tensors[name] for name in base} == base and len(tensors) == len(base) + 14
        assert parts[0].is_symlink() and not parts[1].is_symlink() and parts[2].resolve().parent.name == "shared"
        assert read[0].fields["biasline.fingerprint"].contents() == "f" * 16
    assert max(sizes) < 0.2 * (tmp_path / "small.gguf").stat().st_size
    with pytest.raises(BiaslineError, match=r"one-00002-of-00003.gguf: there already"):
        export_gguf_parts(tasks["one"], folder, task="one", **_ABOUT)


def test_what_llama_cpp_would_leave_out_is_refused(llama_pin, tmp_path):
    with pytest.raises(BiaslineError) as told:
        export_gguf(on_llama(llama_pin, "attention+mlp+norm"), tmp_path / "out.gguf", **_ABOUT)
    assert "llama.cpp 0c1e57098 has no place for model.layers.0.input_layernorm.bias" in str(told.value)
    assert "answer without them; those of attention_output, key" in str(told.value)
    assert not (tmp_path / "out.gguf").exists()


def test_what_is_no_gguf_base_or_no_text_is_refused(workspace, llama_pin, tmp_path):
    out = tmp_path / "out.gguf"
    with pytest.raises(BiaslineError, match=r"base tiny-bloom: pinned as a Transformers model, not as a GGUF file"):
        export_gguf(package(workspace, 1), out, **_ABOUT)
    with pytest.raises(BiaslineError, match=r"a classification: its head has no place in llama.cpp"):
        export_gguf(package(workspace, 1, ["bad", "good"]), out, **_ABOUT)
    with pytest.raises(BiaslineError, match=r"a fleet of 3 tenants"):
        export_gguf(fleet(workspace, ["one", "two", "three"]), out, **_ABOUT)
    made = on_llama(llama_pin)
    with pytest.raises(BiaslineError, match="name a file that ends in .gguf"):
        export_gguf(made, tmp_path / "out.bin", **_ABOUT)
    out.write_bytes(b"mine")
    with pytest.raises(BiaslineError, match="there already"):
        export_gguf(made, out, **_ABOUT)
    assert out.read_bytes() == b"mine"


def test_a_base_whose_file_has_changed_is_refused(llama_pin, tmp_path):
    made = on_llama(llama_pin)
    write_gguf(tmp_path / "small.gguf", small_llama(), quantized=True, says={"odd.field": 1})
    with pytest.raises(BiaslineError, match="small.gguf has changed since it was pinned"):
        export_gguf(made, tmp_path / "out.gguf", **_ABOUT)
