import json

import polars as pl
import pytest

from biasline.data import augment as stage
from biasline.data.augment import augment
from biasline.data.clean import read_augmented, read_split
from biasline.data.split import content_key
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task, check_inputs

PLACE = TaskPlace("reviews")
SUBJECTS = ("film", "book", "play", "song", "show", "meal", "room", "trip")
ENDS = ("in every way", "from the first minute", "for the whole family", "as far as I can tell", "on a cold evening")


@pytest.fixture
def reviews(workspace):
    """240 short reviews, each with something of its own; and what makes tasks on them."""
    rows = [
        {
            "text": f"The {SUBJECTS[n % 8]} of my friend number {n} was {('good', 'poor')[n % 2]} {ENDS[n % 5]}",
            "label": ("good", "poor")[n % 2],
            "shop": "ab"[n % 2],
        }
        for n in range(240)
    ]
    (workspace / "reviews.json").write_text(json.dumps(rows))
    (workspace / "custom").mkdir()
    (workspace / "custom/synonyms.txt").write_text("film, movie, picture\ngood, fine\npoor, bad\n")

    def task(**settings):
        found = Task(kind="classification", base="data/bases/tiny-bloom.json", data="reviews.json", augment=settings)
        validate(found, PLACE)
        return found

    return task


def test_off_by_default(reviews):
    assert "are off" in augment(reviews(), PLACE)
    assert read_augmented(PLACE).is_empty()


def test_every_row_names_its_parent_and_differs_in_words_alone(reviews):
    told = augment(reviews(eda=3, synonyms="custom/synonyms.txt"), PLACE)
    rows, train = read_augmented(PLACE), read_split(PLACE, "train")
    assert f"{train.height} training rows, and {rows.height:,} by eda" in told
    assert 2 * train.height < rows.height <= 3 * train.height
    assert set(rows["method"]) == {"eda"}
    beside = rows.join(train, left_on="parent", right_on="row", suffix="_old")
    assert beside.height == rows.height
    assert (beside["text"] != beside["text_old"]).all()
    assert beside.select(pl.col("label") == pl.col("label_old"), pl.col("shop") == pl.col("shop_old")).to_numpy().all()
    assert rows["row"].is_unique().all() and rows["row"].min() == 241
    keys = [content_key(text, "") for text in [*rows["text"], *train["text"]]]
    assert len(keys) == len(set(keys))


def test_nothing_reaches_the_held_out_splits(reviews):
    """Synonyms that turn training rows into test rows, word for word: none of those is kept."""
    task = reviews(eda=8, share=0.9, operations=["replace"], synonyms="custom/synonyms.txt")
    test, train = read_split(PLACE, "test"), read_split(PLACE, "train")
    before = {name: PLACE.split(name).read_bytes() for name in ("valid", "test", "train")}
    planted = test.with_columns(
        pl.col("text").str.replace("good", "fine").str.replace("poor", "bad"), row=1000 + pl.col("row")
    )
    pl.concat([train, planted]).write_parquet(PLACE.split("train"))
    held_out = {content_key(text, "") for name in ("valid", "test") for text in read_split(PLACE, name)["text"]}
    augment(task, PLACE)
    made = read_augmented(PLACE)
    assert not held_out & {content_key(text, "") for text in made["text"]}
    # The check does something: without it they are there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "near_duplicates", lambda *_: {})
        augment(task, PLACE)
    assert held_out & {content_key(text, "") for text in read_augmented(PLACE)["text"]}
    assert all(PLACE.split(name).read_bytes() == before[name] for name in ("valid", "test"))


def test_what_the_contract_refuses_is_left_out(reviews, workspace):
    (workspace / "custom/rules.py").write_text(
        'def no_movie(frame):\n    return ~frame["text"].str.contains("movie")\n'
    )
    task = reviews(eda=4, operations=["replace"], synonyms="custom/synonyms.txt")
    augment(task, PLACE)
    assert read_augmented(PLACE)["text"].str.contains("movie").any()
    strict = task.model_copy(update={"quality": task.quality.model_copy(update={"checks": "custom/rules.py"})})
    augment(strict, PLACE)
    assert not read_augmented(PLACE)["text"].str.contains("movie").any()


def test_the_same_bytes_each_time_and_others_with_another_seed(reviews):
    def out(**settings):
        augment(reviews(eda=1, **settings), PLACE)
        return PLACE.augmented.read_bytes()

    assert out() == out()
    assert out() != out(seed=1)


def test_rows_that_are_added_leave_the_others_copies_as_they_are(reviews, workspace):
    augment(reviews(eda=2), PLACE)
    before = set(read_augmented(PLACE)["text"])
    rows = json.loads((workspace / "reviews.json").read_text())
    more = [{"text": f"Nobody knows whether chapter {n} ends well", "label": "poor", "shop": "a"} for n in range(40)]
    (workspace / "reviews.json").write_text(json.dumps(more + rows))
    augment(reviews(eda=2), PLACE)
    assert before <= set(read_augmented(PLACE)["text"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"eda": 1, "operations": ["replace"]}, r"augment.operations: replace, insert need synonyms"),
        ({"eda": 1, "columns": ["label"]}, r"augment.columns: 'label' is none of text, text_pair"),
    ],
)
def test_what_does_not_work_is_told(reviews, settings, told):
    with pytest.raises(BiaslineError, match=told):
        augment(reviews(**settings), PLACE)


def test_files_are_looked_for_before_any_work(reviews, workspace):
    with pytest.raises(BiaslineError, match=r"tasks.x.augment.synonyms: custom/none.txt: no such file in custom/"):
        check_inputs("x", reviews(synonyms="custom/none.txt"), workspace)
    with pytest.raises(BiaslineError, match=r"tasks.x.augment.translate: data/there.json: no such file in custom/"):
        check_inputs("x", reviews(translate=["data/there.json", "custom/back.json"]), workspace)
    with pytest.raises(ValueError, match="translate takes two pins, there and back, got 1"):
        reviews(translate=["custom/there.json"])
