"""The settings of the alerts: which channels there may be, and what is wrong with others."""

from __future__ import annotations

from datetime import UTC, time
from pathlib import Path

import pytest
from cloud_agent import config
from cloud_agent.alerting import channels
from cloud_agent.alerting.settings import Alerts, Mcp, mail_faults, url_faults, warnings
from hypothesis import example, given
from hypothesis import strategies as st

SECRET = "s3cr3t-t0ken-9fA7"
OWN = frozenset(("you@example.org", "me@example.com"))
RELAY = f"mailtos://alerts:{SECRET}@relay.example.net/you@example.org?from=alerts@example.net"


@pytest.fixture
def read(tmp_path: Path):
    """Settings of these variables: (alerts, problems)."""
    (tmp_path / "vault").mkdir()

    def inspect(**values: str) -> tuple[Alerts | None, list[str]]:
        values = {"VAULT_PATH": str(tmp_path / "vault"), "GIT_REMOTE_URL": "x", "CLAUDE_API_KEY": "k", **values}
        env_file = tmp_path / "env"
        quoted = {name: value.replace("'", "\\'") for name, value in values.items()}
        env_file.write_text("".join(f"{name}='{value}'\n" for name, value in quoted.items()))
        found, problems = config.inspect(env_file, {})
        assert found is not None
        assert not any(SECRET in problem for problem in problems)
        assert SECRET not in repr(found) + repr(found.alerts)
        return found.alerts, problems

    return inspect


def test_without_a_channel_there_are_no_alerts(read) -> None:
    assert read() == (None, [])
    assert read(WHATSAPP_NOTIFICATION_NUMBER="anything, as before") == (None, [])


def test_all_that_can_be_set(read) -> None:
    found, problems = read(
        ALERT_URLS=f"ntfys://ntfy.sh/{SECRET} tgram://123456789:{SECRET}/42",
        ALERT_MCP_COMMAND="npx -y 'some server'",
        ALERT_MCP_TOOL="send",
        ALERT_MCP_TO_ARGUMENT="to",
        ALERT_MCP_TEXT_ARGUMENT="text",
        WHATSAPP_NOTIFICATION_NUMBER="+49 170 123-4567",
        ALERT_QUIET="22:00-7:00",
        ALERT_TIMEZONE="Europe/Berlin",
        ALERT_DIGEST="08:00",
        ALERT_URGENT_ALWAYS="yes",
        ALERT_BODY="yes",
    )
    assert problems == []
    assert found is not None
    assert found.channels["whatsapp"] == Mcp(
        "+491701234567", ("npx", "-y", "some server"), tool="send", to_argument="to", text_argument="text"
    )
    assert [name.split("-")[0] for name in found.channels] == ["whatsapp", "ntfys", "tgram"]
    assert (found.quiet, found.digest, str(found.zone)) == ((time(22), time(7)), time(8), "Europe/Berlin")
    assert found.urgent_always and found.body


def test_the_defaults(read) -> None:
    found, problems = read(ALERT_MCP_URL="https://mcp.example.org/mcp", WHATSAPP_NOTIFICATION_NUMBER="491701234567")
    assert problems == []
    assert (found.zone, found.quiet, found.digest, found.urgent_always, found.body) == (UTC, None, None, False, False)
    assert channels.arguments(found.channels["whatsapp"], "hi") == {"recipient": "491701234567", "message": "hi"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ALERT_URLS": SECRET}, "ALERT_URLS, entry 1: is no Apprise URL"),
        ({"ALERT_URLS": f"ntfys://x/y whatsapp://{SECRET}@1/2"}, "ALERT_URLS, entry 2: is of a service that could"),
        ({"ALERT_URLS": f"slack://xoxp-{SECRET}/#a"}, "a Slack user's token"),
        ({"ALERT_URLS": "ntfys://ntfy.sh/topic?priority=5&%65mail=eve@example.net"}, "forward to an address"),
        ({"ALERT_URLS": RELAY}, "set OWNER_ADDRESSES"),
        ({"ALERT_MCP_COMMAND": "server"}, "WHATSAPP_NOTIFICATION_NUMBER is no telephone number"),
        (
            {"ALERT_MCP_COMMAND": "server", "WHATSAPP_NOTIFICATION_NUMBER": "+1 555 0100, +1 555 0101"},
            "WHATSAPP_NOTIFICATION_NUMBER is no telephone number",
        ),
        ({"ALERT_MCP_COMMAND": "'server"}, "close its quotes"),
        ({"ALERT_MCP_COMMAND": "x", "ALERT_MCP_URL": "https://x"}, "are both set"),
        ({"ALERT_MCP_URL": "mcp.example.org"}, "ALERT_MCP_URL is no http(s) URL"),
        ({"ALERT_MCP_URL": "https://x", "ALERT_MCP_TEXT_ARGUMENT": "recipient"}, "are the same"),
        ({"ALERT_MCP_URL": "https://x", "ALERT_MCP_TOKEN": "é"}, "ALERT_MCP_TOKEN holds characters"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_QUIET": "at night"}, "ALERT_QUIET is not two times of day"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_QUIET": "07:00-07:00"}, "would never end"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_DIGEST": "8"}, "ALERT_DIGEST is no time of day"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_DIGEST": "06:59", "ALERT_QUIET": "22:00-07:00"}, "lies in ALERT_QUIET"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_TIMEZONE": "Berlin"}, "ALERT_TIMEZONE is no time zone"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_TIMEZONE": "../../etc/passwd"}, "ALERT_TIMEZONE is no time zone"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_BODY": "perhaps"}, "ALERT_BODY is neither yes nor no"),
        ({"ALERT_URLS": "ntfy://x/y,json://z"}, "separate the entries by spaces"),
        ({"ALERT_URLS": "ntfy://x/y, json://z"}, "ALERT_URLS, entry 1: holds a comma"),
        ({"ALERT_URLS": "https://ntfy.sh/topic"}, "e.g. ntfys://ntfy.sh/TOPIC"),
        ({"ALERT_URLS": "ntfy://x/y", "ALERT_MCP_TOKEN": SECRET}, "ALERT_MCP_TOKEN is set, and ALERT_MCP_URL is not"),
        ({"ALERT_DIGEST": "08:00"}, "ALERT_DIGEST is set, but nothing to tell it by"),
    ],
)
def test_what_is_wrong(read, values: dict[str, str], said: str) -> None:
    assert any(said in problem for problem in read(**values)[1]), read(**values)[1]


@pytest.mark.parametrize(
    "values",
    [
        {
            "ALERT_URLS": f"mailtos://u:{SECRET}℀@relay.example.net/you@example.org",
            "OWNER_ADDRESSES": "you@example.org",
        },
        {"ALERT_URLS": f"ntfys://u:{SECRET}℀@h/x"},
        {"ALERT_URLS": "ntfys://[h/x", "ALERT_DIGEST": "08:00"},
        {"ALERT_MCP_URL": f"https://u:{SECRET}℀@h/x", "WHATSAPP_NOTIFICATION_NUMBER": "+491701234567"},
        {"GIT_REMOTE_URL": f"https://u:{SECRET}℀@h/x.git"},
        {
            "IMAP_HOST": "h",
            "IMAP_USER": "u",
            "IMAP_OAUTH_CLIENT_ID": "c",
            "IMAP_OAUTH_REFRESH_TOKEN": "t",
            "IMAP_OAUTH_TOKEN_URL": f"https://u:{SECRET}℀@h/",
        },
    ],
)
def test_an_address_that_cannot_be_taken_apart_is_a_problem_and_not_shown(read, values: dict[str, str]) -> None:
    """`urlsplit` raises with the host's part, password and all, in its message."""
    found, problems = read(**values)
    assert len(problems) == 1 and next(iter(values)).partition("_")[0] in problems[0]
    assert found is None or warnings(found) == found.secrets == []


def test_a_library_that_is_missing_is_named(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problems = read(ALERT_URLS="ntfy://x/y")[1]
    assert len(problems) == 1 and "needs the library apprise" in problems[0] and "requirements-alerts" in problems[0]


@pytest.mark.parametrize(
    "url",
    [
        RELAY,
        "mailtos://u:p@relay.example.net/?to=you@example.org,me@example.com&from=a@example.net&smtp=smtp.example.net",
        "mailto://127.0.0.1:25/you@example.org?from=alerts@example.net",
    ],
)
def test_a_relay_that_writes_to_the_owner_alone(url: str) -> None:
    assert mail_faults(url, OWN) == []
    assert channels.problems(Alerts({"x": url}, owner_addresses=OWN)) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mailtos://u:p@relay.example.net?from=a@example.net", "writes to others"),  # to itself, says Apprise
        ("mailtos://u:p@relay.example.net/eve@example.net?from=a@example.net", "writes to others"),
        ("mailtos://u:p@relay.example.net/you@example.org/eve@example.net?from=a@example.net", "writes to others"),
        ("mailtos://u:p@relay.example.net/you@example.org?cc=eve@example.net&from=a@example.net", "writes to others"),
        ("mailtos://u:p@relay.example.net/you@example.org?BCC=eve@example.net&from=a@example.net", "writes to others"),
        ("mailtos://u:p@relay.example.net/you%40example.org%2Ceve%40x.net?from=a@example.net", "writes to others"),
        ("mailtos://u:p@relay.example.net/you@example.org", "who writes"),
        ("mailtos://u:p@relay.example.net/you@example.org?from=Alerts", "who writes"),
        ("mailtos://u:p@relay.example.net/you@example.org?from=me@example.com", "writes as you"),
        ("mailtos://you:p@example.org/you@example.org?from=a@example.net", "writes as you"),
        ("mailtos://you%40example.org:p@smtp.example.net/you@example.org?from=a@example.net", "writes as you"),
        ("mailtos://u:p@smtp.example.net/you@example.org?from=a@example.net&user=me@example.com", "writes as you"),
        ("mailtos://you:p@smtp.example.org/you@example.org?from=a@example.net", "writes as you"),
        ("mailtos://You:p@x.net/you@example.org?from=a@example.net&smtp=smtp.Example.com&user=me", "writes as you"),
        ("mailto://u:p@relay.example.net/you@example.org?from=a@example.net", "without TLS"),
        ("mailtos://u:p@relay.example.net/you@example.org?from=a@example.net&mode=%69nsecure", "without TLS"),
        ("mailtos://u:p@relay.example.net/you@example.org?from=a@example.net&to=x&to=y", "options twice"),
        ("mailtos://u:p@relay.example.net/you@example.org?from=a@example.net&+X-To=eve@x.net", "or others than"),
        ("mailtos://[/you@example.org", "no URL that can be read"),
    ],
)
def test_a_relay_that_could_write_to_others_or_as_the_owner(url: str, said: str) -> None:
    assert said in " ".join(mail_faults(url, OWN))


PIECES = (
    "/ you@example.org eve@x.net ? & to= cc= bcc= from= a@example.net , ; %2C %40 u:p@ relay.example.net user= smtp= "
    "name= %20 + < > format=text = mode= insecure starttls you"
).split()


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("u:p@relay.example.net/you@example.org?from=a@example.net")
def test_what_is_let_through_apprise_understands_no_differently(rest: str) -> None:
    """The strict reading of the settings, against Apprise's own."""
    url = f"mailtos://{rest}"
    if url_faults(url, OWN):
        return
    import apprise

    service = apprise.Apprise.instantiate(url)
    if service is not None:
        receivers = {address for _, address in service.targets} | service.cc | service.bcc
        assert {address.lower() for address in receivers} <= OWN
        assert service.from_addr[1].lower() not in OWN
        assert service.user not in OWN
        assert not service.password or service.secure_mode != "insecure"


def test_apprises_own_word_is_heard(read) -> None:
    found, problems = read(ALERT_URLS="tgram://no-token/")
    assert problems == []
    assert channels.problems(found) == [
        "ALERT_URLS, entry 1: is no URL that Apprise understands: see its documentation of that service"
    ]


@pytest.mark.parametrize("url", ["jsons://h/x?verify=no", f"{RELAY}&verify=0", "ntfys://ntfy.sh/topic?Verify=False"])
def test_certificates_are_checked_always(url: str) -> None:
    (problem,) = channels.problems(Alerts({"x": url}, owner_addresses=OWN))
    assert "turns off the check of certificates" in problem


def test_what_is_worth_a_thought() -> None:
    found = {
        "whatsapp": Mcp("+491701234567", ("server",)),
        "mailtos-1": RELAY,
    }
    said = " ".join(warnings(Alerts(found)))
    assert "runs a server on this machine" in said and "relay's password" in said and SECRET not in said
    by_option = RELAY.replace(f":{SECRET}", "") + f"&pass={SECRET}"
    assert "relay's password" in warnings(Alerts({"mailtos-1": by_option}))[0]
    assert "not encrypted" in warnings(Alerts({"w": Mcp("+491701234567", url="http://mcp.example.org/mcp")}))[0]
    assert warnings(Alerts({"w": Mcp("+491701234567", url="http://127.0.0.1:80/mcp"), "ntfy-1": "ntfys://x/y"})) == []
    assert warnings(Alerts({"a": "json://localhost:80/x", "b": f"tgram://123456789:{SECRET}/42"})) == []
    (said,) = warnings(Alerts({"a": f"json://u:{SECRET}@hooks.example.org/x"}))
    assert "json://, which is not encrypted" in said and SECRET not in said


@pytest.mark.parametrize(
    "url", [f"ntfys://ntfy.example.org/{SECRET}", f"tgram://123456789:{SECRET}/42/", f"jsons://u:{SECRET}@h/x", RELAY]
)
def test_no_error_gives_a_key_away(url: str) -> None:
    alerts = Alerts({"a": url, "w": Mcp("+491701234567", url=f"https://h/mcp?key={SECRET}x", token=f"{SECRET}y")})
    started = Alerts({"w": Mcp("+491701234567", ("server", f"--token={SECRET}", f"{SECRET}z"))})
    assert SECRET not in channels.redacted(f"bad token {SECRET}, {SECRET}z", started)
    for said in (url, f"401 for https://h/{SECRET}", f"bad key {SECRET}x", f"{SECRET}y is no token"):
        assert SECRET not in channels.redacted(said, alerts)
