"""The settings, and everything that can be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_agent import config
from cloud_agent.config import FORBIDDEN_NAMES, Config, ConfigError, GmailBox, ImapBox, is_forbidden
from cloud_agent.kept import Keep

VALUE = "s3cret-value"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    (tmp_path / "vault").mkdir()
    path = tmp_path / ".env.cloud"
    path.write_text(f"VAULT_PATH={tmp_path}/vault\nGIT_REMOTE_URL=/srv/{VALUE}.git\nCLAUDE_API_KEY={VALUE}$x\n")
    path.chmod(0o600)
    return path


def problems_of(env_file: Path, more: str = "", environ: dict[str, str] | None = None) -> list[str]:
    env_file.write_text(env_file.read_text() + more)
    return config.inspect(env_file, environ or {})[1]


def test_the_defaults(env_file: Path) -> None:
    settings = config.load(env_file, {"PATH": "/bin", "MAIL": "/var/mail/x", "DBUS_SESSION_BUS_ADDRESS": "y"})
    assert settings == Config(
        vault_path=env_file.parent / "vault",
        git_remote_url=f"/srv/{VALUE}.git",
        claude_api_key=f"{VALUE}$x",  # a `$` is a `$`
        claude_model=config.DEFAULT_MODEL,
        claude_base_url=None,
        draft_interval_seconds=300,
        draft_concurrency=4,
        sync_interval_seconds=60,
        git_branch="main",
        git_ssh_key_path=None,
        agent_name="cloud",
        state_path=env_file.parent / "state",
        budget_usd_per_day=None,
        budget_usd_per_week=None,
        claim=False,
    )
    assert VALUE not in repr(settings)
    assert not settings.state_path.exists()  # a check makes nothing


@pytest.mark.parametrize("missing", ["VAULT_PATH", "GIT_REMOTE_URL", "CLAUDE_API_KEY"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_what_is_required(env_file: Path, missing: str, how: str) -> None:
    lines = [line for line in env_file.read_text().splitlines() if not line.startswith(missing)]
    env_file.write_text("\n".join([*lines, f"{missing}= " if how == "empty" else ""]))
    (problem,) = problems_of(env_file)
    assert problem.startswith(f"{missing} is not set: ")


def test_all_problems_at_once_each_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "none", {"SMTP_PASSWORD": VALUE})
    assert len(caught.value.problems) == 5
    assert all(": " in problem for problem in caught.value.problems)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "DRAFT_INTERVAL_SECONDS=soon",
        "DRAFT_INTERVAL_SECONDS=0",
        "SYNC_INTERVAL_SECONDS=inf",
        "DRAFT_CONCURRENCY=-1",
        "BUDGET_USD_PER_DAY=a lot",
        "BUDGET_USD_PER_WEEK=nan",
        "AGENT_NAME=../x",
        "AGENT_NAME=Cloud Agent",
        "CLAIM=perhaps",
        "CLAIM=2",
        "OWNER_ADDRESSES=somebody",
        "OWNER_ADDRESSES=me@example.org,you",
        "GIT_BRANCH=--upload-pack=x",
        "GIT_SSH_KEY_PATH=/nowhere/key",
        "CLAUDE_BASE_URL=some-host",
        "STATE_PATH=/dev/null/state",
        "VAULT_PATH=/nowhere/vault",
    ],
)
def test_a_bad_value_is_named_and_not_shown(env_file: Path, line: str) -> None:
    name, value = line.split("=", 1)
    problems = problems_of(env_file, line + "\n")
    assert any(problem.startswith(name) for problem in problems)
    assert not any(value in problem.replace(f"{name}=300", "") for problem in problems if len(value) > 3)


@pytest.mark.parametrize(
    ("text", "known"),
    [("", set()), ("Me@Example.org", {"me@example.org"}), (" me@x.org , Me <you@x.org>,", {"me@x.org", "you@x.org"})],
)
def test_the_owners_addresses(env_file: Path, text: str, known: set[str]) -> None:
    env_file.write_text(env_file.read_text() + f"OWNER_ADDRESSES={text}\n")
    assert config.load(env_file, {}).owner_addresses == known


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("yes", True),
        ("YES", True),
        ("true", True),
        ("1", True),
        ("'yes'", True),
        ("no", False),
        ("False", False),
        ("0", False),
        ("", False),
    ],
)
def test_claim(env_file: Path, text: str, claim: bool) -> None:
    env_file.write_text(env_file.read_text() + f"CLAIM={text}\n")
    assert config.load(env_file, {}).claim is claim


def test_the_owner_claims_nothing(env_file: Path) -> None:
    """The owner's move wins over every other: a claim that can never lose proves nothing."""
    assert problems_of(env_file, "AGENT_NAME=local\n") == []
    (problem,) = problems_of(env_file, "CLAIM=yes\n")
    assert problem.startswith("CLAIM=yes is for agents")


def test_state_inside_the_vault(env_file: Path) -> None:
    assert "STATE_PATH lies inside" in problems_of(env_file, f"STATE_PATH={env_file.parent}/vault/state\n")[0]


def test_where_whole_messages_are_kept(env_file: Path, tmp_path: Path) -> None:
    assert problems_of(env_file, f"INTAKE_KEEP_PATH={tmp_path}/mails\n") == []
    assert config.load(env_file, {}).keep == Keep(tmp_path / "mails", 1_000_000_000)
    (problem,) = problems_of(env_file, f"INTAKE_KEEP_MB=500\nINTAKE_KEEP_PATH={tmp_path}/vault/Inbox/mails\n")
    assert problem.startswith("INTAKE_KEEP_PATH lies inside the vault")


def test_the_file_wins_over_the_environment(env_file: Path) -> None:
    settings = config.load(env_file, {"CLAUDE_API_KEY": "other", "AGENT_NAME": "night"})
    assert settings.claude_api_key == f"{VALUE}$x"
    assert settings.agent_name == "night"


def test_a_byte_order_mark_is_no_part_of_a_name(env_file: Path) -> None:
    env_file.write_bytes(b"\xef\xbb\xbf" + env_file.read_bytes())
    assert problems_of(env_file) == []


def test_a_file_that_is_no_text(env_file: Path) -> None:
    env_file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in config.inspect(env_file, {})[1][0]


@pytest.mark.parametrize("name", FORBIDDEN_NAMES)
@pytest.mark.parametrize("change", ["{}", "MY_{}", "{}_2", "{}_FILE"])
@pytest.mark.parametrize("where", ["file", "environment"])
def test_credentials_that_could_send_or_pay(env_file: Path, name: str, change: str, where: str) -> None:
    for written in (change.format(name), change.format(name).lower()):
        line = {"file": f"{written}={VALUE}\n", "environment": ""}[where]
        environ = {"file": {}, "environment": {written: VALUE}}[where]
        problems = problems_of(env_file, line, environ)
        assert any(written in problem for problem in problems)
        assert not any(VALUE in problem for problem in problems)


@pytest.mark.parametrize(
    "name",
    "SMTP_PASS smtpPassword SMTP-PASSWORD MAIL_PASSWORD EMAIL_HOST_PASSWORD GMAIL_APP_PASSWORD SENDGRID_API_KEY"
    " STRIPE_SECRET_KEY PAYPAL_TOKEN TWILIO_AUTH_TOKEN TWITTER_BEARER_TOKEN WHATSAPP_TOKEN SLACK_BOT_TOKEN"
    " linkedin.cookie ODOO_API_KEY".split(),
)
def test_their_kin(name: str) -> None:
    assert is_forbidden(name)


@pytest.mark.parametrize(
    "name",
    "WHATSAPP_NOTIFICATION_NUMBER CLAUDE_API_KEY GIT_SSH_KEY_PATH IMAP_PASSWORD MAIL MAILCHECK SSH_AUTH_SOCK"
    " XDG_SESSION_ID DBUS_SESSION_BUS_ADDRESS SESSION_MANAGER ODOO_URL PATH HOME".split(),
)
def test_what_is_none(name: str) -> None:
    assert not is_forbidden(name)


def test_an_empty_or_exported_credential_counts_too(env_file: Path) -> None:
    assert "SMTP_PASSWORD" in problems_of(env_file, "export SMTP_PASSWORD=\n")[0]


@pytest.mark.parametrize("folder", [".", "vault"])
@pytest.mark.parametrize(
    "name", ["SMTP_PASSWORD", "smtp_password.txt", "token.json", "credentials.json", ".wwebjs_auth"]
)
def test_credentials_as_files_beside_the_vault(env_file: Path, folder: str, name: str) -> None:
    (env_file.parent / folder / name).write_text(VALUE)
    (problem,) = problems_of(env_file)
    assert name in problem
    assert VALUE not in problem


def test_other_env_files_beside_the_vault(env_file: Path) -> None:
    (env_file.parent / ".env").write_text(f"TWITTER_ACCESS_SECRET={VALUE}\n")
    (problem,) = problems_of(env_file)
    assert "TWITTER_ACCESS_SECRET" in problem
    assert VALUE not in problem


@pytest.mark.parametrize(
    "name",
    "SMTP2_PASSWORD SMTP_URL SMTP_HOST SMTPPASS META_ACCESS_TOKEN SLACK_WEBHOOK_URL FB_ACCESS_TOKEN X_ACCESS_TOKEN"
    " LINKEDINTOKEN INSTAGRAM_SESSIONID BANK_PIN STRIPE_SK RESEND_API_KEY MANDRILL_API_KEY EXCHANGE_PASSWORD"
    " MAIL_PASSWORD emailPassword".split(),
)
def test_kin_by_another_name(name: str) -> None:
    assert is_forbidden(name)


@pytest.mark.parametrize("name", "EMAIL_KEY_FIELD X_OFFSET META_REFRESH MAILTO EXCHANGE_RATE SQUARE_METRES".split())
def test_words_that_are_no_credential(name: str) -> None:
    assert not is_forbidden(name)


def test_env_files_of_other_names_are_read(env_file: Path) -> None:
    (env_file.parent / "settings.env").write_text(f"SMTP_PASSWORD={VALUE}\n")
    assert any("SMTP_PASSWORD" in problem for problem in problems_of(env_file))


def test_settings_that_are_about_to_be_replaced_do_not_count(env_file: Path, tmp_path: Path) -> None:
    """A deployment checks the new file while the old one is still in its place."""
    new = tmp_path / "new"
    new.write_text(env_file.read_text())
    (env_file.parent / ".env.cloud").write_text(env_file.read_text() + f"SMTP_PASSWORD={VALUE}\n")
    assert problems_of(new) == []


def test_a_note_about_a_password_stops_nothing(env_file: Path) -> None:
    (env_file.parent / "vault" / "How to reset the Gmail password.md").write_text("text")
    assert problems_of(env_file) == []


def test_a_file_that_others_may_read_is_a_warning(env_file: Path) -> None:
    assert config.warnings(env_file) == []
    env_file.chmod(0o644)
    assert "chmod 600" in config.warnings(env_file)[0]


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.env_file_path(None, {}) == Path(".env.cloud")
    assert config.env_file_path(None, {"CLOUD_AGENT_ENV_FILE": "/x"}) == Path("/x")
    Path(".env.cloud").touch()
    assert config.env_file_path(None, {"CLOUD_AGENT_ENV_FILE": "/x"}) == Path(".env.cloud")
    assert config.env_file_path("/y", {"CLOUD_AGENT_ENV_FILE": "/x"}) == Path("/y")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_vault_that_cannot_be_written(env_file: Path, make_settings: Callable[..., Config]) -> None:
    (env_file.parent / "vault").chmod(0o500)
    assert "not writable" in problems_of(env_file)[0]


# -- the mailbox -------------------------------------------------------------------------------------------------------

IMAP = "IMAP_HOST=imap.example.org\nIMAP_USER=ann\n"
OAUTH = "IMAP_OAUTH_CLIENT_ID=c\nIMAP_OAUTH_REFRESH_TOKEN=s3cret-value\n"


def mailbox_of(env_file: Path, more: str) -> object:
    env_file.write_text(env_file.read_text() + more)
    return config.load(env_file, {}).mailbox


def test_a_mailbox_by_password(env_file: Path) -> None:
    made = mailbox_of(env_file, f"{IMAP}IMAP_PASSWORD={VALUE} $x\n")
    assert made == ImapBox("imap.example.org", 993, "implicit", None, "ann", f"{VALUE} $x", None, "INBOX")
    assert VALUE not in repr(made)
    (warning,) = config.mailbox_warnings(config.load(env_file, {}))
    assert "can also send" in warning and VALUE not in warning


@pytest.mark.parametrize(
    ("host", "kind", "token_url"),
    [
        ("imap.gmail.com", GmailBox, "https://oauth2.googleapis.com/token"),
        ("outlook.office365.com", ImapBox, "https://login.microsoftonline.com/common/oauth2/v2.0/token"),
    ],
)
def test_a_mailbox_by_oauth_needs_no_more_at_the_large_providers(
    env_file: Path, host: str, kind: type, token_url: str
) -> None:
    made = mailbox_of(env_file, f"IMAP_HOST={host}\nIMAP_USER=ann@example.com\n{OAUTH}")
    assert isinstance(made, ImapBox | GmailBox) and type(made) is kind and made.oauth is not None
    assert made.oauth.token_url == token_url
    assert VALUE not in repr(made)
    assert config.mailbox_warnings(config.load(env_file, {})) == []


def test_a_password_for_microsoft_is_told_before_it_is_refused(env_file: Path) -> None:
    made = f"IMAP_HOST=Outlook.Office365.com\nIMAP_USER=ann\nIMAP_PASSWORD={VALUE}\n"
    assert problems_of(env_file, made) == []
    (warning,) = config.mailbox_warnings(config.load(env_file, {}))
    assert "Microsoft takes no IMAP_PASSWORD" in warning


def test_a_gmail_password_is_for_imap(env_file: Path) -> None:
    made = mailbox_of(env_file, f"IMAP_HOST=imap.gmail.com\nIMAP_USER=ann\nIMAP_PASSWORD={VALUE}\n")
    assert isinstance(made, ImapBox)


def test_all_credentials_are_known_to_the_guards_of_sync(env_file: Path) -> None:
    assert problems_of(env_file, "IMAP_HOST=mail.example.org\nIMAP_USER=you\nIMAP_PASSWORD=of-the-mailbox\n") == []
    assert config.load(env_file, {}).secrets == [f"{VALUE}$x", "of-the-mailbox"]
    more = "IMAP_PASSWORD=\nIMAP_HOST=imap.gmail.com\nIMAP_OAUTH_CLIENT_ID=id\nIMAP_OAUTH_CLIENT_SECRET=of-client\n"
    assert problems_of(env_file, f"{more}IMAP_OAUTH_REFRESH_TOKEN=to-renew\nALERT_URLS=json://host/key\n") == []
    assert config.load(env_file, {}).secrets == [f"{VALUE}$x", "to-renew", "of-client", "json://host/key", "host/key"]


@pytest.mark.parametrize("password", ["abcdefghijklmnop", "abcd efgh ijkl mnop"])
def test_an_app_password_is_known_with_and_without_spaces(env_file: Path, password: str) -> None:
    env_file.write_text(f"{env_file.read_text()}{IMAP}IMAP_PASSWORD={password}\n")
    assert {"abcdefghijklmnop", "abcd efgh ijkl mnop"} <= set(config.load(env_file, {}).secrets)


def test_a_key_of_a_channel_is_known_without_its_address(env_file: Path) -> None:
    urls = "tgram://123456789:AAHfiqksKZ8WmR2zSjiQ7l-9/42 mailtos://alerts:of%24relay@relay.example.net/a@example.org"
    env_file.write_text(f"{env_file.read_text()}OWNER_ADDRESSES=a@example.org\nALERT_URLS={urls}?from=b@example.net\n")
    known = config.load(env_file, {}).secrets
    assert {"AAHfiqksKZ8WmR2zSjiQ7l-9", "of$relay"} <= set(known)
    assert not {"relay.example.net", "example.org", "a", "42"} & set(known)


def test_a_credential_that_a_maildir_has_no_use_for(env_file: Path, tmp_path: Path) -> None:
    for name in ("new", "cur"):
        (tmp_path / "mails" / name).mkdir(parents=True)
    (problem,) = problems_of(env_file, f"MAILDIR_PATH={tmp_path}/mails\nIMAP_PASSWORD=x\n")
    assert problem == "IMAP_PASSWORD is set, and IMAP_HOST is not: remove it"


def test_port_143_is_starttls(env_file: Path) -> None:
    made = mailbox_of(env_file, f"{IMAP}IMAP_PORT=143\nIMAP_PASSWORD=x\n")
    assert isinstance(made, ImapBox) and made.tls == "starttls"


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("IMAP_OAUTH_CLIENT_SECRET=x\n", "IMAP_OAUTH_CLIENT_SECRET is set, and IMAP_HOST is not: set it to"),
        ("IMAP_HOST=imap.example.org\nIMAP_PASSWORD=x\n", "IMAP_USER is not set"),
        (IMAP, "neither IMAP_PASSWORD nor IMAP_OAUTH_REFRESH_TOKEN"),
        (f"{IMAP}IMAP_PASSWORD=x\n{OAUTH}IMAP_OAUTH_TOKEN_URL=https://x.example/token\n", "remove the password"),
        (f"{IMAP}{OAUTH}", "IMAP_OAUTH_TOKEN_URL is not set"),
        (f"{IMAP}{OAUTH}IMAP_OAUTH_TOKEN_URL=http://x.example/token\n", "IMAP_OAUTH_TOKEN_URL is no https URL"),
        (f"{IMAP}IMAP_OAUTH_REFRESH_TOKEN=x\nIMAP_OAUTH_TOKEN_URL=https://x.example/\n", "IMAP_OAUTH_CLIENT_ID is not"),
        (f"{IMAP}{OAUTH}IMAP_OAUTH_TOKEN_URL=https://x/\nGMAIL_API_URL=http://x.example\n", "GMAIL_API_URL"),
        (f"{IMAP}IMAP_PASSWORD=x\nIMAP_TLS=none\n", "plain text"),
        (f"{IMAP}IMAP_PASSWORD=x\nIMAP_TLS=ssl\n", "IMAP_TLS is none of"),
        (f"{IMAP}IMAP_PASSWORD=x\nIMAP_CA_FILE=/none/ca.pem\n", "IMAP_CA_FILE names no file"),
        (f"{IMAP}IMAP_PASSWORD=x\nIMAP_CA_FILE=/etc/passwd\n", "IMAP_CA_FILE holds no certificate"),
        ("IMAP_HOST=imaps://mail.example.org\nIMAP_USER=you\nIMAP_PASSWORD=x\n", "IMAP_HOST is no server's name"),
        ("IMAP_HOST=mail.example.org:993\nIMAP_USER=you\nIMAP_PASSWORD=x\n", "IMAP_HOST is no server's name"),
        (f"{IMAP}IMAP_PASSWORD=x\nMAILDIR_PATH=/tmp\n", "one agent watches one mailbox"),
        ("MAILDIR_PATH=/none\n", "names no Maildir"),
        ("IMAP_PASSWORD=x\n", "IMAP_HOST is not"),
        ("WATCH_SINCE_DAYS=-1\n", "WATCH_SINCE_DAYS is not a number"),
        ("WATCH_SINCE_DAYS=999999\n", "WATCH_SINCE_DAYS is not a number from 0 to 20000"),  # before all dates
        (f"{IMAP}IMAP_PASSWORD=x\nIMAP_PORT=99300\n", "IMAP_PORT is not a number from 1 to 65535"),
        (f"{IMAP}IMAP_PASSWORD=x\nIMAP_CA_FILE={__file__}\n", "IMAP_CA_FILE holds no certificate"),
    ],
)
def test_what_can_be_wrong_with_a_mailbox(env_file: Path, more: str, word: str) -> None:
    (problem,) = problems_of(env_file, more)
    assert word in problem
    assert ": " in problem


def test_plain_text_is_for_this_machine_alone(env_file: Path) -> None:
    made = mailbox_of(env_file, "IMAP_HOST=127.0.0.1\nIMAP_USER=a\nIMAP_PASSWORD=x\nIMAP_PORT=1143\nIMAP_TLS=none\n")
    assert isinstance(made, ImapBox) and made.tls == "none"


@pytest.mark.parametrize(
    "name",
    "IMAP_HOST IMAP_PASSWORD IMAP_OAUTH_CLIENT_ID IMAP_OAUTH_CLIENT_SECRET IMAP_OAUTH_REFRESH_TOKEN"
    " IMAP_OAUTH_TOKEN_URL IMAP_OAUTH_SCOPE GMAIL_API_URL MAILDIR_PATH WATCH_INTERVAL_SECONDS".split(),
)
def test_credentials_that_read_are_let_through(name: str) -> None:
    assert not is_forbidden(name)


@pytest.mark.parametrize(
    "name",
    "GMAIL_REFRESH_TOKEN GMAIL_PASSWORD OUTLOOK_OAUTH_TOKEN IMAP_SMTP_PASSWORD SMTP_OAUTH_REFRESH_TOKEN MAIL_PASSWORD"
    " EXCHANGE_PASSWORD GMAIL_API_KEY".split(),
)
def test_those_that_send_are_not(name: str) -> None:
    assert is_forbidden(name)
