"""Reading a mail, naming its files, addressing its reply."""

from __future__ import annotations

import time

import pytest
from cloud_agent.mail import (
    Mail,
    UnreadableMail,
    addresses,
    envelope,
    is_mail_name,
    parse,
    reply_subject,
    shown,
    slug,
    stem_id,
)
from hypothesis import given
from hypothesis import strategies as st


def mail(**fields: str) -> Mail:
    return Mail("x", {"from": "ann@example.org", "subject": "Hi", **fields}, "text")


@given(st.binary(max_size=300))
def test_parse_reads_or_refuses_any_bytes(raw: bytes) -> None:
    try:
        read = parse("EMAIL_x.md", raw)
    except UnreadableMail as reason:
        assert str(reason)
        return
    read.fingerprint()
    assert slug(read.email_id) == read.slug
    for text in (read.email_id, read.body, *read.fields.values()):
        text.encode()  # never a lone surrogate: it could not be written


@pytest.mark.parametrize("header", [b"caf\xe9", rb'"\ud83d\ude00 \udce9"'])
def test_what_is_no_character_can_be_written(header: bytes) -> None:
    read = parse("EMAIL_x.md", b"---\nemail_id: " + header + b"\nsubject: " + header + b"\n---\nb\xe9\n")
    (read.subject + read.email_id + read.body).encode()


def test_json_escapes_of_an_emoji_are_one_character() -> None:
    assert parse("EMAIL_x.md", rb"---" + b"\n" + rb'subject: "\ud83d\ude00"' + b"\n---\nx").subject == "\U0001f600"


@pytest.mark.parametrize("raw", [b"", b"\n\n", b"---\nfrom: a@b.org\n---\n\n", b"\x00\x01", "text".encode("utf-16")])
def test_what_is_no_mail(raw: bytes) -> None:
    with pytest.raises(UnreadableMail):
        parse("EMAIL_x.md", raw)


def test_the_file_name_stands_in_for_the_id() -> None:
    assert parse("EMAIL_abc.md", b"---\nsubject: s\n---\n").email_id == "abc"
    assert stem_id("EMAIL_DRAFT_abc.md") == "abc"


@pytest.mark.parametrize("good", ["test_001", "urgent_002", "a", "1.2-3_4", "x" * 80])
def test_a_safe_id_is_its_own_slug(good: str) -> None:
    assert slug(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "x/../../../Approved/Email/EMAIL_DRAFT_evil",
        "/etc/passwd",
        "a b",
        "x" * 81,
        "é",
        "a.",
        "-a",
        "a\n",
    ],
)
def test_any_other_id_gets_a_hash(bad: str) -> None:
    made = slug(bad)
    assert made != bad
    assert made[-10:].isalnum()
    assert "/" not in made


@given(st.text(max_size=200), st.text(max_size=200))
def test_slugs_are_safe_stable_and_distinct(one: str, other: str) -> None:
    one, other = shown(one), shown(other)
    made = slug(one)
    assert made
    assert len(made) <= 80
    assert not set(made) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not made.startswith(".")
    assert slug(made) == made  # a file without an email_id keeps its name
    assert (made == slug(other)) == (one == other) or made in (one, other)


@pytest.mark.parametrize("email_id", ["DRAFT_test_001", "DRAFT_"])
def test_no_id_makes_a_mails_file_look_like_a_draft(email_id: str) -> None:
    assert is_mail_name(f"EMAIL_{slug(email_id)}.md")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("a@b.org", [("", "a@b.org")]),
        ("<a@b.org>", [("", "a@b.org")]),
        ('"Doe, John" <j@b.org>, k@b.org', [("Doe, John", "j@b.org"), ("", "k@b.org")]),
        ("Bob b@x.org", [("", "b@x.org")]),
        ('"evil@x.org" <good@b.org>', [("evil@x.org", "good@b.org")]),
        ('"evil@x.org"', []),
        ("a@b.org; c@d.org", [("", "a@b.org"), ("", "c@d.org")]),
        ('"Bob <b@x.org>', [("Bob", "b@x.org")]),
        (r'"a \"b\" c" <b@x.org>', [('a "b" c', "b@x.org")]),
        ("[a@b.org, c@d.org]", [("", "a@b.org"), ("", "c@d.org")]),
        ("a@b.org\r\nBcc: evil@x.org", []),
        ("no address", []),
        ("", []),
    ],
)
def test_addresses(header: str, found: list[tuple[str, str]]) -> None:
    assert addresses(header) == found


@pytest.mark.parametrize("header", ['"' + r"\"" * 50_000, "a" * 100_000, "a@" * 50_000, '"' * 100_001, "<" * 100_000])
def test_no_header_takes_long(header: str) -> None:
    """Each of these took minutes with a pattern that backtracks: a stranger's From must not stop the loop."""
    began = time.monotonic()
    addresses(header)
    envelope(mail(from_=header, references=header, subject="Re: " * 25_000))
    assert time.monotonic() - began < 2


def test_reply_to_before_from() -> None:
    made = envelope(mail(reply_to="Desk <desk@example.org>"))
    assert made is not None
    assert made.to == "Desk <desk@example.org>"
    assert made.cc == ""


def test_an_unusable_reply_to_falls_back_to_from() -> None:
    made = envelope(mail(reply_to="undisclosed"))
    assert made is not None
    assert made.to == "ann@example.org"


def test_nobody_to_reply_to() -> None:
    assert envelope(Mail("x", {"from": "nobody"}, "text")) is None


def test_names_that_are_no_ascii_stay_readable() -> None:
    made = envelope(mail(**{"from": 'Jörg "J" Müller <j@example.org>'}))
    assert made is not None
    assert addresses(made.to) == [('Jörg "J" Müller', "j@example.org")]


@pytest.mark.parametrize(
    ("fields", "in_reply_to", "references"),
    [
        ({}, "", ""),
        ({"message_id": "<3@x>"}, "<3@x>", "<3@x>"),
        ({"message_id": "3@x"}, "<3@x>", "<3@x>"),
        ({"message_id": "<3@x>", "references": "<1@x> <2@x>"}, "<3@x>", "<1@x> <2@x> <3@x>"),
        ({"message_id": "<3@x>", "in_reply_to": "<2@x>"}, "<3@x>", "<2@x> <3@x>"),
        ({"message_id": "<3@x>", "in_reply_to": "<1@x> <2@x>"}, "<3@x>", "<3@x>"),  # RFC 5322 §3.6.4: only if one
        ({"message_id": "<3@x>", "references": "<1@x> <3@x> <1@x>"}, "<3@x>", "<1@x> <3@x>"),
        ({"references": "<1@x>"}, "", "<1@x>"),
    ],
)
def test_threading(fields: dict[str, str], in_reply_to: str, references: str) -> None:
    made = envelope(mail(**fields))
    assert made is not None
    assert (made.in_reply_to, made.references) == (in_reply_to, references)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("Hi", "Re: Hi"),
        ("Re: Hi", "Re: Hi"),
        ("RE: re: AW: Hi", "Re: Hi"),
        ("Re[2]: Hi", "Re: Hi"),
        ("RE(3) : Hi", "Re: Hi"),
        ("回复：你好", "Re: 你好"),
        ("Antw: SV: VS: Hi", "Re: Hi"),
        ("Regarding: Hi", "Re: Regarding: Hi"),
        ("Fwd: Hi", "Re: Fwd: Hi"),
        ("", "Re: (no subject)"),
        ("Re:", "Re: (no subject)"),
        ("Hi\r\nBcc: evil@x.org", "Re: Hi Bcc: evil@x.org"),
    ],
)
def test_reply_subject(subject: str, expected: str) -> None:
    assert reply_subject(subject) == expected


@given(
    st.dictionaries(st.sampled_from(["from", "reply_to", "subject", "message_id", "references"]), st.text(max_size=80))
)
def test_no_header_can_add_a_header(fields: dict[str, str]) -> None:
    made = envelope(Mail("x", fields, "text"))
    if made is not None:
        for value in (made.to, made.cc, made.subject, made.in_reply_to, made.references):
            assert not set(value) & set("\r\n\0\x0b\x0c\x85\u2028\u2029")
