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
