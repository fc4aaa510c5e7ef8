"""How an example becomes a prompt and a response."""


def render_prompt(template: str, instruction: str, text: str) -> str:
    """The text that the model is given; the response follows it directly.

    Args:
        template: name of the template, `human-assistant`.
        instruction: what is asked.
        text: the example's input; may be empty.
    """
    assert template == "human-assistant", template
    return f"Human: {instruction}\n{text}".strip() + "\n\nAssistant: "
