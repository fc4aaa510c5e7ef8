"""Export for deployment: base and delta as one folder that stock Transformers loads, checked before it is released."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from biasline.bases.load import best_device
from biasline.bases.pin import TOKENIZER_FILES
from biasline.errors import BiaslineError, shown
from biasline.evaluation.generate import Drawing
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import find_learning
from biasline.layout import replacing
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor
from biasline.serving.stock_template import stock_template
from biasline.serving.transformers_card import page, usage
from biasline.training.loss import padded

# Of the largest logit.
_ROUNDING = 1e-5
_SERVE = "serve it as it is packaged: `mlflow models serve` (docs/promotion.md)"

_Inputs = Sequence[dict[str, list[int]]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        bytes: of the folder.
        compared: rows on which the reloaded model's outputs are those of the packaged one.
        worded_otherwise: of these, rows whose tokens are others when stock Transformers words them as the card says.
    """

    bytes: int
    compared: int
    worded_otherwise: int


def check_free(out: Path) -> None:
    """Refuse a target that holds something.

    Raises:
        BiaslineError: where it is a file, or a folder that is not empty.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise BiaslineError(f"{shown(out)}: not empty", "name a folder that is not there yet")


def export(
    package: Package, out: Path, rows: Sequence[dict[str, Any]], card: str, *, name: str, fingerprint: str
) -> Exported:
    """Write base and delta as one stock Transformers folder: weights, tokenizer, generation config, card.

    Args:
        package: base, delta and task.
        out: a folder that is not there, or empty.
        rows: of the task's kind, one at least: on them the reloaded model must have the packaged one's outputs.
        card: of the model, for the folder's README.
        name: what the README calls the model.
        fingerprint: of its training.

    Raises:
        BiaslineError: where `out` holds something, where no stock model computes the same, or where the reloaded
            model's outputs differ; nothing is left behind then.
    """
    check_free(out)
    package.refuse_fleet("`biasline extract` gives one tenant's delta, which `BiasDelta.merge` puts into the base")
    _check_stock(package)
    torch.set_num_threads(package.task.train.threads)
    predictor = package.predictor()
    inputs = predictor.inputs(rows)
    wanted = _outputs(predictor.model, inputs, package.headed)
    # A delta that is on keeps the originals; merging starts from the plain base.
    package.delta.revert(predictor.model)
    try:
        model = package.delta.merge(predictor.model)
    except BiaslineError as error:
        raise BiaslineError(str(error).partition(" → ")[0], _SERVE) from None
    with replacing(out) as draft:
        tensors = _digests(model)
        _save(model, predictor, package, draft)
        reloaded, tokenizer = _reloaded(draft, package)
        if odd := sorted(dict(set(_digests(reloaded).items()) ^ set(tensors.items()))):
            raise BiaslineError(f"tensor {odd[0]}: reloaded, the merged model has another", _SERVE)
        _compare(wanted, _outputs(reloaded, inputs, package.headed), rows)
        stock_ids = find_answering(package.task.kind).stock_ids
        otherwise = sum(
            stock_ids(tokenizer, row, predictor) != given["input_ids"] for row, given in zip(rows, inputs, strict=True)
        )
        told = page(name, fingerprint, package, usage(package, predictor, tokenizer, rows[0]), otherwise, card)
        (draft / "README.md").write_text(told, encoding="utf-8", newline="\n")
        if out.is_dir():
            out.rmdir()
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Exported(size, len(rows), otherwise)


def _check_stock(package: Package) -> None:
    if package.headed and package.by_mean:
        raise BiaslineError(
            "its head reads the mean over the tokens, where stock Transformers puts a pooler of the architecture's own",
            f"{_SERVE}, or train it with train.pooling: model",
        )
    if package.task.load.trust_remote_code:
        raise BiaslineError("its base runs code of its own (load.trust_remote_code), which is not stock", _SERVE)


def _outputs(model: Any, inputs: _Inputs, headed: bool) -> list[torch.Tensor]:
    """For each row the logits, (positions, labels), or of a language model those of the last, (1, vocabulary), fp32."""
    found = []
    for row in inputs:
        batch = {name: tensor.to(model.device) for name, tensor in padded([row], model.config.pad_token_id).items()}
        with torch.inference_mode():
            logits = model(**batch).logits.float().cpu()
        logits = logits.reshape(-1, logits.shape[-1])
        found.append(logits if headed else logits[-1:])
    return found


def _digests(model: Any) -> dict[str, str]:
    """sha256 of each tensor's bytes."""
    found = {}
    for name, tensor in model.state_dict().items():
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _compare(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], rows: Sequence[dict[str, Any]]) -> None:
    """Outputs may differ in their last bits: where a tensor lies in memory changes the order of sums."""
    for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
        far = float((one - other).abs().max())
        if not far <= _ROUNDING * max(1.0, float(one.abs().max())):
            text = next(iter(rows[number].values()))[:60]
            raise BiaslineError(
                f"the merged model, reloaded, gives other outputs: by {far:.3g} on test row {number + 1} ({text!r})",
                _SERVE,
            )


def _save(model: Any, predictor: Predictor, package: Package, folder: Path) -> None:
    """Weights, config, tokenizer and generation config; nothing that tells of this machine."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    base = package.base()
    folder.mkdir()
    model.config._name_or_path = ""
    if not package.headed:
        settings = Drawing.of(predictor.task.evaluate)
        model.generation_config = settings.config(predictor.stops, model.config.pad_token_id)
    model.save_pretrained(folder)
    for name in package.pin.files:
        if name in TOKENIZER_FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, folder / name)
    if not package.headed and (template := stock_template(predictor.template)) is not None:
        # Transformers takes this file before one that the tokenizer's config holds.
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")


def _reloaded(folder: Path, package: Package) -> tuple[Any, Any]:
    """Model and tokenizer, as a user loads them."""
    import transformers

    auto = getattr(transformers, find_learning(package.task.kind).auto_class)
    model = auto.from_pretrained(str(folder), dtype=getattr(torch, package.task.load.dtype), local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return model.to(best_device()).eval(), tokenizer
