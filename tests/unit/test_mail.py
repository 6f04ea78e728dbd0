"""Reading a mail, naming its files, addressing its reply."""

from __future__ import annotations

import hashlib
import time

import pytest
from cloud_agent import frontmatter
from cloud_agent.frontmatter import annotate
from cloud_agent.mail import (
    MAX_COPIES,
    MAX_REFERENCES,
    Mail,
    UnreadableMail,
    addresses,
    decode,
    encode,
    envelope,
    is_mail_name,
    note_id,
    others_of,
    parse,
    read_note,
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


def test_a_reply_to_all_needs_the_owners_addresses() -> None:
    thread = mail(
        to='Me <Me@Home.org>, "Bo, B" <bo@example.org>, ann@example.org',
        cc="BO@example.org, c@example.org",
        bcc="hidden@example.org",
    )
    alone, to_all = envelope(thread), envelope(thread, {"me@home.org"})
    assert alone is not None and to_all is not None
    assert (alone.cc, to_all.to) == ("", alone.to)
    assert to_all.cc == '"Bo, B" <bo@example.org>, c@example.org'
    assert [address for _, address in others_of(thread)] == ["Me@Home.org", "bo@example.org", "c@example.org"]


def test_an_announcement_is_answered_to_its_sender_alone() -> None:
    made = envelope(mail(to=", ".join(f"p{number}@example.org" for number in range(MAX_COPIES + 1))), {"me@home.org"})
    assert made is not None
    assert made.cc == ""


def test_a_reply_to_with_a_crowd_in_it_is_not_followed() -> None:
    made = envelope(mail(reply_to=", ".join(f"p{number}@evil.org" for number in range(MAX_COPIES + 1))))
    assert made is not None
    assert addresses(made.to) == addresses(mail().sender)


def test_a_long_thread_keeps_its_first_and_its_last_messages() -> None:
    made = envelope(mail(message_id="<new@x>", references=" ".join(f"<{number}@x>" for number in range(200))))
    assert made is not None
    ids = made.references.split()
    assert (len(ids), ids[0], ids[1], ids[-1]) == (MAX_REFERENCES, "<0@x>", "<152@x>", "<new@x>")


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
    st.dictionaries(
        st.sampled_from(["from", "reply_to", "to", "cc", "subject", "message_id", "references"]), st.text(max_size=80)
    )
)
def test_no_header_can_add_a_header(fields: dict[str, str]) -> None:
    made = envelope(Mail("x", fields, "text"), {"me@home.org"})
    if made is not None:
        for value in (made.to, made.cc, made.subject, made.in_reply_to, made.references):
            assert not set(value) & set("\r\n\0\x0b\x0c\x85\u2028\u2029")


RAW = (
    b"Return-Path: <ann@example.org>\r\nReceived: from x; Mon, 1 Jan 2026 10:00:00 +0000\r\n"
    b"From: =?utf-8?q?J=C3=B6rg?= <ann@example.org>\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\nMessage-ID: <3@x>\r\n"
    b"In-Reply-To: <2@x>\r\nReferences: <1@x>\r\n <2@x>\r\nDecision: reply\r\nDrafted-As: x\r\nEmail-Id: ../x\r\n"
    b"Content-Type: text/plain; charset=iso-8859-1\r\nX-Mailer: y\r\n\r\nGr\xfc\xdfe\r\n"
)


def test_a_whole_message_is_a_mail() -> None:
    read = parse("EMAIL_note.md", RAW)
    assert (read.email_id, read.sender, read.subject) == ("note", "Jörg <ann@example.org>", "Café")
    assert read.fields["x_mailer"] == "y"
    assert read.content.text == "Grüße"
    made = envelope(read)
    assert made is not None
    assert (made.in_reply_to, made.references) == ("<3@x>", "<1@x> <2@x> <3@x>")


def test_a_message_sets_none_of_a_notes_own_fields() -> None:
    assert not {"decision", "drafted_as", "received"} & set(parse("EMAIL_x.md", RAW).fields)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n", b"From ann Mon Jan  1 10:00:00 2026\r\n"])
def test_an_annotation_hides_no_message(start: bytes) -> None:
    before = parse("EMAIL_x.md", start + RAW)
    noted = {"decision": "skip", "reason": "automatic", "drafted_as": "EMAIL_DRAFT_x"}
    after = parse("EMAIL_x.md", encode(annotate(decode(start + RAW), noted)))
    assert (after.email_id, after.sender, after.content) == (before.email_id, before.sender, before.content)
    assert after.fingerprint() == before.fingerprint()
    assert after.fields == before.fields | noted


def test_front_matter_wins_over_the_message_below_it() -> None:
    read = parse("EMAIL_x.md", b"---\nsubject: mine\nemail_id: 7\nreply-to:\n---\n\n" + RAW)
    assert (read.email_id, read.subject, read.sender) == ("7", "mine", "Jörg <ann@example.org>")


def test_a_body_below_a_sender_sets_no_field() -> None:
    read = parse("EMAIL_x.md", b"---\nfrom: bob@example.org\n---\n\n" + RAW)
    assert set(read.fields) == {"from"}
    assert read.content.text == "Grüße"
    forwarded = "From: Ann\nSent: today\nTo: Bob\nSubject: x\nDate: y\n\nHello"
    assert parse("EMAIL_x.md", f"---\nfrom: b@c.org\n---\n\n{forwarded}".encode()).content.text == forwarded


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"---\nfrom: a@b.org\ncontent-type: text/plain; charset=koi8-r\n---\n\xf0\xd2\xc9\xd7\xc5\xd4\n", "Привет"),
        (b"---\nfrom: a@b.org\n---\ncaf\xe9\n", "café"),
        ("---\nfrom: a@b.org\n---\n<p>Grüße<p hidden>x".encode(), "Grüße"),
        ("---\nfrom: a@b.org\n---\ncafé\u200b\n".encode(), "café"),
    ],
)
def test_content_of_a_note(raw: bytes, text: str) -> None:
    read = parse("EMAIL_x.md", raw)
    assert read.content.text == text
    assert read.content is read.content  # read once


@pytest.mark.parametrize(
    ("raw", "fingerprint"),
    [
        (b"---\nfrom: a@b.org\nsubject: Hi\n---\n\nHello\n", "a@b.org\0Hi\0Hello"),
        (b"---\nsubject: Hi\n---\n\ncaf\xe9\n", "\0Hi\0caf\ufffd"),
        (b"---\nfrom: a@b.org\n---\n<p>x</p>\n", "a@b.org\0\0<p>x</p>"),
        (b"Subject: of a plain note\n\nText\n", "\0\0Subject: of a plain note\n\nText"),
    ],
)
def test_a_notes_fingerprint_is_over_what_stands_in_it(raw: bytes, fingerprint: str) -> None:
    assert parse("EMAIL_x.md", raw).fingerprint() == hashlib.sha256(fingerprint.encode()).hexdigest()


TEMPLATER = "<% tp.system.prompt() %>"


def test_nothing_of_a_mail_is_code_of_a_plugin_in_the_properties_of_its_draft() -> None:
    fields = dict.fromkeys(("subject", "to", "cc", "in_reply_to"), TEMPLATER)
    for sender in (f'"{TEMPLATER}" <ann@x.org>', "Ann <ann@x.org>, Bob <%/*@x.org>", f"Ann {TEMPLATER} <ann@x.org>"):
        mail = Mail(TEMPLATER, {**fields, "from": sender, "message_id": "<%f(1)%>", "references": "<%f()%> <1@x>"}, "x")
        made = envelope(mail, ("me@o.org",))
        assert made is not None
        assert "<%" not in "".join((made.to, made.cc, made.subject, made.in_reply_to, made.references))
        assert made.references == "<1@x>"


def test_an_id_that_is_code_of_a_plugin_is_one_id_in_the_mail_and_in_its_draft() -> None:
    raw = f"---\nemail_id: {TEMPLATER}\nfrom: a@x.org\nsubject: x\n---\nhi".encode()
    mail = parse("EMAIL_1.md", raw)
    assert mail.email_id == "< % tp.system.prompt() %>"
    written = frontmatter.dump({"email_id": mail.email_id}, "x").encode()
    assert note_id("EMAIL_DRAFT_1.md", read_note(written)[0]) == mail.email_id


@pytest.mark.parametrize(
    ("sender", "to"),
    [
        ("ann@a.org\u200b", "ann@a.org"),
        ("Ann\u202e <ann@a.org>", "Ann <ann@a.org>"),
        ("ann@a.org\u202egro.e@eve", "ann@a.orggro.e"),
    ],
)
def test_a_recipient_holds_nothing_that_nobody_sees(sender: str, to: str) -> None:
    made = envelope(Mail("1", {"from": sender, "subject": "x\u202ey"}, "x"))
    assert made is not None
    assert (made.to, made.subject) == (to, "Re: xy")


def test_a_message_id_has_a_bounded_length() -> None:
    made = envelope(Mail("1", {"from": "a@x.org", "references": f"<{'a' * 5000}@x> <1@x>"}, "x"))
    assert made is not None
    assert made.references == "<1@x>"
