"""The modules of the role deploy_key: a key on a machine, and in the settings of a repository at GitHub."""

from __future__ import annotations

import base64
import getpass
import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from tests.standins import serving
from tests.standins.github_api import DeployKeys, Refusal, Server

LIBRARY = Path(__file__).resolve().parents[2] / "ansible/roles/deploy_key/library"
TOKEN = "github_pat_of_the_test"
REPOSITORY = "owner/vault"
TITLE = "cloud-agent@vm"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LIBRARY / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api = load("deploy_key_at_github")
on_machine = load("deploy_key")


def key(number: int) -> str:
    blob = (11).to_bytes(4, "big") + b"ssh-ed25519" + (32).to_bytes(4, "big") + number.to_bytes(32, "big")
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    for name in (REPOSITORY, "owner/other"):
        (tmp_path / f"{name}.git").mkdir(parents=True)
    (tmp_path / "token").write_text(TOKEN)
    server = Server(("127.0.0.1", 0), DeployKeys(tmp_path / "keys.json"), tmp_path, tmp_path / "token")
    with serving(server):
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, in seconds, instead of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(api.time, "sleep", waited.append)
    return waited


def reconcile(server: Server, *, check: bool = False, token: str = TOKEN, **given: Any) -> list[str]:
    github = api.GitHub(f"http://127.0.0.1:{server.server_port}", token, given.pop("repository", REPOSITORY))
    return api.reconcile(github, {"title": TITLE, "key": key(1), "ours": [], "state": "present", **given}, check)


def add(server: Server, number: int, *, read_only: bool = False, title: str = "x", repository: str = REPOSITORY) -> int:
    wanted = {"title": title, "key": key(number), "read_only": read_only}
    return int(server.keys.add(repository, wanted, "http://x")["id"])


def registered(server: Server) -> dict[str, bool]:
    """Key -> whether it may only read."""
    return {entry["key"]: entry["read_only"] for entry in server.keys.of(REPOSITORY)}


class TestAtGitHub:
    def test_is_added_once(self, server: Server) -> None:
        assert "added SHA256:" in reconcile(server)[0]
        assert registered(server) == {key(1): False}
        assert reconcile(server) == []

    def test_one_that_may_only_read_is_replaced(self, server: Server) -> None:
        add(server, 1, read_only=True, title=TITLE)
        assert len(reconcile(server)) == 2
        assert registered(server) == {key(1): False}

    def test_a_dry_run_changes_nothing(self, server: Server) -> None:
        add(server, 1, read_only=True)
        assert len(reconcile(server, check=True)) == 2
        assert registered(server) == {key(1): True}

    def test_is_found_on_the_last_page(self, server: Server) -> None:
        for number in range(2, 252):
            add(server, number)
        add(server, 1)
        assert reconcile(server) == []

    def test_a_foreign_key_of_the_same_title_is_an_error_and_stays(self, server: Server) -> None:
        number = add(server, 7, title=TITLE)
        with pytest.raises(ValueError, match=rf"id {number}, SHA256:\S+, added 20\S+ by owner, last used never"):
            reconcile(server)
        assert registered(server) == {key(7): False}

    def test_our_old_key_may_have_the_same_title(self, server: Server) -> None:
        add(server, 7, title=TITLE)
        reconcile(server, ours=[key(7)])
        assert registered(server) == {key(7): False, key(1): False}

    def test_removal(self, server: Server) -> None:
        for number in (1, 2):
            add(server, number)
        assert len(reconcile(server, state="absent")) == 1
        assert registered(server) == {key(2): False}
        assert reconcile(server, state="absent") == []

    @pytest.mark.parametrize(
        ("status", "headers", "waited"),
        [
            (429, {"Retry-After": "7"}, [7.0]),
            (403, {"Retry-After": "7", "X-RateLimit-Remaining": "12"}, [7.0]),
            (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, [1.0]),
            (502, {}, [2.0]),
        ],
    )
    def test_waits_as_it_is_asked_to(
        self, server: Server, pauses: list[float], status: int, headers: dict[str, str], waited: list[float]
    ) -> None:
        server.refusals.append(Refusal(HTTPStatus(status), "no", headers=headers))
        reconcile(server)
        assert pauses == waited
        assert registered(server) == {key(1): False}

    def test_does_not_wait_for_an_hour(self, server: Server, pauses: list[float]) -> None:
        server.refusals.append(Refusal(HTTPStatus(403), "API rate limit exceeded", headers={"Retry-After": "3600"}))
        with pytest.raises(api.Refused, match="3600 seconds of patience"):
            reconcile(server)
        assert pauses == []

    def test_gives_up_on_an_outage(self, server: Server, pauses: list[float]) -> None:
        server.refusals += [Refusal(HTTPStatus(503), "no server")] * 9
        with pytest.raises(api.Refused, match="no server"):
            reconcile(server)
        assert pauses == [2.0, 4.0, 8.0]

    def test_a_lost_answer_is_no_error(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        github_add = api.GitHub.add

        def lost(self: Any, title: str, public: str) -> None:
            add(server, 1, title=title)  # the first try worked, its answer did not arrive
            github_add(self, title, public)

        monkeypatch.setattr(api.GitHub, "add", lost)
        reconcile(server)
        assert registered(server) == {key(1): False}

    def test_does_not_follow_a_page_to_another_place(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api, "next_page", lambda link: "http://127.0.0.2/steal")
        with pytest.raises(api.Refused, match="another place"):
            reconcile(server)

    @pytest.mark.parametrize(
        ("refusal", "told"),
        [
            (Refusal(HTTPStatus(403), "Resource not accessible by personal access token"), "token may not do this"),
            (Refusal(HTTPStatus(403), "API rate limit exceeded", headers={"Retry-After": "999"}), "again later"),
            (Refusal(HTTPStatus(301), "Moved Permanently", headers={"Location": "/x"}), "another name now"),
        ],
    )
    def test_each_refusal_has_its_mend(self, server: Server, refusal: Refusal, told: str) -> None:
        server.refusals.append(refusal)
        with pytest.raises(api.Refused) as caught:
            reconcile(server)
        assert told in api.mend(caught.value.status, str(caught.value), REPOSITORY)

    def test_the_mends_of_what_the_stand_in_refuses(self, server: Server) -> None:
        add(server, 1, repository="owner/other")
        for given, told in (
            ({"token": "wrong"}, "revoked or has expired"),
            ({"repository": "owner/none"}, "if there is no owner/none"),
            ({}, "registered somewhere else"),
        ):
            with pytest.raises(api.Refused) as caught:
                reconcile(server, **given)
            assert told in api.mend(caught.value.status, str(caught.value), given.get("repository", REPOSITORY))

    def test_what_is_no_json_is_no_foreign_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        page = types.SimpleNamespace(status=200, headers={}, read=lambda: b"<html>please log in to this network</html>")
        monkeypatch.setattr(api, "open_url", lambda *_, **__: page)
        with pytest.raises(api.Refused, match="no JSON"):
            api.GitHub("http://127.0.0.1:1", TOKEN, REPOSITORY).list()

    def test_no_answer_at_all(self, pauses: list[float]) -> None:
        with pytest.raises(api.Refused, match="no answer") as caught:
            api.GitHub("http://127.0.0.1:1", TOKEN, REPOSITORY).list()
        assert caught.value.status == 0
        assert len(pauses) == 3


def test_no_pause_for_what_stays_refused() -> None:
    assert api.pause(403, {}, 0.0, 1) is None
    assert api.pause(404, {}, 0.0, 1) is None


class OnMachine:
    """The module deploy_key, on a folder of the test and a repository that is a path."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.folder = folder
        self.path = folder / "ssh/id"
        subprocess.run(["git", "init", "--quiet", "--bare", folder / "owner/vault.git"], check=True)
        self.given: dict[str, Any] = {
            "path": str(self.path),
            "owner": getpass.getuser(),
            "title": TITLE,
            "repository": REPOSITORY,
            "remote_url": f"{folder}/owner/vault.git",
            "known_hosts": ["host ssh-ed25519 AAAA"],
            "config": "Host *\n",
        }

    def __call__(self, **given: Any) -> dict[str, Any]:
        with patch_module_args({**self.given, **given}), pytest.raises(SystemExit):
            on_machine.main()
        return dict(json.loads(self.capsys.readouterr().out.splitlines()[-1]))

    def public(self, suffix: str = "") -> str:
        return " ".join(Path(f"{self.path}{suffix}.pub").read_text().split()[:2])

    def files(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir()}


PLAIN = {"id", "id.pub", "known_hosts", "config"}


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> OnMachine:
    return OnMachine(tmp_path, capsys)


class TestOnTheMachine:
    def test_is_made_once_and_works(self, machine: OnMachine) -> None:
        first = machine()
        assert first["changed"] and first["works"] and first["is_known"] and not first["is_new"]
        assert first["public_key"] == machine.public()
        assert machine.path.stat().st_mode & 0o777 == 0o600
        assert machine.path.parent.stat().st_mode & 0o777 == 0o700
        second = machine()
        assert not second["changed"]
        assert second["public_key"] == first["public_key"]
        assert machine.files() == PLAIN

    def test_a_dry_run_makes_nothing(self, machine: OnMachine) -> None:
        done = machine(_ansible_check_mode=True)
        assert done["changed"] and done["public_key"] == ""
        assert not machine.path.parent.exists()

    def test_drift_is_mended(self, machine: OnMachine) -> None:
        machine()
        machine.path.chmod(0o644)
        (machine.path.parent / "known_hosts").write_text("evil\n")
        assert machine()["changed"]
        assert machine.path.stat().st_mode & 0o777 == 0o600
        assert (machine.path.parent / "known_hosts").read_text() == "host ssh-ed25519 AAAA\n"

    def test_a_rotation_keeps_the_old_key_until_the_new_one_is_promoted(self, machine: OnMachine) -> None:
        old = machine()["public_key"]
        rotating = machine(rotate=True)
        new = rotating["public_key"]
        assert rotating["is_new"] and new != old and machine.public() == old
        assert set(rotating["ours"]) == {old, new}
        assert not machine()["is_new"], "meanwhile the site goes on with the old one"
        assert machine(rotate=True)["public_key"] == new, "a second run goes on with the same new key"

        promoted = machine(rotate=True, state="promoted")
        assert promoted["public_key"] == machine.public() == new
        assert promoted["replaced"]["public_key"] == old
        assert promoted["replaced"]["repository"] == REPOSITORY
        again = machine(rotate=True)
        assert not again["is_new"] and again["replaced"]["public_key"] == old, "what is left is to remove the old one"

        machine(rotate=True, state="settled")
        assert machine.files() == PLAIN
        assert machine(rotate=True)["is_new"], "the next rotation begins"

    def test_an_interrupted_rename_is_finished(self, machine: OnMachine) -> None:
        machine()
        new = machine(rotate=True)["public_key"]
        Path(f"{machine.path}.new").rename(machine.path)
        assert machine()["public_key"] == new
        assert machine.files() == PLAIN

    @pytest.mark.parametrize("left", [[".new"], [".new", ".new.pub"]])
    def test_a_key_that_was_made_by_half_is_made_anew(self, machine: OnMachine, left: list[str]) -> None:
        machine()
        for suffix in left:
            Path(f"{machine.path}{suffix}").write_text("")
        done = machine(rotate=True)
        assert done["is_new"] and done["public_key"].startswith("ssh-ed25519 ")

    def test_a_lost_public_half_is_made_from_the_key(self, machine: OnMachine) -> None:
        public = machine()["public_key"]
        Path(f"{machine.path}.pub").unlink()
        assert machine()["public_key"] == public

    def test_a_lost_private_half_is_a_lost_key(self, machine: OnMachine) -> None:
        public = machine()["public_key"]
        machine.path.unlink()
        done = machine()
        assert done["works"] and done["public_key"] != public
        assert machine.files() == PLAIN

    def test_an_interruption_leaves_the_present_key_as_it_is(
        self, machine: OnMachine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        public = machine()["public_key"]
        machine(repository="owner/second")
        unlink = os.unlink

        def the_last(path: str) -> None:
            unlink(path)
            raise KeyboardInterrupt

        monkeypatch.setattr(on_machine.os, "unlink", the_last)
        with patch_module_args({**machine.given, "repository": "owner/third"}), pytest.raises(KeyboardInterrupt):
            on_machine.main()
        monkeypatch.undo()
        assert machine(repository="owner/third")["is_new"]
        assert machine.public() == public

    def test_another_repository_gets_another_key(self, machine: OnMachine) -> None:
        old = machine()["public_key"]
        moved = machine(repository="owner/second")
        assert moved["is_new"] and moved["public_key"] != old
        third = machine(repository="owner/third")
        assert third["public_key"] not in (old, moved["public_key"]), "not the one that was made for the second"
        promoted = machine(repository="owner/third", state="promoted")
        assert promoted["replaced"] == {**promoted["replaced"], "public_key": old, "repository": REPOSITORY}
        assert not machine(repository="owner/third")["is_new"]

    def test_a_key_without_a_repository_in_its_comment_is_kept(self, machine: OnMachine) -> None:
        public = machine()["public_key"]
        Path(f"{machine.path}.pub").write_text(f"{public} cloud-agent@vm\n")
        assert not machine()["is_new"]

    def test_what_git_says_is_told_without_the_token(self, machine: OnMachine) -> None:
        done = machine(remote_url="http://user:t0ken@127.0.0.1:1/owner/vault.git")
        assert not done["works"] and "127.0.0.1" in done["said"]
        assert "t0ken" not in json.dumps({**done, "invocation": None})


SHOWN = ("deploy_key_is_registered_by_api", "deploy_key_repository", "deploy_key_controller_environment")
REMOTES = {
    "git@github.com:you/vault.git": True,
    "ssh://git@github.com/you/vault": True,
    "ssh://git@ssh.github.com:443/you/vault.git": True,
    # Not the repository of that name at GitHub.
    "git@gitlab.example:you/vault.git": False,
    "ssh://git@gitlab.example/github.com/vault.git": False,
    "https://user:token@github.com/you/vault.git": False,
}


def test_what_the_role_makes_of_the_address_and_of_the_environment(tmp_path: Path) -> None:
    """A token that lies in the environment is for GitHub alone, or for the API that was set."""
    given = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "deploy_key_github_token": TOKEN,
        "deploy_key_github_api_url": "https://api.github.com",
        "cloud_agent_credentials": yaml.safe_load((LIBRARY.parents[2] / "group_vars/all.yml").read_text())[
            "cloud_agent_credentials"
        ],
    }
    hosts: dict[str, dict[str, str]] = {
        f"m{number}": {"deploy_key_remote_url": remote} for number, remote in enumerate(REMOTES)
    }
    own_api = {
        "deploy_key_remote_url": "git@ghe.example:a/b",
        "deploy_key_github_api_url": "https://ghe.example/api/v3",
    }
    hosts["enterprise"] = own_api
    write = {"content": f"{{{{ [{', '.join(SHOWN)}] | to_json }}}}", "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(LIBRARY.parent / "vars/main.yml")],
        "tasks": [{"ansible.builtin.copy": write}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": given}}))
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory=hosts.json", "play.yml"],
        cwd=tmp_path,
        env={**environment, "HTTPS_PROXY": "http://proxy.example:3128"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = {host: json.loads((tmp_path / host).read_text()) for host in hosts}
    assert {remote: made[f"m{number}"][0] for number, remote in enumerate(REMOTES)} == REMOTES
    assert made["m0"][1] == made["m2"][1] == "you/vault"
    assert made["enterprise"][0] is True
    # An empty https_proxy would hide HTTPS_PROXY.
    assert made["m0"][2] == {"http_proxy": "", "https_proxy": "http://proxy.example:3128", "no_proxy": ""}
