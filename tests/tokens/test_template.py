from biasline.tokens.template import render_prompt


def test_human_assistant_with_and_without_input():
    assert render_prompt("human-assistant", "Say it", "twice") == "Human: Say it\ntwice\n\nAssistant: "
    assert render_prompt("human-assistant", "Say it", "") == "Human: Say it\n\nAssistant: "
    assert render_prompt("human-assistant", "Say it \n", "  ") == "Human: Say it\n\nAssistant: "
