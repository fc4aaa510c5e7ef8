"""GLUE's tasks by name: columns of their files, names of their labels, and what they are judged by.

Files are the benchmark's own TSV or the hub's data sets; the names of labels are the hub's. Test labels are secret, so
that dev files are the test.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """One task.

    Attributes:
        columns: our column → the names that files have for it; a number is the place in a file without header.
        labels: names in the order of their numbers; none where the answer is a score.
        metric: what the benchmark judges it by.
    """

    columns: dict[str, tuple[str, ...]]
    labels: tuple[str, ...]
    metric: str = field(default="accuracy")

    @property
    def kind(self) -> str:
        """The kind of task that it is."""
        return "classification" if self.labels else "regression"


_PAIR: dict[str, tuple[str, ...]] = {"text": ("sentence1",), "text_pair": ("sentence2",), "label": ("label",)}
_ENTAILS = ("entailment", "not_entailment")

GLUE = {
    "sst2": Preset({"text": ("sentence",), "label": ("label",)}, ("negative", "positive")),
    "cola": Preset({"text": ("sentence", "4"), "label": ("label", "2")}, ("unacceptable", "acceptable"), "mcc"),
    "rte": Preset(_PAIR, _ENTAILS),
    "mrpc": Preset(
        {"text": ("#1 string", "sentence1"), "text_pair": ("#2 string", "sentence2"), "label": ("quality", "label")},
        ("not_equivalent", "equivalent"),
        "f1",
    ),
    "stsb": Preset({"text": ("sentence1",), "text_pair": ("sentence2",), "score": ("score", "label")}, (), "pearson"),
    "qnli": Preset({"text": ("question",), "text_pair": ("sentence",), "label": ("label",)}, _ENTAILS),
    "qqp": Preset(
        {"text": ("question1",), "text_pair": ("question2",), "label": ("is_duplicate", "label")},
        ("not_duplicate", "duplicate"),
        "f1",
    ),
    "mnli": Preset(
        {
            "text": ("sentence1", "premise"),
            "text_pair": ("sentence2", "hypothesis"),
            "label": ("gold_label", "label"),
        },
        ("entailment", "neutral", "contradiction"),
    ),
}
