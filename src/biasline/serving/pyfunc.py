"""The packaged model: a pyfunc that holds the delta and finds its base. MLflow runs this file when it loads one."""

from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel


class BiaslineModel(PythonModel):
    """A frozen base with one task's biases.

    It takes rows of the columns that the task's kind is given, of which all but the first may be missing, and gives a
    list of its answers, texts or dicts, in the order of the rows: see the signature.
    """

    # The signature says what comes in. Type hints on `predict` would take its place, and without this MLflow asks for
    # them each time it runs this file.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Hold the packaged files against what was packaged, find the base, hold it against its pin, apply the delta.

        Raises:
            BiaslineError: naming the first file that differs.
        """
        from biasline.serving.package import Package

        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        noted = context.model_config or {}
        package = Package.read(artifacts, Path(noted.get("pin_path", "")), noted.get("sha256"))
        self.predictor = package.predictor()

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Answers to rows given as a DataFrame (which MLflow makes of whatever it is given) or a list of dicts.

        Raises:
            MlflowException: with INVALID_PARAMETER_VALUE, which a server answers with status 400, for rows and params
                that are refused.
        """
        from biasline.errors import BiaslineError

        records = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        try:
            return self.predictor(records, params)
        except BiaslineError as error:
            raise mlflow.MlflowException.invalid_parameter_value(str(error)) from None


mlflow.models.set_model(BiaslineModel())
