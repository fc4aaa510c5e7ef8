"""What a config says of a base's embeddings, held against models of Transformers."""

import json
import subprocess
import sys

import pytest

from biasline.bases.limits import Limits, limits_of
from biasline.errors import BiaslineError


def _limits(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return limits_of(folder)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512, "pad_token_id": 0},
            (30522, 512, 0),
        ),
        ({"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_ctx": 1024}, (50257, 1024, None)),
        ({"model_type": "openai-gpt", "vocab_size": 40478, "n_ctx": 512}, (40478, 512, None)),
        ({"model_type": "mpt", "vocab_size": 50368, "max_seq_len": 2048}, (50368, 2048, None)),
        ({"model_type": "xlm", "n_words": 64139, "max_position_embeddings": 512}, (64139, 512, None)),
        (
            {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048, "pad_token_id": 1},
            (50272, 2048, 1),
        ),
        ({"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514}, (50265, 512, None)),
        ({"model_type": "mpnet", "vocab_size": 9, "max_position_embeddings": 514, "pad_token_id": 0}, (9, 512, 0)),
        ({"model_type": "t5", "vocab_size": 32128, "n_positions": 512, "pad_token_id": 0}, (32128, None, 0)),
        ({"model_type": "bloom", "vocab_size": 250880, "seq_length": 2048, "pad_token_id": 3}, (250880, None, 3)),
        ({"model_type": "falcon", "vocab_size": 9, "alibi": True, "max_position_embeddings": 64}, (9, None, None)),
        ({"model_type": "falcon", "vocab_size": 9, "alibi": False, "max_position_embeddings": 64}, (9, 64, None)),
        (
            {
                "model_type": "deberta-v2",
                "vocab_size": 9,
                "max_position_embeddings": 64,
                "position_biased_input": False,
            },
            (9, None, None),
        ),
        ({"model_type": "newcomer"}, (None, None, None)),
    ],
)
def test_each_family_s_own_names_and_offsets(config, expected, tmp_path):
    assert _limits(tmp_path, **config) == Limits(*expected)


@pytest.mark.parametrize("pad", [-1, 1792, 5000, None, "3"])
def test_padding_outside_the_embedding_is_none(pad, tmp_path):
    found = _limits(tmp_path, model_type="bloom", vocab_size=1792, pad_token_id=pad)
    assert found.pad is None


def test_of_a_model_of_several_modalities_the_language_model_s(tmp_path):
    text = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
    found = _limits(tmp_path, model_type="llava", vocab_size=7, pad_token_id=32001, text_config=text)
    assert found == Limits(32064, 4096, 32001)


def test_a_base_without_config_is_refused(tmp_path):
    with pytest.raises(BiaslineError, match=r"config\.json: not there"):
        limits_of(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("roberta", {"max_position_embeddings": 20, "pad_token_id": 1}),
        ("xlm-roberta", {"max_position_embeddings": 20, "pad_token_id": 5}),
        ("camembert", {"max_position_embeddings": 20, "pad_token_id": 1}),
        ("mpnet", {"max_position_embeddings": 20}),
        ("bert", {"max_position_embeddings": 20}),
        ("gpt2", {"n_positions": 20}),
        ("opt", {"max_position_embeddings": 20, "word_embed_proj_dim": 16, "ffn_dim": 16}),
        ("bart", {"max_position_embeddings": 20}),
    ],
)
def test_the_last_position_is_read_and_the_next_is_not(model_type, sizes, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModel

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    AutoConfig.for_model(model_type, vocab_size=30, **small, **sizes).save_pretrained(tmp_path)
    model = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
    most = limits_of(tmp_path).positions
    assert most is not None
    model(input_ids=torch.full((1, most), 9))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, most + 1), 9))


def test_no_torch_for_it():
    code = "import sys; from biasline.bases.limits import limits_of; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
