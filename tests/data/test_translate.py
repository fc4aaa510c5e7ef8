import json
import random
import shutil

import pytest

from biasline.bases.create import create_pin
from biasline.data.augment import augment
from biasline.data.clean import read_augmented, read_split
from biasline.data.translate import back_translated
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Load, Task

THERE = {"red": "rouge", "old": "vieux", "new": "neuf", "house": "maison", "river": "rivière", "is": "est", "a": "un"}
BACK = {
    "rouge": "crimson",
    "vieux": "ancient",
    "neuf": "new",
    "maison": "home",
    "rivière": "river",
    "est": "is",
    "un": "a",
}


def marian(folder, words):
    """A Marian model with its own kind of tokenizer, trained to put one word for another; four seconds."""
    import sentencepiece
    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True)
    chance = random.Random(0)
    every = [*words, *words.values()]
    (folder / "words.txt").write_text("\n".join(" ".join(chance.choices(every, k=4)) for _ in range(400)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"),
        model_prefix=str(folder / "m"),
        model_type="word",
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    for name in ("source.spm", "target.spm"):
        shutil.copy(folder / "m.model", folder / name)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))
    known = [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]
    known = ["</s>", "<unk>", *(piece for piece in known if piece[0] != "<"), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(known)}))
    spm = {"source_spm": str(folder / "source.spm"), "target_spm": str(folder / "target.spm")}
    tokenizer = MarianTokenizer(**spm, vocab=str(folder / "vocab.json"))
    tokenizer.save_pretrained(folder)
    sizes = {
        f"{part}_{name}": size
        for part in ("encoder", "decoder")
        for name, size in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 128))
    }
    pad = len(known) - 1
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(known),
            d_model=64,
            **sizes,
            max_position_embeddings=32,
            scale_embedding=True,
            num_beams=1,
            pad_token_id=pad,
            decoder_start_token_id=pad,
            eos_token_id=0,
            forced_eos_token_id=0,
        )
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(600):
        rows = [chance.choices(list(words), k=chance.randint(2, 5)) for _ in range(64)]
        given = tokenizer([" ".join(row) for row in rows], padding=True, return_tensors="pt")
        wanted = tokenizer(
            text_target=[" ".join(words[word] for word in row) for row in rows], padding=True, return_tensors="pt"
        )
        labels = wanted.input_ids.masked_fill(wanted.input_ids == pad, -100)
        model(**given, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Recommended")
def test_training_rows_are_translated_there_and_back(workspace):
    pins = []
    for name, words in (("there", THERE), ("back", BACK)):
        marian(workspace / "models" / name, words)
        path = workspace / "custom" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(create_pin(str(workspace / "models" / name), path).dumps())
        assert {"source.spm", "target.spm", "vocab.json"} <= json.loads(path.read_text())["files"].keys()
        pins.append(f"custom/{name}.json")

    texts = ["a red house", "a new river", "old old river is old", "red river"]
    long = "red " * 60
    assert back_translated([*texts, long], pins, Load(), 2) == [
        "a crimson home", "a new river", "ancient ancient river is ancient", "crimson river", None,
    ]  # fmt: skip

    chance = random.Random(1)
    rows = {" ".join(chance.choices(["red", "old", "new", "house", "river", "is"], k=5)) for _ in range(200)}
    (workspace / "rows.json").write_text(
        json.dumps([{"text": text, "label": "ab"["red" in text]} for text in sorted(rows)])
    )
    task = Task(kind="classification", base="data/bases/tiny-bloom.json", data="rows.json", augment={"translate": pins})
    place = TaskPlace("rows")
    validate(task, place)
    assert "by back_translation" in augment(task, place)
    made, train = read_augmented(place), read_split(place, "train")
    swap = {"red": "crimson", "old": "ancient", "house": "home"}
    parents = dict(train.select("row", "text").iter_rows())
    assert made.height > 60
    as_taught = 0
    for parent, text, label in made.select("parent", "text", "label").iter_rows():
        as_taught += text == " ".join(swap.get(word, word) for word in parents[parent].split())
        assert label == "ab"["red" in parents[parent]]
    assert as_taught > 0.9 * made.height  # a model of four seconds errs now and then
    # What came back as it went is no further row.
    assert not set(made["text"]) & set(parents.values())


def test_a_model_that_does_not_translate_is_told(workspace):
    with pytest.raises(BiaslineError, match="base tiny-bloom: .* does not load"):
        back_translated(["a"], ["data/bases/tiny-bloom.json"] * 2, Load(), 2)
    with pytest.raises(BiaslineError, match="custom/none.json: no such pin"):
        back_translated(["a"], ["custom/none.json"] * 2, Load(), 2)
