"""What kinds share whose models read a text (or two) and have a head of their own: how they are asked."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biasline.kinds.protocols import Answering

if TYPE_CHECKING:
    from biasline.bases.tokenizer import Tokenizer
    from biasline.serving.predictor import Predictor


class HeadedAnswering(Answering):
    """Answers of a head to texts, whose columns are `text` and `text_pair`."""

    # serving

    def inputs(
        self, predictor: "Predictor", records: Sequence[dict[str, Any]], max_new_tokens: int | None = None
    ) -> list[dict[str, list[int]]]:
        """A text or a pair, as the tokenizer puts them together; nothing is to be written behind them."""
        rows = predictor.prompt_texts(records)
        return predictor.text_encoder.texts([text for text, _ in rows], [pair for _, pair in rows])

    # stock Transformers

    def stock_ids(self, tokenizer: "Tokenizer", row: dict[str, Any], predictor: "Predictor") -> list[int]:
        """Tokens of a text or a pair; of a causal model, which tells no texts apart, those of lines and its end."""
        text, pair = row["text"], row.get("text_pair") or None
        length = predictor.task.tokens.max_length
        if tokenizer("").input_ids:
            return tokenizer(text, pair, truncation=True, max_length=length).input_ids
        return tokenizer("\n".join(filter(None, (text, pair))) + (tokenizer.eos_token or "")).input_ids

    def stock_usage(self, predictor: "Predictor", tokenizer: "Tokenizer", row: dict[str, Any]) -> list[str]:
        """The texts, the inputs, and what is read from the head."""
        asked = "text, text_pair or None"
        if not tokenizer("").input_ids:  # then nothing tells two texts apart, or where one ends
            asked = '"\\n".join(filter(None, (text, text_pair))) + tokenizer.eos_token'
        return [
            f"text, text_pair = {row['text']!r}, {row.get('text_pair', '')!r}",
            f"cut = {{'truncation': True, 'max_length': {predictor.task.tokens.max_length}}}",
            f'inputs = tokenizer({asked}, return_tensors="pt", **cut)',
            f"print({self.stock_answer(predictor)})",
            "```",
        ]

    @abstractmethod
    def stock_answer(self, predictor: "Predictor") -> str:
        """Python that makes the answer of `model` and `inputs`."""
