"""What the playbooks say: no secret, in no case; and the rotation of the deploy key, which may be interrupted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import LAB, ROOT, Local, Machine, eventually

ANSIBLE = ROOT / "ansible"
IN_A_PROXY, IN_AN_ADDRESS, REFUSED = "pr0xy-passw0rd", "t0ken-in-an-address", "github_pat_of_nobody"
GITHUB = LAB.describe()["githost"]
SECRETS = {
    "the Claude key": os.environ.get("CLAUDE_API_KEY") or "key-of-the-stand-in",
    "the GitHub token": GITHUB["api_token"],
    "a GitHub token that is refused": REFUSED,
    "the password of a proxy": IN_A_PROXY,
    "the token in a repository's address": IN_AN_ADDRESS,
    "the password of the vaulted file": "passw0rd-of-the-file",
}
SSH = "/var/lib/cloud-agent/.ssh"


def start(playbook: str, *arguments: str) -> subprocess.Popen[str]:
    command = [
        "ansible-playbook",
        "-vvv",
        "--diff",
        "--inventory=inventories/local",
        f"--extra-vars=lab_name={LAB.name}",
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.Popen(
        [*command, *arguments, playbook],
        cwd=ANSIBLE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def play(playbook: str, *arguments: str) -> tuple[int, str]:
    """Exit status and all output of a playbook at its most talkative, in which no secret may be."""
    running = start(playbook, *arguments)
    output, _ = running.communicate(timeout=180)
    demand_no_secret(output)
    return running.returncode, output


def demand_no_secret(output: str) -> None:
    # With -vvv Ansible prints each command that it sends, and with it the environment: docs/security.md tells of it.
    lines = [line for line in output.splitlines() if IN_A_PROXY not in line or " EXEC " not in line]
    for what, secret in SECRETS.items():
        telling = [line.replace(secret, "•••")[:400] for line in lines if secret in line]
        assert not telling, f"{what} is told in {len(telling)} lines:\n" + "\n".join(telling[:5])


def keys(method: str = "GET", body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The deploy keys of the repository, as a person sees or changes them in its settings."""
    repository = LAB.describe()["targets"]["target"]["repository"]
    request = urllib.request.Request(
        f"{GITHUB['api_url']}/repos/{repository}/keys",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {GITHUB['api_token']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return list(json.loads(answer.read())) if method == "GET" else []


def of_the_machine() -> list[str]:
    return [key["key"] for key in keys() if key["title"].startswith("cloud-agent@")]


@pytest.fixture
def loops_stay(machine: Machine) -> Iterator[None]:
    """Nothing restarts a loop."""
    before = {name: app["pid"] for name, app in machine.loops().items()}
    yield
    assert {name: app["pid"] for name, app in machine.loops().items()} == before


def test_a_dry_run_with_a_proxy_tells_no_secret() -> None:
    proxied = {"network_environment": {"https_proxy": f"http://user:{IN_A_PROXY}@127.0.0.1:9"}}
    status, output = play("site.yml", "--check", f"--extra-vars={json.dumps(proxied)}")
    assert status == 0, output[-3000:]
    assert "https_proxy" in output


def test_a_key_from_an_encrypted_file(tmp_path: Path) -> None:
    password, settings = tmp_path / "password", tmp_path / "vault.yml"
    password.write_text(SECRETS["the password of the vaulted file"])
    settings.write_text(f"agent_claude_api_key: {SECRETS['the Claude key']}\n")
    option = f"--vault-password-file={password}"
    subprocess.run(["ansible-vault", "encrypt", option, settings], check=True, capture_output=True)
    assert settings.read_text().startswith("$ANSIBLE_VAULT;")
    status, output = play("deploy.yml", option, f"--extra-vars=@{settings}")
    assert status == 0, output[-3000:]
    assert re.search(r"changed=0 .*failed=0", output), output[-500:]


def test_a_token_in_the_address_is_not_told() -> None:
    address = f"https://user:{IN_AN_ADDRESS}@127.0.0.1:1/owner/vault.git"
    first = "--start-at-task=deploy_key : Make the deploy key, pin the host keys, try both"
    status, output = play("site.yml", first, f"--extra-vars=agent_git_remote_url={address}")
    assert status != 0
    assert "cannot write to https://127.0.0.1:1/owner/vault.git" in output


def test_a_changed_host_key_is_explained() -> None:
    other = {"deploy_key_known_hosts": [f"githost {of_the_machine()[0]}"]}
    first = "--start-at-task=deploy_key : Make the deploy key, pin the host keys, try both"
    status, output = play("site.yml", first, f"--extra-vars={json.dumps(other)}")
    assert status != 0
    assert "The host shows no key that is pinned here" in output


@pytest.mark.usefixtures("loops_stay")
def test_a_rotation_that_fails_goes_on_where_it_was(machine: Machine, local: Local) -> None:
    (old,) = of_the_machine()
    status, output = play("rotate_keys.yml", f"--extra-vars=deploy_key_github_token={REFUSED}")
    assert status != 0
    assert "answered 401: Bad credentials. Mend: the token is wrong" in output
    assert of_the_machine() == [old]
    made = machine.run(f"sudo cat {SSH}/id_ed25519_vault.new.pub")

    machine.write("Inbox/before.md", b"with the old key\n")
    eventually(lambda: local.has("Inbox/before.md"), 60, "a file, synced with the old key")

    status, output = play("rotate_keys.yml")
    assert status == 0, output[-3000:]
    (new,) = of_the_machine()
    assert new != old
    assert made.startswith(new), "the key that the first run made"
    assert machine.run(f"sudo ls {SSH}").split() == [
        "config",
        "id_ed25519_vault",
        "id_ed25519_vault.pub",
        "known_hosts",
    ]
    machine.write("Inbox/after.md", b"with the new key\n")
    eventually(lambda: local.has("Inbox/after.md"), 60, "a file, synced with the new key")


@pytest.mark.usefixtures("loops_stay")
def test_without_a_token_the_run_goes_on_when_a_person_has_registered_the_key(machine: Machine, local: Local) -> None:
    (old,) = of_the_machine()
    running = start("rotate_keys.yml", "--extra-vars=deploy_key_github_token=")
    assert running.stdout
    said = ""
    for line in running.stdout:
        said += line
        if "Add this deploy key to it" in said and line.strip().startswith("ssh-ed25519"):
            keys("POST", {"title": "cloud-agent@by-hand", "key": line.strip(), "read_only": False})
            break
    rest, _ = running.communicate(timeout=120)
    demand_no_secret(said + rest)
    assert running.returncode == 0, rest[-3000:]
    assert "Delete it at https://github.com/owner/vault/settings/keys" in rest
    assert old in of_the_machine(), "nobody but its owner removes it"
    machine.write("Inbox/by-hand.md", b"with the third key\n")
    eventually(lambda: local.has("Inbox/by-hand.md"), 60, "a file, synced with the third key")
