"""JSGF grammars: reading them far enough to say what is wrong, and making them out of phrases. Pure.

The dialect is pocketsphinx's (JSGF 1.0 of the W3C note without imports); words are what its dictionary calls them:
lower case, with apostrophes (`o'clock`), numbers spelt out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

MAX_SIZE = 64 * 1024
"""Characters of a grammar; more is refused."""
MAX_EXPANDED = 20_000
"""The recogniser puts rules into each other: a small text can grow without end."""
MAX_DEPTH = 50
"""Brackets within brackets."""

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|\{(?:\\.|[^}\\])*\})
    |(?P<weight>/\s*\d*\.?\d+\s*/)
    |(?P<rule><[^<>\s;|+{}()\[\]]+>)
    |(?P<quoted>"[^"\n]*")
    |(?P<mark>[=;|*+()\[\]])
    |(?P<word>[^\s=;|*+<>()\[\]{}/"]+)""",
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(r"\s*#JSGF\s+V1\.0[^;\n]*;")
_BUILT_IN = frozenset(("<NULL>", "<VOID>"))


class GrammarError(ValueError):
    """What is wrong with a grammar, and where."""


@dataclass(slots=True)
class Rule:
    """What one rule names, each time it names it: words to hear and rules it refers to."""

    public: bool
    words: list[str] = field(default_factory=list[str])
    references: list[str] = field(default_factory=list[str])


def parse(text: str) -> dict[str, Rule]:
    """The rules of a grammar by name (`<name>`). Raises GrammarError with the line."""
    if len(text) > MAX_SIZE:
        raise GrammarError(f"grammar: longer than {MAX_SIZE} characters")
    header = _HEADER.match(text)
    if header is None:
        raise GrammarError("grammar: must begin with `#JSGF V1.0;`")
    return _Reader(_tokens(text, header.end())).rules()


def check(text: str, known: Callable[[str], bool]) -> None:
    """Raises GrammarError for a grammar that cannot be used, naming its unknown rules or words.

    `known` is the dictionary.
    """
    rules = parse(text)
    public = [name for name, rule in rules.items() if rule.public]
    if not public:
        raise GrammarError("grammar: no rule is public")
    references = {name for rule in rules.values() for name in rule.references}
    if missing := sorted(references - rules.keys() - _BUILT_IN):
        raise GrammarError(f"grammar: undefined {', '.join(missing)}")
    if max(_expanded(name, rules, {}) for name in public) > MAX_EXPANDED:
        raise GrammarError(f"grammar: more than {MAX_EXPANDED} words once its rules are put into each other")
    words = {word for rule in rules.values() for word in rule.words}
    if strange := sorted(word for word in words if not known(word.lower())):
        raise GrammarError(f"grammar: words the recogniser does not know: {', '.join(strange[:20])}")


def from_phrases(phrases: Iterable[str], known: Callable[[str], bool]) -> tuple[str | None, tuple[str, ...]]:
    """A grammar that hears the phrases in any order and number, and the words left out because they are unknown.

    A phrase with an unknown word is left out whole. None when nothing remains.
    """
    usable: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for phrase in phrases:
        words = re.findall(r"[\w'.-]+", phrase.lower())
        strange = [word for word in words if not known(word)]
        unknown.update(dict.fromkeys(strange))
        if words and not strange:
            usable[" ".join(words)] = None
    if not usable:
        return None, tuple(unknown)
    choices = " | ".join(usable)
    return f"#JSGF V1.0;\ngrammar phrases;\npublic <phrases> = ({choices})+;\n", tuple(unknown)


def _expanded(name: str, rules: dict[str, Rule], sizes: dict[str, int]) -> int:
    """Words and references of a rule with all its rules put in; `sizes` remembers, and ends recursion."""
    if name in _BUILT_IN:
        return 1
    if name not in sizes:
        sizes[name] = 1
        rule = rules[name]
        sizes[name] = len(rule.words) + sum(_expanded(one, rules, sizes) for one in rule.references)
    return sizes[name]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def _tokens(text: str, at: int) -> list[_Token]:
    found: list[_Token] = []
    while at < len(text):
        match = _TOKEN.match(text, at)
        line = text.count("\n", 0, at) + 1
        if match is None:
            raise GrammarError(f"grammar line {line}: cannot read {text[at : at + 20]!r}")
        if match.lastgroup != "skip":
            found.append(_Token(str(match.lastgroup), match.group(), line))
        at = match.end()
    found.append(_Token("end", "the end", text.count("\n") + 1))
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._last = tokens[0]
        self._rules: dict[str, Rule] = {}
        self._rule = Rule(False)

    def rules(self) -> dict[str, Rule]:
        if self._next().text != "grammar":
            raise self._wrong("`grammar <name>;` must follow the header")
        if self._next().kind != "word":
            raise self._wrong("the grammar needs a name")
        self._expect(";")
        while self._peek().kind != "end":
            self._read_rule()
        return self._rules

    def _read_rule(self) -> None:
        token = self._next()
        public = token.text == "public"
        if public:
            token = self._next()
        if token.text == "import":
            raise self._wrong("import is not supported")
        if token.kind != "rule":
            raise self._wrong("a rule must begin with <its name>")
        if token.text in self._rules or token.text in _BUILT_IN:
            raise self._wrong(f"{token.text} is defined twice")
        self._rules[token.text] = self._rule = Rule(public)
        self._expect("=")
        self._choices()
        self._expect(";")

    def _choices(self) -> None:
        self._sequence()
        while self._peek().text == "|":
            self._next()
            self._sequence()

    def _sequence(self) -> None:
        if self._peek().kind == "weight":
            self._next()
        self._item()
        while self._peek().kind in ("word", "quoted", "rule") or self._peek().text in ("(", "["):
            self._item()

    def _item(self) -> None:
        token = self._next()
        match token.kind, token.text:
            case "word" | "quoted", text:
                self._rule.words += text.strip('"').split()
            case "rule", text:
                self._rule.references.append(text)
            case _, ("(" | "[") as bracket:
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise self._wrong("brackets are nested too deep")
                self._choices()
                self._expect(")" if bracket == "(" else "]")
                self._depth -= 1
            case _:
                raise self._wrong("expected words, a <rule> or a bracket")
        while self._peek().text in ("*", "+"):
            self._next()

    def _expect(self, mark: str) -> None:
        if self._next().text != mark:
            raise self._wrong(f"expected `{mark}`")

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        self._last = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return self._last

    def _wrong(self, what: str) -> GrammarError:
        return GrammarError(f"grammar line {self._last.line}: {what}, found {self._last.text!r}")
