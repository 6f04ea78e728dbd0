"""What a stranger's words can do in an alert: nothing."""

from __future__ import annotations

import re

import pytest
from cloud_agent.alerting import text
from cloud_agent.alerting.text import harmless, item, message, sender
from cloud_agent.mail import Mail
from hypothesis import example, given
from hypothesis import strategies as st


def mail(**fields: str) -> Mail:
    return Mail("x", {name.removesuffix("_"): value for name, value in fields.items()}, "")


@pytest.mark.parametrize(
    ("wrote", "stands"),
    [
        ("Invoice 2026-11", "Invoice 2026-11"),
        ("v2.0 costs 3.50, e.g. on 1.2.3", "v2.0 costs 3.50, e.g. on 1.2.3"),
        ("see http://evil.com/x?a=b", "see http[:]//evil[.]com/x?a=b"),
        ("see evil.com now", "see evil[.]com now"),
        ("at 10.0.0.1, or 192.168.1.1.", "at 10[.]0[.]0[.]1, or 192[.]168[.]1[.]1."),
        ("mailto:x@y.example tel:+4917", "mailto[:]x@y[.]example tel[:]+4917"),
        ("@everyone <!channel> <@U123>", "[@]everyone ‹!channel› ‹[@]U123›"),
        ('"@everyone" *@here* _@all x@channel', '"[@]everyone" *[@]here* _[@]all x[@]channel'),
        ('"@**all** -@ann', '"[@]**all** -[@]ann'),
        ("bob@example.org, b.c@mail.example.org", "bob@example[.]org, b.c@mail[.]example[.]org"),
        ("bob@localhost bob@here.example", "bob[@]localhost bob[@]here[.]example"),
        (
            "evil\u3002com evil\uff61com \u3067\u3059\u3002\u307e\u3059",
            "evil[.]com evil[.]com \u3067\u3059\u3002\u307e\u3059",
        ),
        ("[pay](//2130706433) ||hidden", "[pay]（//2130706433) ¦¦hidden"),
        ("a\r\nTo: +1\x00\x1b[31m\u2028b", "a To: +1 [31m b"),
        ("exa\u200bmple.com\u202e", "example[.]com"),
        ("\u5bb6.\u30b3\u30e0", "\u5bb6[.]\u30b3\u30e0"),
        ("evil\uff0ecom \uff48ttp\uff1a\uff0f\uff0fx", "evil[.]com \uff48ttp[:]//x"),
    ],
)
def test_a_strangers_words(wrote: str, stands: str) -> None:
    assert harmless(wrote, 120) == stands


MENTION = re.compile(r"(?<!\[)@(?=everyone|here)|(?<![^\W_])(?<!\[)@", re.I)
LINK = re.compile(r"[a-z][a-z0-9+.-]*://|\bwww\.|\w\.[^\W\d_]{2}|(?<![\d.])\d+\.\d+\.\d+\.\d+(?![\d.])", re.I)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(
                (
                    "http://",
                    "evil.com",
                    ".",
                    "@everyone",
                    "@",
                    "](",
                    "|",
                    "\u3002",
                    "<",
                    "\n",
                    "\u202e",
                    "//",
                    ":",
                    "1.1.1.1",
                    " ",
                )
            ),
        ),
        max_size=12,
    ).map("".join)
)
@example("mailto::")
@example("[x]((//2130706433)")
@example("_.com")
@example("0001.1.1.1")
@example("@]")
@example("x@everyones.example")
@example("a:\u200b//b")
@example("h\x00ttp:\x00//x.\x00com")
@example("http::://x.de")
def test_whatever_they_write_it_is_one_line_and_no_link(wrote: str) -> None:
    line = harmless(wrote, 60)
    assert line.isprintable()
    assert not LINK.search(line)
    assert not MENTION.search(line)
    assert "](" not in line and "||" not in line
    assert len(line.replace("[", "").replace("]", "")) <= 60
    assert harmless(line, 200) == line, "done again, it stays"


def test_the_sender_is_shown_with_the_address() -> None:
    assert sender(mail(from_='"The Bank" <x@evil.example>')) == "The Bank (x@evil[.]example)"
    assert sender(mail(from_="ann@example.org")) == "ann@example[.]org"
    assert sender(mail(from_="nobody")) == "nobody"
    assert sender(mail()) == "an unknown sender"


def test_an_item_has_one_line_each() -> None:
    made = item("Ann", "A\nquestion", "wants\r\na date", "Dear\nall")
    assert made == "• Ann\n  A question\n  wants a date\n  “Dear all”"
    assert item("Ann", "", "") == "• Ann\n  (no subject)"


def test_a_message_says_how_many_and_names_some() -> None:
    found = message("cloud", [("9 drafts wait", [f"• {number}" for number in range(9)])])
    assert found.title == "cloud: 9 drafts wait"
    assert found.body.splitlines()[-1] == "… and 4 more"
    assert len(found.body.splitlines()) == text.MOST + 1
    assert str(message("cloud", [])) == "cloud: all is well"


@given(st.lists(st.text(max_size=3000), max_size=30))
def test_a_message_is_bounded(items: list[str]) -> None:
    assert len(message("cloud", [("some", items)]).body) <= text.LONGEST
