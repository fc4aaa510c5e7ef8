import json

from benchmarks import pipeline


def test_the_committed_page_is_what_was_measured():
    found = json.loads(pipeline.OUT.read_text())
    assert pipeline.page(found) == pipeline.OUT.with_suffix(".md").read_text()
    assert set(found["stages"]) == set(pipeline.STAGES) and set(found["noop"]) == {"1", str(pipeline.TASKS)}
