"""Gmail over its API with a token that may only read, and what becomes of tokens: against real HTTP."""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_agent.config import OAuth
from cloud_agent.gmail import PART_BYTES, decode_raw
from cloud_agent.mailbox import LARGE_BYTES, Refused, Spool, Unreachable
from cloud_agent.oauth import Http, Tokens

from tests.standins import gmail_api
from tests.standins.gmail_api import READONLY, Grant, Provider
from tests.watchkit import Watched, message, wait


@pytest.fixture
def provider() -> Iterator[Provider]:
    with gmail_api.running() as running:
        yield running


@pytest.fixture
def watched(tmp_path: Path, provider: Provider) -> Iterator[Watched]:
    with Watched(tmp_path, **settings(provider)) as made:
        yield made


def settings(provider: Provider, **more: object) -> dict[str, object]:
    return {
        "IMAP_HOST": "imap.gmail.com",
        "IMAP_USER": provider.user,
        "IMAP_OAUTH_CLIENT_ID": "client",
        "IMAP_OAUTH_CLIENT_SECRET": "secret",
        "IMAP_OAUTH_REFRESH_TOKEN": "refresh-1",
        "IMAP_OAUTH_TOKEN_URL": f"{provider.url}/token",
        "GMAIL_API_URL": provider.url,
        "WATCH_INTERVAL_SECONDS": 1,
        **more,
    }


def test_only_what_arrives_from_now_on_once_and_nothing_is_changed(provider: Provider, watched: Watched) -> None:
    provider.account.deliver(message("old"))
    assert watched.once().returncode == 0
    draft = provider.account.deliver(message("draft"), "DRAFT")
    spam = provider.account.deliver(message("spam"), "SPAM")
    moved = provider.account.deliver(message("moved"), "UNREAD")
    for number in range(120):  # several pages
        provider.account.deliver(message(f"m{number}"))
    provider.account.label(moved, "INBOX")
    provider.account.delete(provider.account.deliver(message("deleted")))
    done = watched.once()
    assert done.returncode == 0, done.stderr
    assert watched.marks() == {f"m{number}": 1 for number in range(120)} | {"moved": 1}
    assert {draft, spam}.isdisjoint(path.rpartition("/")[2] for path in provider.asked)
    asked = len(provider.asked)
    assert watched.once().returncode == 0
    assert len(provider.asked) == asked + 1  # the history, and no message again
    assert provider.writes == 0


def test_a_star_makes_no_new_mail_of_an_old_one(provider: Provider, watched: Watched) -> None:
    old = provider.account.deliver(message("old"), "INBOX")
    assert watched.once().returncode == 0
    for label in ("UNREAD", "STARRED"):
        provider.account.label(old, label)
    assert watched.once().returncode == 0
    assert watched.marks() == {}


def test_an_answer_that_is_none_of_gmails_loses_nothing(provider: Provider, tmp_path: Path) -> None:
    """A gateway that says 200 to all: no list is empty because it was not one."""
    provider.account.deliver(message("a"))
    get = provider.get
    provider.get = lambda path, query: (200, ["hello"]) if path == "messages" else get(path, query)  # type: ignore[method-assign]
    with Watched(tmp_path, **settings(provider, WATCH_SINCE_DAYS=3)) as watched:
        assert watched.once().returncode == 75
        provider.get = get  # type: ignore[method-assign]
        assert watched.once().returncode == 0
        assert watched.marks() == {"a": 1}


@pytest.mark.parametrize("answer", [(200, {}), (200, {"raw": "A"}), (400, {"error": {"message": "Precondition"}})])
def test_a_message_that_gmail_cannot_give_holds_nobody_up(
    provider: Provider, watched: Watched, answer: tuple[int, dict[str, object]]
) -> None:
    watched.start()
    watched.wait_idle()
    get = provider.get
    broken = f"messages/{provider.account.deliver(message('broken'))}"
    provider.get = lambda path, query: answer if path == broken else get(path, query)  # type: ignore[method-assign]
    provider.account.deliver(message("b"))
    wait(watched.marks, 30, watched.tail)
    assert watched.marks() == {"b": 1}
    assert broken.replace("/", " ").replace("messages", "message") in (watched.vault / "Dashboard.md").read_text()


def test_an_account_that_is_another_is_said(provider: Provider, tmp_path: Path) -> None:
    with Watched(tmp_path, **settings(provider, IMAP_USER="anne@example.com")) as watched:
        assert watched.once().returncode == 75
        assert "correct IMAP_USER" in watched.alerts()["mailbox"]["message"]


def test_what_is_on_disk_is_what_was_sent(provider: Provider, watched: Watched) -> None:
    watched.once()
    for size in (0, 1, 2, 70_000, LARGE_BYTES + 1):  # the last in a process of its own, in bounded memory
        provider.account.deliver(message(f"s{size}", size=size))
    assert watched.once().returncode == 0
    assert len(watched.marks()) == 5
    large = next(path.read_text() for path in watched.mails() if f"s{LARGE_BYTES + 1}" in path.read_text())
    assert "plan.pdf" in large
    assert not list(watched.state.glob("*.eml"))


def test_looking_back(provider: Provider, tmp_path: Path) -> None:
    now = time.time()
    provider.account.deliver(message("ancient"), arrived=now - 10 * 86400)
    provider.account.deliver(message("recent"), arrived=now - 86400)
    with Watched(tmp_path, **settings(provider, WATCH_SINCE_DAYS=3)) as watched:
        assert watched.once().returncode == 0
        assert watched.marks() == {"recent": 1}


def test_history_that_is_no_more_and_state_that_is_gone(provider: Provider, watched: Watched) -> None:
    provider.account.deliver(message("old"), arrived=time.time() - 86400)
    assert watched.once().returncode == 0
    time.sleep(1.1)  # Gmail's search knows whole seconds
    provider.account.deliver(message("a"))
    assert watched.once().returncode == 0
    for path in watched.state.iterdir():
        path.unlink()
    provider.account.deliver(message("b"))
    provider.account.oldest = provider.account.newest  # Google keeps it for a week or so
    provider.account.deliver(message("c"))
    assert watched.once().returncode == 0
    assert watched.marks() == {"a": 1, "b": 1, "c": 1}


def test_a_label_of_ones_own(provider: Provider, tmp_path: Path) -> None:
    with Watched(tmp_path, **settings(provider, IMAP_FOLDER="Questions")) as watched:
        assert watched.once().returncode == 0
        provider.account.deliver(message("inbox"))
        provider.account.deliver(message("question"), "Label_7")
        assert watched.once().returncode == 0
        assert watched.marks() == {"question": 1}
    with Watched(tmp_path, **settings(provider, IMAP_FOLDER="Qestions")) as watched:
        assert watched.once().returncode == 75
        assert "correct IMAP_FOLDER" in watched.alerts()["mailbox"]["message"]


@pytest.mark.parametrize(
    ("fail", "status"),
    [
        ([(401, "authError")], 0),  # the token ended early: a new one
        ([(429, "rateLimitExceeded")], 75),
        ([(403, "userRateLimitExceeded")], 75),
        ([(500, "backendError")], 75),
        ([(403, "insufficientPermissions")], 78),
        ([(401, "authError")] * 2, 78),
    ],
)
def test_what_the_api_may_answer(
    provider: Provider, watched: Watched, fail: list[tuple[int, str]], status: int
) -> None:
    assert watched.once().returncode == 0
    provider.account.deliver(message("a"))
    provider.fail = list(fail)
    assert watched.once().returncode == status
    provider.fail = []
    assert watched.once().returncode == 0
    assert watched.marks() == {"a": 1}


def test_a_revoked_token_is_told_and_not_hammered(provider: Provider, watched: Watched) -> None:
    watched.start()
    watched.wait_idle()
    provider.grants.clear()
    provider.access.clear()
    wait(lambda: watched.beat().get("refused"), 20, watched.tail)
    before = len(provider.asked)
    time.sleep(3)
    assert len(provider.asked) == before
    assert "invalid_grant" in watched.alerts()["mailbox"]["message"]
    assert watched.stop() == 0
    assert "refresh-1" not in watched.tail() and "access-" not in watched.tail()


@pytest.mark.parametrize(
    "scope",
    [
        "https://mail.google.com/",
        f"{READONLY} https://www.googleapis.com/auth/gmail.send",
        "https://www.googleapis.com/auth/gmail.modify",
        "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send",
        "https://graph.microsoft.com/Mail.Send",
        "https://mail.example.org/imap https://mail.example.org/smtp",
        "https://outlook.office365.com/EWS.AccessAsUser.All",
    ],
)
def test_a_token_that_could_send_is_refused(provider: Provider, watched: Watched, scope: str) -> None:
    provider.grants["refresh-1"].scope = scope
    assert watched.once().returncode == 78
    assert "can send mail" in watched.alerts()["mailbox"]["message"]
    assert provider.asked == []  # the token was not used


def tokens(provider: Provider, folder: Path, **more: str) -> Tokens:
    given = {"client_id": "client", "client_secret": "secret", "refresh_token": "refresh-1", "scope": ""} | more
    return Tokens(OAuth(f"{provider.url}/token", **given), Http(), folder / "kept.json")


def test_a_new_refresh_token_takes_the_place_of_the_first(provider: Provider, tmp_path: Path) -> None:
    """Microsoft's end 90 days after they were given, unless a new one is used instead."""
    provider.rotate = True
    tokens(provider, tmp_path).access()
    del provider.grants["refresh-1"]
    assert (tmp_path / "kept.json").stat().st_mode & 0o777 == 0o600
    assert tokens(provider, tmp_path).access()
    provider.grants["refresh-2"] = Grant()  # the owner got a new one: it counts
    assert tokens(provider, tmp_path, refresh_token="refresh-2").access()
    provider.grants = {"refresh-2": Grant()}  # what was kept is refused: the one in the settings may be good
    with pytest.raises(Refused):
        tokens(provider, tmp_path, refresh_token="refresh-2").access()
    assert tokens(provider, tmp_path, refresh_token="refresh-2").access()


def test_a_client_that_is_set_wrong_costs_no_token(provider: Provider, tmp_path: Path) -> None:
    """The one that the provider gave last may be the only one that is still good."""
    provider.rotate = True
    tokens(provider, tmp_path).access()
    del provider.grants["refresh-1"]
    with pytest.raises(Refused, match="set IMAP_OAUTH_CLIENT_ID and IMAP_OAUTH_CLIENT_SECRET right"):
        tokens(provider, tmp_path, client_secret="another").access()
    assert tokens(provider, tmp_path).access()


def test_an_account_that_the_api_does_not_know(provider: Provider, tmp_path: Path) -> None:
    with Watched(tmp_path, **settings(provider, IMAP_USER="bob@example.com")) as watched:
        done = watched.once()
    assert (done.returncode, "correct IMAP_USER" in done.stderr, "Traceback" in done.stderr) == (75, True, False)


def test_what_an_endpoint_says_is_one_short_line(provider: Provider, tmp_path: Path) -> None:
    provider.token = lambda form: (500, {"error": "\x1b[31m\n" + "x" * 100_000})  # type: ignore[method-assign]
    with pytest.raises(Unreachable) as caught:
        tokens(provider, tmp_path).access()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize("size", [1, 2, 3, PART_BYTES, PART_BYTES * 3 + 1])
@pytest.mark.parametrize("padding", ["=", "\\u003d", ""])
def test_padding_may_be_written_in_many_ways(tmp_path: Path, size: int, padding: str) -> None:
    raw = bytes(range(256)) * (size // 256 + 1)
    text = base64.urlsafe_b64encode(raw[:size]).decode()
    spool = Spool(tmp_path / "spool")
    decode_raw(io.BytesIO(f'{{"raw": "{text.replace("=", padding)}"}}'.encode()), spool)
    assert spool.content == raw[:size]


def test_a_token_is_used_as_long_as_it_lasts(provider: Provider, tmp_path: Path) -> None:
    now = [0.0]
    made = Tokens(
        OAuth(f"{provider.url}/token", "client", "secret", "refresh-1", ""),
        Http(),
        tmp_path / "kept.json",
        lambda: now[0],
    )
    first = made.access()
    now[0] = 3500.0
    assert made.access() == first
    now[0] = 3541.0
    assert made.access() != first
    assert provider.tokens_given == 2


def test_an_endpoint_that_is_down_or_talks_nonsense(provider: Provider, tmp_path: Path) -> None:
    made = tokens(provider, tmp_path, client_id="another")
    with pytest.raises(Refused, match="invalid_client"):
        made.access()
    provider.token = lambda form: (503, {"error": "temporarily_unavailable"})  # type: ignore[method-assign]
    with pytest.raises(Unreachable, match="503"):
        tokens(provider, tmp_path).access()
    provider.token = lambda form: (302, {})  # type: ignore[method-assign]
    with pytest.raises(Unreachable, match="302"):
        tokens(provider, tmp_path).access()
    with pytest.raises(Unreachable, match="cannot be reached"):
        Tokens(OAuth("http://127.0.0.1:1/", "c", "", "r", ""), Http(), tmp_path / "kept.json").access()


def test_no_token_is_ever_logged(provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = tokens(provider, tmp_path)
    secret = made.access()
    provider.grants.clear()
    made.forget()
    with pytest.raises(Refused) as caught:
        made.access()
    said = caplog.text + str(caught.value) + repr(made._settings)
    for hidden in (secret, "refresh-1", "secret"):
        assert hidden not in said
