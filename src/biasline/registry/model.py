"""The packaged model: a pyfunc that holds the delta and finds its base. MLflow runs this file when it loads one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class BiaslineModel(PythonModel):
    """A frozen base with one task's biases.

    Instruction tasks take rows of `instruction` and, if wanted, `input`, and give a list of answers. Classifications
    take rows of `text` and, if wanted, `text_pair`, and give a list of `{"label", "probability"}`. Both in the order
    of the rows.
    """

    # The signature says what comes in. Type hints on `predict` would take its place, and without this MLflow asks for
    # them each time it runs this file.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Find the base, hold it against its pin, apply the delta."""
        from biasline.bases.load import best_device, load_causal_lm, load_classifier
        from biasline.bases.match import check_base
        from biasline.bases.pin import Pin, load_tokenizer, locate, verify, wants_token_types
        from biasline.bitfit import BiasDelta
        from biasline.params import read_task

        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        self.task = read_task(artifacts["task"])
        pin = Pin.model_validate(json.loads(artifacts["pin"].read_text(encoding="utf-8")))
        delta = BiasDelta.load(artifacts["delta"])
        check_base(delta, pin)
        # The pin has left its folder: where that was on the machine that packaged it is a hint for that machine alone.
        folder = locate(pin, Path((context.model_config or {}).get("pin_path", "")))
        verify(pin, folder)
        self.labels = delta.manifest.labels
        if self.labels:
            model, _ = load_classifier(
                pin, folder, self.task.load, self.labels, self.task.train.seed, self.task.train.head
            )
        else:
            model = load_causal_lm(pin, folder, self.task.load)
        delta.apply(model)
        self.model = model.to(best_device())
        self.tokenizer, self.token_types = load_tokenizer(pin, folder), wants_token_types(folder)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Answers to rows given as a DataFrame, a list of dicts, or a dict of columns."""
        records = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        if self.labels:
            return self._classify(_columns(records, "text", "text_pair"))
        return self._answer(_columns(records, "instruction", "input"), params or {})

    def _answer(self, rows: Sequence[tuple[str, str]], params: dict[str, Any]) -> list[str]:
        from biasline.evaluation.generate import generate
        from biasline.tokens.mask import Encoder
        from biasline.tokens.template import render_prompt

        prompts = [render_prompt(self.task.tokens.template, *row) for row in rows]
        ids = Encoder(self.tokenizer, self.task.tokens.max_length).prompts(prompts)
        settings = self.task.evaluate
        longest = params.get("max_new_tokens", settings.max_new_tokens)
        return generate(self.model, self.tokenizer, ids, longest, settings.batch_size)

    def _classify(self, rows: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        from biasline.evaluation.classify import probabilities
        from biasline.tokens.texts import TextEncoder

        encoder = TextEncoder(self.tokenizer, self.task.tokens.max_length, self.token_types)
        inputs = encoder.texts([text for text, _ in rows], [pair for _, pair in rows])
        found = probabilities(self.model, inputs, self.model.config.pad_token_id, self.task.evaluate.batch_size)
        return [{"label": self.labels[row.argmax()], "probability": float(row.max())} for row in found]


def _columns(records: Sequence[dict[str, Any]], first: str, second: str) -> list[tuple[str, str]]:
    """Both texts per row; the second may be missing, None or NaN and is then empty."""
    rows = []
    for number, record in enumerate(records, 1):
        text, further = record.get(first), record.get(second)
        if not isinstance(text, str) or not text.strip():
            raise mlflow.MlflowException.invalid_parameter_value(f"row {number}: `{first}` must be a text")
        rows.append((text, further if isinstance(further, str) else ""))
    return rows


mlflow.models.set_model(BiaslineModel())
