"""Texts that models write: those of the untuned base beside those of the tuned model."""

from pathlib import Path

import polars as pl

from biasline.bases.limits import limits_of
from biasline.bases.load import best_device, placed
from biasline.bases.pin import Pin, load_tokenizer
from biasline.evaluation.compared import Compared, bias_change
from biasline.evaluation.few_shot import Examples
from biasline.evaluation.generate import Drawing, generate
from biasline.evaluation.measure import with_cheaper
from biasline.evaluation.own_metrics import OwnScores
from biasline.evaluation.prefix import shared_prefix, shared_prompt
from biasline.evaluation.references import own_spelling
from biasline.evaluation.scoring import PASSES, TIMED, Scored, answered, latency_ms, score_likelihood
from biasline.evaluation.tuned import Tuned, owners_in, tuned_model
from biasline.evaluation.untuned import Said, keep, key_of, recalled
from biasline.kinds.protocols import Answering
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.progress import progress
from biasline.tokens.checks import prompt_room
from biasline.tokens.mask import Encoder
from biasline.tokens.saved import IGNORED, read_token_set
from biasline.tokens.template import dialogues_of

# What an answer counts beside one pass over a row, for the progress.
_ANSWER_WORK = 8


def compare_answers(
    answering: Answering, task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame
) -> Compared:
    """Generated answers of the untuned base and the tuned model, and the likelihood of the right ones.

    Where parameters say so, those of the untuned base behind examples too.

    Args:
        answering: of a kind whose models write; further arguments as `Answering.compare`.
        task: its parameters.
        place: where its tokens and its model lie.
        pin: of the base.
        folder: the base's files, verified.
        test: the test rows.
    """
    model, _ = answering.learning.load(pin, folder, task.load, task.train, ())
    placed(model, best_device())
    tokenizer, settings = load_tokenizer(pin, folder), task.evaluate
    encoder = Encoder.from_params(tokenizer, task.tokens)
    room = prompt_room(task.tokens.max_length, settings.max_new_tokens, limits_of(folder).positions)
    prompts = encoder.prompts(dialogues_of(test, answered=False), room, test["row"].to_list())
    references, token_set = own_spelling(tokenizer, answering.references(test)), read_token_set(place, "test")
    kind = answering.learning.name
    owners = owners_in(task, test)
    owner = dict(zip(test["row"], owners, strict=False))
    owners_of_tokens = [owner[row] for row in token_set["row"]] if owners else []
    own = OwnScores(Path(settings.metrics), kind) if settings.metrics else None
    shown_rows = None
    if settings.examples:
        taught = read_token_set(place, "train")["input_ids"]
        shown_rows = Examples(taught, settings.examples, settings.seed, encoder.prefix)
        longest = max(map(len, (*prompts, *token_set["input_ids"])))
        shown_rows.check(limits_of(folder), longest, settings.max_new_tokens)
    timed: dict[str, float] = {}
    pad = model.config.pad_token_id
    first = token_set.select(range(min(len(token_set), TIMED))).to_list()
    # An answer takes as many passes as it has tokens, over a row that is short by comparison.
    work = 2 * PASSES * len(first) + (2 + (shown_rows is not None)) * (_ANSWER_WORK * test.height + len(token_set))

    with progress("evaluate", work) as shown:

        def scored(tuned: Tuned, who: str, examples: Examples | None = None) -> Scored:
            model, asked = tuned.model, examples.prompts(prompts) if examples else prompts
            columns, stops = examples.columns(token_set[:], IGNORED) if examples else token_set[:], encoder.stops()
            of_answers = shown.part(_ANSWER_WORK, f"answers of the {who} model")
            of_rows = shown.part(note=f"likelihoods of the {who} model")
            size = settings.batch_size

            def say() -> Said:
                with tuned.asked(owners):
                    drawing, begin = Drawing.of(settings), shared_prefix(model, asked)
                    answers = generate(model, tokenizer, asked, drawing, size, stops, of_answers, begin)
                with tuned.asked(owners_of_tokens):
                    begin = shared_prompt(model, columns)
                    return Said(answers, *score_likelihood(model, columns, pad, size, of_rows, begin))

            key = key_of(task, pin, model.device, asked, columns, stops) if tuned is plain else ""
            said = recalled(key) if key and task.run.reuse else None
            if said is None:
                said = say()
                if key:
                    keep(key, said)
            else:
                of_answers(test.height)
                of_rows(len(token_set))
            if examples is None:
                with tuned.asked(owners_of_tokens):
                    timed[who] = latency_ms(model, first, pad, shown.part(note=f"latency of the {who} model"))
            scores = own(test.rows(named=True), [answer.text for answer in said.answers]) if own else {}
            return Scored(kind, said.answers, references, said.nll, said.tokens, said.hits, scores)

        plain = Tuned(model)
        base = scored(plain, "base")
        with_examples = scored(plain, "base with examples", shown_rows) if shown_rows else None
        change = bias_change(task, place, model)
        tuned = scored(tuned_model(task, place, model), "tuned")
    rows = list(token_set["row"])
    table, of_base, of_tuned = answered(test, rows, base, tuned), base.measured, tuned.measured
    if with_examples:
        table = with_cheaper(table, answered(test, rows, base, with_examples))
    return Compared(
        of_base.values,
        of_tuned.values,
        table,
        change,
        with_examples.measured.values if with_examples else {},
        signatures=of_tuned.signatures,
        left_out=of_tuned.left_out,
        timed=timed,
    )
