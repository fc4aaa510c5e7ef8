"""The chat template that a model takes along to programs of others."""

from biasline.tokens.template import CHAT, Template


def stock_template(template: Template) -> str | None:
    """A task's template as stock programs render it; None where the base's own does as it is."""
    if template.name == CHAT and not template.reads_clock:
        return None
    # The beginning of a sequence, which the encoder puts in front and `apply_chat_template` does not.
    tokenizer = template.tokenizer
    start = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return ("{{- bos_token -}}" if start and template.name != CHAT else "") + template.source
