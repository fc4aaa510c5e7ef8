"""Back translation: texts into another language and back, by two sequence-to-sequence models that pins name.

torch and Transformers are imported when a translation begins, never with this module.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biasline.bases.pin import verified_folder
from biasline.errors import BiaslineError, first_line
from biasline.params import Load
from biasline.progress import progress

_BATCH = 32
# Tokens; the end of a longer text is lost, so it is left as it is.
_LONGEST = 256


def back_translated(texts: Sequence[str], pins: Sequence[str], load: Load, threads: int) -> list[str | None]:
    """Each text, there and back again; None for one that is too long for a model.

    Args:
        texts: the texts.
        pins: paths of the pins of the two models, there and back; Marian's or any other that translates as it is.
        load: dtype, and whether pickled weights are allowed.
        threads: CPU threads.

    Raises:
        BiaslineError: where a pin, its model or its tokenizer does not load.
    """
    found: list[str | None] = list(texts)
    for pin in pins:
        known = [place for place, text in enumerate(found) if text]
        translated = _translated([found[place] or "" for place in known], Path(pin), load, threads)
        for place, text in zip(known, translated, strict=True):
            found[place] = text
    return found


def _translated(texts: list[str], pin_path: Path, load: Load, threads: int) -> list[str | None]:
    import torch
    from transformers import AutoTokenizer

    from biasline.bases.load import best_device, load_seq2seq

    pin, folder = verified_folder(pin_path)
    torch.set_num_threads(threads)
    model = load_seq2seq(pin, folder, load).to(best_device())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Marian's recommends a library for marks that its models were not fed
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise BiaslineError(f"{pin_path}: its tokenizer does not load: {first_line(error)}", "pin it anew") from None
    limit = min(_LONGEST, getattr(model.config, "max_position_embeddings", _LONGEST))
    ids: list[list[int]] = tokenizer(texts).input_ids if texts else []
    order = sorted((place for place, row in enumerate(ids) if len(row) <= limit), key=lambda place: len(ids[place]))
    found: list[str | None] = [None] * len(texts)
    with progress(f"translate with {pin.name}", len(order)) as shown:
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch: Any = tokenizer.pad({"input_ids": [ids[place] for place in chosen]}, return_tensors="pt")
            with torch.inference_mode():
                # The model's own settings (beams, its bad words), but for chance and for rows that never end.
                output = model.generate(**batch.to(model.device), do_sample=False, max_new_tokens=limit)
            for place, text in zip(chosen, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
                found[place] = text.strip()
            shown.at(start + len(chosen))
    return found
