"""Export for deployment: base and delta as one folder that stock Transformers loads, checked before it is released."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from biasline.bases.load import best_device
from biasline.bases.pin import TOKENIZER_FILES
from biasline.bitfit.engines import ENGINES, lost
from biasline.bitfit.roles import is_scale
from biasline.bitfit.stock import stock_type
from biasline.errors import BiaslineError, shown
from biasline.evaluation.generate import Drawing
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import find_learning
from biasline.layout import readable_as, replacing
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor
from biasline.serving.proof import check_same, outputs
from biasline.serving.stock_template import stock_template
from biasline.serving.transformers_card import page, usage

_SERVE = "serve it as it is packaged: `mlflow models serve` (docs/promotion.md)"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        bytes: of the folder.
        compared: rows on which the reloaded model's outputs are those of the packaged one.
        worded_otherwise: of these, rows whose tokens are others when stock Transformers words them as the card says.
        left_out: of a model that writes texts, engine → what it would leave out, of those that would.
    """

    bytes: int
    compared: int
    worded_otherwise: int
    left_out: dict[str, str] = field(default_factory=dict)


def check_free(out: Path) -> None:
    """Refuse a target that holds something.

    Raises:
        BiaslineError: where it is a file, or a folder that is not empty.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise BiaslineError(f"{shown(out)}: not empty", "name a folder that is not there yet")


def export(
    package: Package,
    out: Path,
    rows: Sequence[dict[str, Any]],
    card: str,
    *,
    name: str,
    fingerprint: str,
    target: str = "",
) -> Exported:
    """Write base and delta as one stock Transformers folder: weights, tokenizer, generation config, card.

    Args:
        package: base, delta and task.
        out: a folder that is not there, or empty.
        rows: of the task's kind, one at least: on them the reloaded model must have the packaged one's outputs.
        card: of the model, for the folder's README.
        name: what the README calls the model.
        fingerprint: of its training.
        target: the program that is to read the folder, as `train.target` has them; empty: any.

    Raises:
        BiaslineError: where `out` holds something, where no stock model computes the same, where the target would leave
            out what was trained, or where the reloaded model's outputs differ; nothing is left behind then.
    """
    check_free(out)
    package.refuse_fleet("`biasline extract` gives one tenant's delta, which `BiasDelta.merge` puts into the base")
    _check_stock(package)
    torch.set_num_threads(package.task.train.threads)
    predictor = package.predictor()
    inputs = predictor.inputs(rows)
    if package.headed and target in ENGINES:
        raise BiaslineError(
            f"{target}: which heads it reads is not known here", "`biasline serve`, or Transformers reads the folder"
        )
    left_out = {} if package.headed else _left_out(package, predictor.model)
    if target in left_out:
        way_out = "name another `--target`" if "not known here" in left_out[target] else "train other biases"
        raise BiaslineError(left_out[target], way_out)
    wanted = outputs(predictor.model, inputs, package.headed)
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
        found = outputs(reloaded, inputs, package.headed)
        check_same("the merged model, reloaded,", wanted, found, rows, _SERVE)
        stock_ids = find_answering(package.task.kind).stock_ids
        otherwise = sum(
            stock_ids(tokenizer, row, predictor) != given["input_ids"] for row, given in zip(rows, inputs, strict=True)
        )
        told = page(name, fingerprint, package, usage(package, predictor, tokenizer, rows[0]), otherwise, card)
        (draft / "README.md").write_text(told, encoding="utf-8", newline="\n")
        if out.is_dir():
            out.rmdir()
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Exported(size, len(rows), otherwise, left_out)


def _left_out(package: Package, model: Any) -> dict[str, str]:
    """Engine → what it would leave out of the merged model."""
    entries = package.delta.manifest.tensors
    injected = sorted(key for key, entry in entries.items() if entry.injected and not is_scale(entry.role))
    try:
        written = stock_type(model, injected)
    except BiaslineError as error:
        raise BiaslineError(str(error).partition(" → ")[0], _SERVE) from None
    roles = {key: entry.role for key, entry in entries.items() if not is_scale(entry.role)}
    return {name: told for name, engine in ENGINES.items() if (told := lost(engine, written, roles))}


def _check_stock(package: Package) -> None:
    if package.headed and package.by_mean:
        raise BiaslineError(
            "its head reads the mean over the tokens, where stock Transformers puts a pooler of the architecture's own",
            f"{_SERVE}, or train it with train.pooling: model",
        )
    if package.task.load.quantize:
        raise BiaslineError("its base is quantized while it is loaded (load.quantize), which no file holds", _SERVE)
    if package.task.load.trust_remote_code:
        raise BiaslineError("its base runs code of its own (load.trust_remote_code), which is not stock", _SERVE)


def _digests(model: Any) -> dict[str, str]:
    """sha256 of each tensor's bytes."""
    found = {}
    for name, tensor in model.state_dict().items():
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


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
    readable_as(folder / "config.json", folder.glob("*.safetensors"))
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
