"""Exact token ids and labels: prompt and response are tokenized apart and only the response is supervised.

Apart, because a merge across the border would shift the mask by a token; the end-of-sequence token is always
supervised, or the tuned model would never stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from biasline.errors import BiaslineError

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """One example in tokens: `input_ids` and `labels` of equal length; `IGNORED` where nothing is supervised."""

    input_ids: list[int]
    labels: list[int]


class Encoder:
    """Turns prompts and responses into tokens with one tokenizer.

    Args:
        tokenizer: a fast Transformers tokenizer.
        max_length: longest sequence in tokens, end-of-sequence included.
        long_response: `reject` or `truncate` a response that fills `max_length` by itself.

    Special tokens written out in the text are read as plain text: data must not end a sequence or forge a turn.

    Errors: `BiaslineError` where the tokenizer has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, max_length: int, long_response: str = "reject") -> None:
        if tokenizer.eos_token_id is None:
            raise BiaslineError("the base's tokenizer has no end-of-sequence token", "set eos_token in its config")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.long_response = long_response
        self.eos: int = tokenizer.eos_token_id
        start = tokenizer("").input_ids[:1]
        # Tokenizers that begin every sequence with BOS (LLaMA's) get it once, in front of the prompt.
        self.prefix: list[int] = start if start and start[0] == tokenizer.bos_token_id else []

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, each cut from the left to leave room for at least one response token and EOS."""
        return [self.prefix + self._cut(ids, self.max_length - 2) for ids in self._ids(texts)]

    def examples(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Encoded | None]:
        """Token ids and labels of examples; None where a row is left out: its response is too long or has no token."""
        pairs = zip(self._ids(prompts), self._ids(responses), strict=True)
        return [self._example(prompt, response) for prompt, response in pairs]

    def _example(self, prompt: list[int], response: list[int]) -> Encoded | None:
        # A response without any of its prompt would teach nothing about it: a quarter of the length stays the prompt's.
        kept = min(len(prompt), self.max_length // 4)
        room = self.max_length - len(self.prefix) - kept - 1  # one for EOS
        if not response:
            return None
        if len(response) > room:
            if self.long_response == "reject":
                return None
            response = response[:room]
        prompt = self.prefix + self._cut(prompt, self.max_length - 1 - len(response))
        response = [*response, self.eos]
        return Encoded(prompt + response, [IGNORED] * len(prompt) + response)

    def _cut(self, prompt: list[int], room: int) -> list[int]:
        """The last tokens of a prompt that fit beside the prefix: its end says whose turn it is."""
        room -= len(self.prefix)
        return prompt[len(prompt) - room :] if len(prompt) > room else prompt

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        ).input_ids
