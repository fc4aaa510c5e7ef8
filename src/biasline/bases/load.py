"""Loading a checked base, frozen, with an explicit dtype."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from safetensors import SafetensorError
from torch import nn

from biasline.bases.limits import limits_of, quantization_of
from biasline.bases.pin import POOLING_FILE, Pin
from biasline.bases.pooling import can_pool_by_mean, pool_by_mean
from biasline.bitfit import inspect_biases
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError, first_line, shown
from biasline.jsonfile import load_json
from biasline.params import Load

ModelT = TypeVar("ModelT", bound=nn.Module)

# Of a weight, with what belongs to each block of them.
_BYTES = {"8bit": 1.0, "4bit": 0.56}
# Modules of heads and poolers, as Transformers calls them.
_HEADS = (
    *("classifier", "score", "pooler", "pre_classifier", "classification_head", "head"),
    *("sequence_summary", "logits_proj", "qa_outputs", "lm_head"),
)


def best_device() -> torch.device:
    """Where a model is evaluated or served: the accelerator if there is one, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


def placed(model: ModelT, device: torch.device | str) -> ModelT:
    """The model on a device; one whose weights are quantized stays where it was loaded: on the best one."""
    return model if getattr(model, "quantization_method", None) else model.to(device)


def load_causal_lm(pin: Pin, folder: Path, load: Load) -> PretrainedModel:
    """The base as a causal language model on the CPU, in eval mode, every parameter frozen.

    Args:
        pin: the base's pin.
        folder: where its files lie, already verified.
        load: dtype, and whether pickled weights and remote code are allowed.

    Raises:
        BiaslineError: for pickled weights that params do not allow, and for what Transformers cannot load.
    """
    from transformers import AutoModelForCausalLM

    return _whole(AutoModelForCausalLM, pin, folder, load, "take a base that was trained as a causal language model")


def load_seq2seq(pin: Pin, folder: Path, load: Load) -> PretrainedModel:
    """A model that turns one text into another, as `load_causal_lm` loads one that goes on."""
    from transformers import AutoModelForSeq2SeqLM

    return _whole(AutoModelForSeq2SeqLM, pin, folder, load, "take a model that was trained to translate")


def _whole(model_class: Any, pin: Pin, folder: Path, load: Load, hint: str) -> PretrainedModel:
    model, missing = _load(model_class, pin, folder, load)
    if missing:
        # Transformers would fill them at random, and here they would stay so.
        raise BiaslineError(f"base {pin.name}: no weights for {missing[0]}, which {type(model).__name__} needs", hint)
    return model


def load_classifier(
    pin: Pin,
    folder: Path,
    load: Load,
    labels: Sequence[str],
    seed: int,
    head: str = "auto",
    pooling: str = "auto",
    auto_class: str = "AutoModelForSequenceClassification",
) -> tuple[PretrainedModel, list[str]]:
    """The base with a head for the labels or the score of a text, or for the labels of its tokens.

    Args:
        pin: the base's pin.
        folder: where its files lie, already verified.
        load: dtype, and whether pickled weights and remote code are allowed.
        labels: label names in the order of their numbers; none for a head of one output, a score.
        seed: of a new head's first values.
        head: what becomes of a head that the base has: `auto` keeps it frozen, `train` trains it whole, `new` puts
            a new one in its place. One for another number of labels is always replaced.
        pooling: what the head reads: the base's own pooler (`model`), the mean over the tokens (`mean`), or (`auto`)
            the mean where the base's files have no pooler, or say that it was trained to be read by the mean.
        auto_class: of Transformers; its head may read a whole text or each token. The latter needs no pooler.

    Returns:
        the model, frozen, and the names of the head's parameters that are to be trained: a new head's, and a pooler's
        where the base was trained without one.

    Raises:
        BiaslineError: as `load_causal_lm`; where more than a head is missing; where an existing head is for other
            labels; where a mean is asked for and the model has no pooler that it could stand for.
    """
    import transformers

    torch.manual_seed(seed)
    names = dict(enumerate(labels or ["score"]))
    model, missing = _load(
        getattr(transformers, auto_class),
        pin,
        folder,
        load,
        num_labels=len(names),
        id2label=names,
        label2id={name: number for number, name in names.items()},
        ignore_mismatched_sizes=True,
    )
    inner = [name for name in missing if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name]
    if inner:
        raise BiaslineError(f"base {pin.name}: no weights for {inner[0]}", "take a base that has all of its layers")
    body = model.base_model
    poolers = [name for name in missing if ".pooler." in name]
    if pooling == "mean" and not can_pool_by_mean(body):
        raise BiaslineError(
            f"train.pooling: mean: {type(model).__name__} has no pooler that a mean could stand for",
            "leave it out: this architecture's head reads the hidden states in a way of its own",
        )
    wants_mean = bool(poolers) or _trained_by_mean(pin, folder)
    by_mean = pooling == "mean" or (pooling == "auto" and wants_mean and can_pool_by_mean(body))
    if by_mean:
        pool_by_mean(body)
        missing = [name for name in missing if name not in poolers]
    parts = [entry.name for entry in inspect_biases(model).head]
    existing = [name for name in parts if name not in missing]
    if by_mean and existing and head == "auto":
        raise BiaslineError(
            f"base {pin.name}: its head was trained on what its own pooler reads, not on a mean",
            "set train.pooling: model, or train.head: train or new",
        )
    if head == "new":
        _refill(model, existing)
    if head == "new" or len(existing) < len(parts):  # half a head is none
        return model, [*missing, *existing]
    if existing and not labels and head == "auto":
        raise BiaslineError(
            f"base {pin.name}: it has a head of its own, whose scores are in units that nobody knows here",
            "set train.head: train or new",
        )
    if existing and labels:
        known = transformers.AutoConfig.from_pretrained(str(folder)).id2label
        has = [str(known[number]) for number in sorted(known)]
        if [name.casefold() for name in has] != [name.casefold() for name in labels]:
            raise BiaslineError(
                f"base {pin.name}: its head is for the labels {', '.join(has)}, the task's are {', '.join(labels)}",
                "call the labels so in the data, or start a new head with train.head: new",
            )
    return model, [*missing, *existing] if head == "train" else missing


def _trained_by_mean(pin: Pin, folder: Path) -> bool:
    """Whether a sentence encoder's own files say that its vectors are the mean over the tokens."""
    return POOLING_FILE in pin.files and bool(
        load_json(folder / POOLING_FILE, "restore the base's files").get("pooling_mode_mean_tokens")
    )


def _refill(model: PretrainedModel, names: Sequence[str]) -> None:
    """New first values for a head, as Transformers draws them."""
    deviation = getattr(model.config, "initializer_range", 0.02)
    for name in names:
        parameter = model.get_parameter(name).data
        if parameter.ndim > 1:
            parameter.normal_(0.0, deviation)
        else:
            parameter.zero_()


def _load(model_class: Any, pin: Pin, folder: Path, load: Load, **more: Any) -> tuple[PretrainedModel, list[str]]:
    """A model, frozen, and the names of the parameters that its files do not have so, in model order."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_memory(pin, load)
    if pin.has_bin and not load.allow_bin:
        raise BiaslineError(
            f"base {pin.name}: its weights are pickled (.bin)",
            "set load.allow_bin: true for the task to read them with weights_only=True",
        )
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is dealt with here
    try:
        model, info = model_class.from_pretrained(
            str(folder),
            output_loading_info=True,
            dtype=getattr(torch, load.dtype),
            use_safetensors=not pin.has_bin,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=load.trust_remote_code,
            **_in_few_bits(load, "num_labels" in more),
            **more,
        )
    except ImportError as error:
        way_out = ", or take the base as it was before it was quantized" * bool(quantization_of(folder))
        raise BiaslineError(
            f"base {pin.name}: a package that it needs is missing: {' '.join(str(error).split())[:300]}",
            f"install that package{way_out}",
        ) from None
    except (OSError, ValueError, RuntimeError, AssertionError, pickle.UnpicklingError, SafetensorError) as error:
        raise BiaslineError(f"base {pin.name}: {shown(folder)} does not load: {first_line(error)}") from None
    finally:
        logging.set_verbosity(before)
    known = limits_of(folder).vocabulary
    if not _inside(model.config.pad_token_id, known):
        # Padding is masked. A causal classifier reads a row at its last token that is not this one: where that is EOS,
        # at the token before it, in training and later alike.
        model.config.pad_token_id = model.config.eos_token_id if _inside(model.config.eos_token_id, known) else 0
    model.requires_grad_(False)
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    return model.eval(), [name for name, _ in model.named_parameters() if name in missing]


def _check_memory(pin: Pin, load: Load) -> None:
    """Refuse a base that this machine has no room for: the system would end the process without a word."""
    size = _BYTES.get(load.quantize, getattr(torch, load.dtype).itemsize) * pin.inventory.get("parameters", 0)
    room = psutil.virtual_memory().total
    if size > room and best_device().type == "cpu":
        parameters = pin.inventory["parameters"]
        smaller = {"load: {dtype: bfloat16}": 2 * parameters, "load: {quantize: 8bit}": parameters}
        fits = [way for way, bytes_ in smaller.items() if bytes_ <= room]
        raise BiaslineError(
            f"base {pin.name}: {size / 1e9:.1f} GB as {load.quantize or load.dtype}, and this machine has "
            f"{room / 1e9:.1f} GB",
            f"{' or '.join(fits)} makes it smaller" if fits else "take a larger machine",
        )


def _in_few_bits(load: Load, headed: bool) -> dict[str, Any]:
    """How Transformers quantizes weights while it reads them; a head, which may be trained whole, stays as it is."""
    if not load.quantize:
        return {}
    from transformers import BitsAndBytesConfig

    settings: dict[str, Any] = {"llm_int8_skip_modules": list(_HEADS)} if headed else {}
    if load.quantize == "8bit":
        settings["load_in_8bit"] = True
    else:
        dtype = getattr(torch, load.dtype)
        settings |= {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    # What is quantized cannot be moved later.
    return {"quantization_config": BitsAndBytesConfig(**settings), "device_map": {"": best_device()}}


def _inside(token: Any, vocabulary: int | None) -> bool:
    """Whether something is the id of a token that a base has an embedding for."""
    return isinstance(token, int) and token >= 0 and (vocabulary is None or token < vocabulary)
