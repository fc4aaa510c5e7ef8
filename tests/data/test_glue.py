import json

import pytest

from biasline.data.files import raw_files
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.glue import GLUE
from biasline.kinds.learning import columns_of
from biasline.params import Source, Task, read_params

# The first lines of each task's files as the benchmark ships them, with words of our own.
FILES = """
sst2
sentence|label
a joy |1
a bore |0

cola
gj04|1||It rained.
gj04|0|*|Rained it the.

rte
index|sentence1|sentence2|label
0|It rained.|It was wet.|entailment
1|It rained.|It was dry.|not_entailment

mrpc
Quality|#1 ID|#2 ID|#1 String|#2 String
1|7|8|It rained.|Rain fell.
0|7|9|It rained.|It snowed.

stsb
index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score
0|news|f|2012|1|none|none|It rained.|Rain fell.|4.800
1|news|f|2012|2|none|none|It rained.|It is May.|0.250

qnli
index|question|sentence|label
0|Did it rain?|It rained.|entailment
1|Did it rain?|It is May.|not_entailment

qqp
id|qid1|qid2|question1|question2|is_duplicate
1|3|4|Did it rain?|Has it rained?|1
2|3|5|Did it rain?|Why?|0

mnli
index|genre|sentence1|sentence2|label1|gold_label
0|x|It rained.|It was wet.|neutral|entailment
1|x|It rained.|It was dry.|neutral|contradiction
"""
TSV = {
    name: rows.replace("|", "\t") for name, _, rows in (part.partition("\n") for part in FILES.strip().split("\n\n"))
}
FIRST = {"sst2": ("a joy ", ""), "cola": ("It rained.", ""), "mrpc": ("It rained.", "Rain fell.")}
FIRST |= {"stsb": ("It rained.", "Rain fell.")}
FIRST |= {"rte": ("It rained.", "It was wet."), "mnli": ("It rained.", "It was wet.")}
FIRST |= {"qnli": ("Did it rain?", "It rained."), "qqp": ("Did it rain?", "Has it rained?")}
LABELS = {
    "sst2": ["positive", "negative"],
    "cola": ["acceptable", "unacceptable"],
    "mrpc": ["equivalent", "not_equivalent"],
}
LABELS |= {"rte": ["entailment", "not_entailment"], "qnli": ["entailment", "not_entailment"]}
LABELS |= {"qqp": ["duplicate", "not_duplicate"], "mnli": ["entailment", "contradiction"]}


@pytest.mark.parametrize("name", GLUE)
def test_the_benchmarks_own_files_are_read_by_their_name(tmp_path, name):
    (tmp_path / "raw.tsv").write_text(TSV[name] + "\n")
    source = Source(preset=name)
    frame = read_examples(tmp_path / "raw.tsv", columns_of(GLUE[name].kind), source).frame
    assert frame.select("text", "text_pair").row(0) == FIRST[name]
    if name == "stsb":
        assert frame["score"].to_list() == ["4.800", "0.250"] and source.labels == ()
        return
    assert frame["label"].to_list() == LABELS[name]
    assert set(LABELS[name]) <= set(source.labels) and source.labels == GLUE[name].labels


def test_the_hubs_numbers_become_names_too(tmp_path):
    rows = [{"premise": "a", "hypothesis": "b", "label": number, "idx": number} for number in (0, 1, 2)]
    (tmp_path / "raw.json").write_text(json.dumps(rows))
    frame = read_examples(tmp_path / "raw.json", columns_of("classification"), Source(preset="mnli")).frame
    assert frame["label"].to_list() == ["entailment", "neutral", "contradiction"]


def test_a_preset_brings_its_metric_and_is_no_instruction(tmp_path):
    files = {"base": "b", "data": "d"}
    assert Task(kind="classification", **files, source={"preset": "cola"}).metric == "mcc"
    assert Task(kind="classification", **files, source={"preset": "rte"}).metric == "accuracy"
    assert (
        Task(kind="classification", **files, source={"preset": "cola"}, gates={"metric": "accuracy"}).metric
        == "accuracy"
    )
    (tmp_path / "params.yaml").write_text(json.dumps({"tasks": {"x": {**files, "source": {"preset": "cola"}}}}))
    with pytest.raises(BiaslineError, match="source.preset cola is a classification"):
        read_params(tmp_path / "params.yaml")
    assert Task(kind="regression", **files, source={"preset": "stsb"}).metric == "pearson"
    wrong = {"kind": "classification", **files, "source": {"preset": "stsb"}}
    (tmp_path / "params.yaml").write_text(json.dumps({"tasks": {"x": wrong}}))
    with pytest.raises(BiaslineError, match=r"source.preset stsb is a regression: say so \(kind: regression\)"):
        read_params(tmp_path / "params.yaml")


def test_both_dev_files_of_mnli_are_the_test(tmp_path):
    for name in ("train", "dev_matched", "dev_mismatched"):
        (tmp_path / f"{name}.tsv").write_text(TSV["mnli"])
    assert [file.split for file in raw_files(tmp_path).files] == ["test", "test", "train"]
