"""SetFit's recipe on rows in train.jsonl, valid.jsonl and test.jsonl; run by an environment that has `setfit`.

Reads asked.json (`base`, the folder of a sentence encoder; `seed`; `max_steps`) and writes answers.json.
benchmarks.defaults calls it.
"""

import json
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a split."""
    return [json.loads(line) for line in Path(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Train on all rows but the test's, and answer those."""
    asked = json.loads(Path("asked.json").read_text(encoding="utf-8"))
    words = modules.Transformer(asked["base"], max_seq_length=128)
    body = SentenceTransformer(modules=[words, modules.Pooling(words.get_embedding_dimension())], device="cpu")
    train = [*rows("train"), *rows("valid")]
    head = LogisticRegression(max_iter=2000)
    model = SetFitModel(model_body=body, model_head=head, labels=sorted({row["label"] for row in train}))
    # The recipe's number of pairs of either kind for each row.
    steps = -(-2 * 20 * len(train) // 16)
    settings = TrainingArguments(
        output_dir="setfit",
        batch_size=16,
        num_epochs=1,
        num_iterations=20,
        max_steps=min(steps, asked["max_steps"]),
        seed=asked["seed"],
        save_strategy="no",
        report_to="none",
    )
    trainer = Trainer(model=model, args=settings, train_dataset=Dataset.from_list(train))
    trainer.train()
    chances = model.predict_proba([row["text"] for row in rows("test")], as_numpy=True)
    told = {
        "labels": [str(model.model_head.classes_[place]) for place in chances.argmax(-1)],
        "probabilities": chances.max(-1).tolist(),
        "steps": trainer.st_trainer.state.global_step,
        "versions": {name: version(name) for name in ("setfit", "sentence-transformers", "transformers", "torch")},
    }
    Path("answers.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
