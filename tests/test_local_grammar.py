from __future__ import annotations

import re
from pathlib import Path

import pocketsphinx
import pytest

from providers.local.grammar import GrammarError, check, from_phrases, parse
from providers.local.sphinx import check_grammar, known_word

HEAD = "#JSGF V1.0;\ngrammar g;\n"
WORDS = {"yes", "no", "please", "table", "four", "people", "o'clock"}


def known(word: str) -> bool:
    return word in WORDS


def test_a_full_grammar_is_read() -> None:
    rules = parse(
        "#JSGF V1.0 UTF-8 en;\n/* what\n may be said */ grammar demo.g;\n"
        'public <all> = [/0.2/ yes | /0.8/ "no please"] <rest>* {tag \\} here};  // optional\n'
        "<rest> = (table | <NULL>)+ four;\n"
    )
    assert rules["<all>"].public
    assert not rules["<rest>"].public
    assert rules["<all>"].words == ["yes", "no", "please"]
    assert rules["<all>"].references == ["<rest>"]
    assert rules["<rest>"].references == ["<NULL>"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with `#JSGF V1.0;`"),
        ("grammar g; public <a> = yes;", "must begin with `#JSGF V1.0;`"),
        ("#JSGF V1.0;\npublic <a> = yes;", "line 2: `grammar <name>;` must follow the header, found 'public'"),
        (HEAD + "<a> = yes;", "no rule is public"),
        (HEAD + "public <a> = yes", "line 3: expected `;`, found 'the end'"),
        (HEAD + "public <a> = (yes | no;", "line 3: expected `)`, found ';'"),
        (HEAD + "public <a> = yes |;", "line 3: expected words, a <rule> or a bracket, found ';'"),
        (HEAD + "public <a> = ;", "line 3: expected words"),
        (HEAD + "public a = yes;", "line 3: a rule must begin with <its name>, found 'a'"),
        (HEAD + "public <a> = <b> <c>;", "undefined <b>, <c>"),
        (HEAD + "public <a> = yes;\n<a> = no;", "line 4: <a> is defined twice"),
        (HEAD + "import <other.*>;", "line 3: import is not supported"),
        (HEAD + "public <a> = yes > no;", "line 3: cannot read '> no;'"),
        (HEAD + "public <a> = yes | zxqy | blorf;", "words the recogniser does not know: blorf, zxqy"),
        (HEAD + "public <a> = " + "(" * 60 + "yes" + ")" * 60 + ";", "nested too deep"),
        (HEAD + "public <a> = yes; // " + "x" * 70_000, "longer than 65536"),
    ],
)
def test_a_bad_grammar_is_refused_with_its_place_and_reason(text: str, message: str) -> None:
    with pytest.raises(GrammarError) as raised:
        check(text, known)
    assert message in str(raised.value)


def test_a_grammar_that_unfolds_without_end_is_refused() -> None:
    rules = "".join(f"<r{n}> = <r{n + 1}> <r{n + 1}>;\n" for n in range(40))
    with pytest.raises(GrammarError, match="more than 20000 words"):
        check(HEAD + "public <a> = <r0>;\n" + rules + "<r40> = yes;", known)


def test_a_rule_may_refer_to_itself_at_its_end() -> None:
    check(HEAD + "public <a> = yes [<a>];", known)


def test_words_are_known_whatever_their_case() -> None:
    check(HEAD + "public <a> = Yes please | O'Clock;", known)


def test_phrases_become_a_loop_and_unknown_words_are_told() -> None:
    text, unknown = from_phrases(["Four people!", "table", "book zxqy", "table", "  "], known)
    assert text is not None
    assert "(four people | table)+" in text
    assert unknown == ("book", "zxqy")
    check(text, known)
    assert from_phrases(["zxqy"], known) == (None, ("zxqy",))


def known_word_file() -> Path:
    return Path(pocketsphinx.__file__).parent / "model" / "en-us" / "cmudict-en-us.dict"


def test_the_dictionary_knows_its_first_and_last_word_and_nothing_around_them() -> None:
    lines = known_word_file().read_text().splitlines()
    assert known_word(lines[0].split(" ", 1)[0])
    assert known_word(lines[-1].split(" ", 1)[0])
    assert all(known_word(re.split("[ (]", line)[0]) for line in lines[::97])
    assert known_word("a's")
    assert not any(known_word(word) for word in ("", "!", "read(2)", "zzzzzz", "tabl", "tablee", "été"))


def test_the_grammar_of_the_demo_is_good() -> None:
    check_grammar((Path(__file__).parents[1] / "demo" / "booking.jsgf").read_text())
