"""Where biases arrive in other programs, and what is refused before it is trained."""

import pytest

from biasline.bitfit import tune_biases
from biasline.bitfit.engines import ENGINES, check_arrives, check_target, lost
from biasline.errors import BiaslineError
from tests.bitfit.zoo import build


@pytest.mark.parametrize(
    ("engine", "model_type", "roles", "told"),
    [
        ("llama.cpp", "qwen3", {"layers.0.o.bias": "attention_output"}, "no place for layers.0.o.bias of qwen3"),
        ("llama.cpp", "gemma3_text", {"a": "mlp_in", "b": "mlp_out", "c": "query"}, "no place for a, b of gemma3_text"),
        ("llama.cpp", "bloom", {"a": "query"}, "which biases it adds to bloom is not known here"),
        ("vllm", "qwen3", {"a": "value", "b": "attention_output"}, r"no place for b of qwen3.*that of values moves"),
        ("vllm", "gemma3_text", {"a": "mlp_in"}, "no place for a of gemma3_text"),
        (
            "sglang",
            "llama",
            {"a": "query", "b": "mlp_in", "c": "mlp_out"},
            "has no place for b, c of llama",
        ),
        ("sglang", "gpt2", {"a": "value"}, "which biases it adds to gpt2 is not known here"),
    ],
)
def test_what_an_engine_would_leave_out_is_refused(engine, model_type, roles, told):
    with pytest.raises(BiaslineError, match=told):
        check_arrives(ENGINES[engine], model_type, roles, "leave it")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_arrives_is_not(engine):
    for model_type, roles in ENGINES[engine].adds.items():
        assert lost(ENGINES[engine], model_type, {role: role for role in roles}) == ""
        assert f"has no place for norm of {model_type}" in lost(ENGINES[engine], model_type, {"norm": "norm"})
    for model_type in ENGINES[engine].own:
        assert lost(ENGINES[engine], model_type, {"norm": "norm"}) == ""


@pytest.mark.parametrize(
    ("model_type", "biases", "inject", "goes_to", "not_to"),
    [
        ("llama", "attention+mlp", "attention+mlp", ["transformers", "llama.cpp", "vllm"], ["sglang"]),
        ("llama", "value", "value", ["transformers", "llama.cpp", "vllm", "sglang"], []),
        ("llama", "all+scale", "all", ["transformers", "vllm"], ["llama.cpp", "sglang"]),
        ("llama", "norm", "norm", [], ["transformers", "llama.cpp", "vllm", "sglang"]),
        # Transformers' Mistral has no place for them: it is written as a LLaMA.
        ("mistral", "attention+mlp", "attention+mlp", ["transformers", "llama.cpp", "vllm"], ["sglang"]),
        ("qwen3", "attention", "attention", ["transformers", "sglang"], ["llama.cpp", "vllm"]),
        ("gpt2", "all", "", ["transformers", "vllm"], ["llama.cpp", "sglang"]),
    ],
)
def test_a_target_is_held_against_the_choice_before_training(model_type, biases, inject, goes_to, not_to):
    model = build(model_type)
    tuning = tune_biases(model, biases, inject=inject)

    def check(target):
        check_target(target, model, tuning.selection.biases, tuning.injection.names)

    for target in goes_to:
        check(target)
    for target in not_to:
        with pytest.raises(BiaslineError, match=r"has no place for|is not known here|would change quantized weights"):
            check(target)
