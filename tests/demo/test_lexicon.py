from biasline.demo import lexicon
from biasline.demo.words import dictionary


def test_one_english_word_stands_for_one_chinese_word():
    pairs = dictionary()
    assert 150 <= len(pairs) <= 300
    assert len({en for en, _ in pairs}) == len({zh for _, zh in pairs}) == len(pairs)


def test_the_dictionary_leaves_out_no_noun():
    assert {(noun.en, noun.zh) for noun in lexicon.NOUNS} <= set(dictionary())


def test_a_word_has_one_opposite():
    english = [word for a, b, _, _ in lexicon.ANTONYMS for word in (a, b)]
    chinese = [word for _, _, a, b in lexicon.ANTONYMS for word in (a, b)]
    assert len(set(english)) == len(english)
    assert len(set(chinese)) == len(chinese)


def test_nouns_refer_to_known_categories_colours_and_homes():
    for noun in lexicon.NOUNS:
        assert noun.category in lexicon.CATEGORIES
        assert noun.colour in ("", *lexicon.COLOURS)
        assert noun.home in ("", *lexicon.HOMES)


def test_irregular_plurals_are_spelled_out():
    plurals = {noun.en: noun.plural for noun in lexicon.NOUNS}
    assert plurals["cat"] == "cats"
    assert plurals["wolf"] == "wolves"
    assert plurals["sheep"] == "sheep"
    assert plurals["milk"] == ""


def test_no_word_of_judgement_is_both_good_and_bad():
    assert not set(lexicon.GOOD_EN) & set(lexicon.BAD_EN)
    assert not set(lexicon.GOOD_ZH) & set(lexicon.BAD_ZH)
    assert len(lexicon.GOOD_EN + lexicon.BAD_EN) >= 60
    assert len(lexicon.GOOD_ZH + lexicon.BAD_ZH) >= 60
