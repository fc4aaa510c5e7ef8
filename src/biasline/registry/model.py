"""The packaged model: a pyfunc that holds the delta and finds its base. MLflow runs this file when it loads one."""

import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class BiaslineModel(PythonModel):
    """Answers instructions with a frozen base and one task's biases.

    Input rows have `instruction` and, if wanted, `input`; the answers come as a list of texts in their order.
    """

    # The signature says what comes in. Type hints on `predict` would take its place, and without this MLflow asks for
    # them each time it runs this file.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Find the base, hold it against its pin, apply the delta."""
        from biasline.bases.load import best_device, load_causal_lm
        from biasline.bases.pin import Pin, load_tokenizer, locate, verify
        from biasline.bitfit import BiasDelta
        from biasline.params import read_task
        from biasline.tokens.mask import Encoder

        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        self.task = read_task(artifacts["task"])
        pin = Pin.model_validate(json.loads(artifacts["pin"].read_text(encoding="utf-8")))
        delta = BiasDelta.load(artifacts["delta"])
        # The pin has left its folder: where that was on the machine that packaged it is a hint for that machine alone.
        folder = locate(pin, Path((context.model_config or {}).get("pin_path", "")))
        verify(pin, folder)
        self.model = load_causal_lm(pin, folder, self.task.load).to(best_device())
        delta.merge(self.model)
        self.tokenizer = load_tokenizer(pin, folder)
        self.encoder = Encoder(self.tokenizer, self.task.tokens.max_length)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Answers to rows given as a DataFrame, a list of dicts, or a dict of columns."""
        from biasline.evaluation.generate import generate
        from biasline.tokens.template import render_prompt

        prompts = [render_prompt(self.task.tokens.template, *row) for row in _rows(model_input)]
        wanted = (params or {}).get("max_new_tokens", self.task.evaluate.max_new_tokens)
        ids = self.encoder.prompts(prompts)
        return generate(self.model, self.tokenizer, ids, wanted, self.task.evaluate.batch_size)


def _rows(model_input: Any) -> list[tuple[str, str]]:
    """(instruction, input) per row; an `input` that is missing, None or NaN is empty."""
    records = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
    rows = []
    for number, record in enumerate(records, 1):
        instruction, text = record.get("instruction"), record.get("input")
        if not isinstance(instruction, str) or not instruction.strip():
            raise mlflow.MlflowException.invalid_parameter_value(f"row {number}: `instruction` must be a text")
        rows.append((instruction, text if isinstance(text, str) else ""))
    return rows


mlflow.models.set_model(BiaslineModel())
