"""Control vectors: what llama.cpp adds behind layers is the delta, or the export is refused."""

import pytest
from gguf import GGUFReader

from biasline.errors import BiaslineError
from biasline.serving import control_vector as room
from biasline.serving.control_vector import export_control_vector, read_vectors
from tests.serving.packages import ROWS, fleet, on_llama, package

ROWS = ROWS["answers"]


def test_it_holds_the_biases_of_the_mlps_output_and_gives_the_same_outputs(llama_pin, tmp_path):
    made, out = on_llama(llama_pin, "mlp_out", layers="1-"), tmp_path / "out.gguf"
    done = export_control_vector(made, out, ROWS, fingerprint="f" * 16)
    assert (done.layers, done.compared, done.bytes) == (1, 2, out.stat().st_size)
    [(layer, vector)] = read_vectors(out).items()
    [bias] = made.delta.tensors.values()
    assert layer == 1 and vector.tolist() == bias.tolist()
    told = {name: field.contents() for name, field in GGUFReader(out).fields.items()}
    assert told["general.architecture"] == "controlvector" and told["controlvector.model_hint"] == "llama"
    assert told["biasline.fingerprint"] == "f" * 16 and told["biasline.base"] == made.pin.digest


def test_the_same_file_comes_each_time(llama_pin, tmp_path):
    made = on_llama(llama_pin, "mlp_out", layers="1-")
    for name in ("one", "two"):
        export_control_vector(made, tmp_path / f"{name}.gguf", ROWS, fingerprint="f" * 16)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize(
    ("biases", "layers", "told"),
    [
        ("mlp_out", "", "no place for model.layers.0.mlp.down_proj.bias: it holds what is added behind a layer"),
        ("attention_output", "1-", "no place for model.layers.1.self_attn.o_proj.bias"),
    ],
)
def test_what_it_cannot_hold_is_refused(llama_pin, tmp_path, biases, layers, told):
    with pytest.raises(BiaslineError, match=told):
        export_control_vector(on_llama(llama_pin, biases, layers=layers), tmp_path / "o.gguf", ROWS, fingerprint="f")
    assert not (tmp_path / "o.gguf").exists()


def test_a_vector_behind_the_wrong_layer_is_found(llama_pin, tmp_path, monkeypatch):
    made = on_llama(llama_pin, "mlp_out", layers="1-")
    monkeypatch.setattr(room, "read_vectors", lambda path: {0: next(iter(read_vectors(path).values()))})
    with pytest.raises(BiaslineError, match=r"the base with the vectors gives other outputs: by .* on test row 1"):
        export_control_vector(made, tmp_path / "out.gguf", ROWS, fingerprint="f" * 16)
    assert not (tmp_path / "out.gguf").exists()


def test_other_models_are_refused(workspace, tmp_path):
    out = tmp_path / "out.gguf"
    for made, told in (
        (package(workspace, 1), "exact on llama, mistral, qwen2, qwen3; this base is a bloom"),
        (package(workspace, 1, ["bad", "good"]), "a classification: its head has no place"),
        (fleet(workspace, ["one", "two"]), "a fleet of 2 tenants"),
    ):
        with pytest.raises(BiaslineError, match=told):
            export_control_vector(made, out, ROWS, fingerprint="f" * 16)
