"""What an instruction task answers: texts that the model writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.kinds.learning.instruction import LEARNING
from biasline.kinds.protocols import Answering, Cheaper

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.bases.tokenizer import Tokenizer
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.params import Task
    from biasline.serving.predictor import Predictor


class Instruction(Answering):
    """Texts, judged by whether they are the reference, or by how likely the reference was."""

    learning = LEARNING
    base_label = "untuned base"
    cheaper = Cheaper(
        "the untuned base with examples", "with examples", "untuned base with examples in its prompt", "over_examples"
    )
    example = '{"instruction": "…", "input": ""}'
    own_metrics = True
    takes_examples = True

    # evaluation

    def references(self, test: "pl.DataFrame") -> Sequence[str]:
        """The right answers, which may be short or open."""
        return test[self.learning.columns.answer].to_list()

    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """Generated answers of the untuned base and the tuned model."""
        from biasline.evaluation.answers import compare_answers

        return compare_answers(self, task, place, pin, folder, test)

    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """The template that prompts and answers were put into."""
        return f"template `{task.tokens.template_name}`"

    # serving

    def inputs(
        self, predictor: "Predictor", records: Sequence[dict[str, Any]], max_new_tokens: int | None = None
    ) -> list[dict[str, list[int]]]:
        """The dialogue that ends in the row's instruction, as the template writes it, with room for an answer."""
        from biasline.tokens.checks import prompt_room
        from biasline.tokens.template import Turn

        rows, task = predictor.prompt_texts(records), predictor.task
        said = predictor.said_before(records)
        dialogues = [
            [*before, Turn("user", instruction, given)] for before, (instruction, given) in zip(said, rows, strict=True)
        ]
        longest = max_new_tokens or task.evaluate.max_new_tokens
        room = prompt_room(task.tokens.max_length, longest, predictor.positions)
        return [{"input_ids": ids} for ids in predictor.dialogue_encoder.prompts(dialogues, room)]

    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """The text that the model writes."""
        from biasline.evaluation.generate import Drawing, generate

        drawing = Drawing.of(predictor.settings(params))
        ids = [one["input_ids"] for one in predictor.inputs(records, drawing.max_new_tokens)]
        batch_size = predictor.task.evaluate.batch_size
        answers = generate(predictor.model, predictor.tokenizer, ids, drawing, batch_size, predictor.stops)
        return [answer.text for answer in answers]

    def line(self, answer: Any) -> str:
        """The text itself."""
        return answer

    def evaluated(self, predictions: "pl.DataFrame") -> list[Any]:
        """The texts given."""
        return predictions["tuned"].to_list()

    def is_drawn(self, task: "Task") -> bool:
        """Above temperature 0, tokens are drawn one after the other for all rows."""
        return task.evaluate.temperature > 0

    def rescored(
        self, predictor: "Predictor", rows: "pl.DataFrame", given: Sequence[Any], own_metrics: str
    ) -> "pl.DataFrame":
        """With the texts and all their scores, and the likelihood of the right answers."""
        import polars as pl

        from biasline.evaluation.generate import Answer
        from biasline.evaluation.own_metrics import OwnScores
        from biasline.evaluation.references import own_spelling
        from biasline.evaluation.scoring import Scored, answered, score_likelihood
        from biasline.tokens.answers import answer_columns

        columns = answer_columns(predictor.dialogue_encoder, rows)
        scored = rows.filter(pl.col("row").is_in(columns["row"]))
        with predictor.asked(predictor.owners(scored.to_dicts())):
            likelihood = score_likelihood(predictor.model, columns, *predictor.batches)
        own = OwnScores(Path(own_metrics), self.learning.name)(rows.rows(named=True), given) if own_metrics else {}
        references = own_spelling(predictor.tokenizer, rows["output"].to_list())
        given_scores = Scored(self.learning.name, [Answer(text, True) for text in given], references, *likelihood, own)
        return answered(rows, columns["row"], given_scores, given_scores)

    # stock Transformers

    def stock_ids(self, tokenizer: "Tokenizer", row: dict[str, Any], predictor: "Predictor") -> list[int]:
        """Tokens of the dialogue, as the chat template in the folder writes it."""
        return tokenizer(_stock_prompt(tokenizer, row), add_special_tokens=False).input_ids

    def stock_usage(self, predictor: "Predictor", tokenizer: "Tokenizer", row: dict[str, Any]) -> list[str]:
        """The messages, the prompt that becomes of them, and the answer."""
        return [
            f"messages = {_messages(row)!r}",
            "prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)",
            'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")',
            'answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]',
            "print(tokenizer.decode(answer, skip_special_tokens=True).strip())",
            "```",
            "",
            "There the prompt is:",
            "",
            "```",
            _stock_prompt(tokenizer, row),
            "```",
        ]


def _stock_prompt(tokenizer: "Tokenizer", row: dict[str, Any]) -> str:
    return tokenizer.apply_chat_template(_messages(row), add_generation_prompt=True, tokenize=False)


def _messages(row: dict[str, Any]) -> list[dict[str, str]]:
    from biasline.tokens.template import dialogue

    instruction, given = row["instruction"], row.get("input") or ""
    content = f"{instruction}\n{given}".rstrip()
    before = [
        {"role": turn.role, "content": turn.content, "instruction": turn.content}
        for turn in dialogue("", "", row.get("history") or "")[:-1]
    ]
    return [*before, {"role": "user", "content": content, "instruction": instruction, "input": given}]


ANSWERING = Instruction()
