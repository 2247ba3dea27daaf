"""How the system prompt of a call is put together."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipelines.thinking.prompt import Prompt

_NOW = datetime(2026, 3, 21, 10, 14, 5, 678_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("Hi {{name}}.", "Hi Ana."),
        ("Hi {{ name }} and {{  name}}.", "Hi Ana and Ana."),
        ("{{user.city}}", "Lima"),
        ("{{date}} {{time}} {{day}}", "2026-03-21 10:14 Saturday"),
        ("{{datetime}} {{timestamp}}", "2026-03-21T10:14:05 1774088045678"),
        ("[{{nobody}}]", "[]"),
        ("[{{RAG_CONTEXT}}{{MEMORY}}]", "[]"),
        ("{name} {{1x}} {{a b}} {{", "{name} {{1x}} {{a b}} {{"),
    ],
)
def test_placeholders_are_filled(template: str, rendered: str) -> None:
    assert Prompt(template, {"name": "Ana", "user.city": "Lima"}).render(_NOW) == rendered


def test_values_are_never_searched_for_placeholders() -> None:
    assert Prompt("{{a}}", {"a": "{{b}} \\1 {{date}}", "b": "no"}).render(_NOW) == "{{b}} \\1 {{date}}"


def test_variables_of_the_call_win_over_the_agents_and_both_over_built_ins() -> None:
    prompt = Prompt("{{x}} {{y}} {{date}} {{time}}", {"x": "agent", "y": "agent", "date": "someday"})
    prompt.set_vars({"y": "call", "time": "noon"})
    prompt.set_vars({})
    assert prompt.render(_NOW) == "agent call someday noon"


@pytest.mark.parametrize(
    ("zone", "local"),
    [
        ("America/Lima", "2026-03-21 05:14"),
        ("Asia/Tokyo", "2026-03-21 19:14"),
        ("Mars/Base", "2026-03-21 10:14"),
        ("", "2026-03-21 10:14"),
        ("../etc/passwd", "2026-03-21 10:14"),
        ("America", "2026-03-21 10:14"),
    ],
)
def test_clock_is_the_agents(zone: str, local: str) -> None:
    assert Prompt("{{date}} {{time}}", timezone=zone).render(_NOW) == local


def test_unknown_names_are_collected_for_one_warning() -> None:
    prompt = Prompt("{{who}} {{who}} {{what}} {{MEMORY}}")
    prompt.render(_NOW)
    assert prompt.unknown == {"who", "what"}


def test_context_follows_the_instructions_in_order_and_verbatim() -> None:
    prompt = Prompt("Be kind, {{name}}.", {"name": "Ana"})
    prompt.add_context("First {{name}}")
    prompt.add_context("Second")
    prompt.set_context("order", "17")
    prompt.set_context("table", "4")
    prompt.set_context("order", "18")
    assert prompt.render(_NOW) == "Be kind, Ana.\n\nFirst {{name}}\n\nSecond\n\norder: 18\ntable: 4"
    prompt.set_instructions("Now in brief, {{name}}.")
    prompt.set_context("order", "")
    assert prompt.render(_NOW) == "Now in brief, Ana.\n\nFirst {{name}}\n\nSecond\n\ntable: 4"
    assert prompt.template == "Now in brief, {{name}}."


def test_an_empty_prompt_is_empty() -> None:
    assert Prompt().render(_NOW) == ""


def test_what_a_page_says_comes_last_under_a_heading_of_its_own() -> None:
    prompt = Prompt("Be kind.")
    prompt.add_context("A block.")
    prompt.set_context("plan", "gold")
    assert prompt.set_page_context("cart", "2 books\n{{date}}")
    assert prompt.set_page_context("page", "/checkout")
    assert prompt.render(_NOW) == (
        "Be kind.\n\nA block.\n\nplan: gold\n\n## UI Context\n\n### cart\n2 books\n{{date}}\n\n### page\n/checkout"
    )
    prompt.set_page_context("cart", None)
    prompt.set_page_context("page", "/home")
    assert prompt.render(_NOW).endswith("## UI Context\n\n### page\n/home")
    prompt.set_page_context("page", None)
    assert prompt.render(_NOW) == "Be kind.\n\nA block.\n\nplan: gold"


def test_a_page_cannot_say_more_than_its_share() -> None:
    prompt = Prompt()
    assert all(prompt.set_page_context(f"key {number}", "x" * 8192) for number in range(16))
    assert prompt.set_page_context("key 3", "changed")
    assert not prompt.set_page_context("one more", "x")
    assert not prompt.set_page_context("key 3", "x" * 8193)
    prompt.set_page_context("key 0", None)
    assert not prompt.set_page_context("k" * 65, "x")
    assert not prompt.set_page_context(" ", "x")
    assert prompt.set_page_context("a\n# heading", "x")
    assert "### a # heading\nx" in prompt.render(_NOW)
