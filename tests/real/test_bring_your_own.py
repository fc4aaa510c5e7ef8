"""Real Chinese Alpaca rows on the demo base: a task of two lines through all stages."""

import json

import pytest

# The two lines, and less work than a person would want.
PARAMS = """
tasks:
  zh:
    base: data/bases/tiny-bloom.json
    data: ../shared/data/alpaca_zh/alpaca_zh_demo_1k.json
    train: {min_steps: 10, epochs: 0.1}
    evaluate: {max_new_tokens: 4}
"""


@pytest.mark.slow
def test_two_lines_and_a_real_file(project, shared):
    (project.folder.parent / "shared").symlink_to(shared)
    (project.folder / "params.yaml").write_text(PARAMS)
    project.run("dvc repro")
    quality = json.loads((project.folder / "data/zh/quality.json").read_text())
    assert quality["rows"] == 1000
    assert quality["reasons"]["duplicate"] == 8
    metrics = json.loads((project.folder / "data/zh/evaluation/metrics.json").read_text())
    assert metrics["tuned"]["response_perplexity"] < metrics["base"]["response_perplexity"]
    assert (project.folder / "data/zh/registered.json").is_file()
