from biasline.tokens.template import Turn, dialogue


def test_a_row_is_a_dialogue():
    assert dialogue("Say it", "twice") == [Turn("user", "Say it", "twice")]
    assert dialogue("Say it", "", output="it") == [Turn("user", "Say it"), Turn("assistant", "it")]
    assert dialogue("b", "", '[["user", "a"], ["assistant", "A"]]')[:2] == [Turn("user", "a"), Turn("assistant", "A")]


def test_what_a_user_says_is_one_text():
    assert Turn("user", "Say it", "twice").text == "Say it\ntwice"
    assert Turn("user", "Say it \n", "  ").text == "Say it"
    assert Turn("assistant", "it\n").text == "it\n"
