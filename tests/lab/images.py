"""The images: a bare cloud machine, for arm64 too, and on top of it the git host."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

from tests.lab import host, podman
from tests.lab.host import LabError, run, say

HERE = Path(__file__).parent
BASE_RECIPE = HERE / "base"
GIT_HOST_RECIPE = HERE / "githost"
ARM64_RECIPE, ARM64_SUITE = HERE / "arm64", "bookworm"
REPOSITORY = "localhost/cloud-agent-lab"
# The system of the real machine, by the short name that podman's own configuration resolves.
UBUNTU_IMAGE, UBUNTU_SUITE = "ubuntu:22.04", "jammy"
PULL_SECONDS = 60


def base() -> str:
    """The tag of the base image, which is made if it is not there.

    Ubuntu 22.04 where an image registry answers, else this host's own release of Debian or Ubuntu. What was
    made once stays the choice, so that a lab does not change its system with the state of the network.
    """
    recipe = _hash(BASE_RECIPE)
    own = _own_suite()
    tags = {suite: f"{REPOSITORY}:{suite}-{recipe}" for suite in (UBUNTU_SUITE, own) if suite}
    for tag in tags.values():
        if podman.image_exists(tag):
            return tag
    started = time.monotonic()
    if _pull_ubuntu():
        suite, bare = UBUNTU_SUITE, UBUNTU_IMAGE
    elif own:
        suite, bare = own, _bootstrap(own)
    else:
        raise LabError(
            "no image registry answers, and this host is neither Debian nor Ubuntu: there is nothing to\n"
            f"make a base image from. Get {UBUNTU_IMAGE} here (podman pull, podman load), then run this again."
        )
    say(f"base image: adding systemd and ssh to {suite} (about half a minute)")
    podman.build(BASE_RECIPE, tags[suite], bare)
    say(f"base image: ready after {time.monotonic() - started:.0f} s")
    return tags[suite]


def git_host(base_image: str) -> str:
    """The tag of the git host's image on top of `base_image`, which is made if it is not there."""
    suite, _, recipe = base_image.rpartition(":")[2].rpartition("-")
    tag = f"{REPOSITORY}-githost:{suite}-{recipe}-{_hash(GIT_HOST_RECIPE)}"
    if not podman.image_exists(tag):
        started = time.monotonic()
        say("git host image: adding git and the stand-ins' services")
        podman.build(GIT_HOST_RECIPE, tag, base_image)
        say(f"git host image: ready after {time.monotonic() - started:.0f} s")
    return tag


def arm64() -> str:
    """The tag of the base image for arm64, Debian 12, which is made if it is not there; its programs are emulated."""
    host.prepare_emulation()
    tag = f"{REPOSITORY}-arm64:{ARM64_SUITE}-{_hash(BASE_RECIPE)}-{_hash(ARM64_RECIPE)}"
    if not podman.image_exists(tag):
        started = time.monotonic()
        bare = _bootstrap(ARM64_SUITE, "arm64")
        say("arm64 image: adding systemd and ssh, under emulation (about 3 minutes)")
        podman.build(BASE_RECIPE, f"{tag}-base", bare, "--arch=arm64")
        podman.build(ARM64_RECIPE, tag, f"{tag}-base", "--arch=arm64")
        say(f"arm64 image: ready after {time.monotonic() - started:.0f} s")
    return tag


def _pull_ubuntu() -> bool:
    if podman.image_exists(UBUNTU_IMAGE):
        return True
    say(f"base image: asking the image registry for {UBUNTU_IMAGE} (at most {PULL_SECONDS} s)")
    try:
        run(["podman", "pull", "--quiet", UBUNTU_IMAGE], timeout=PULL_SECONDS)
    except LabError:
        say("base image: no registry answers")
        return False
    return True


def _own_suite() -> str | None:
    """This host's release, such as "bookworm", when it is one that mmdebstrap can make."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return release.get("VERSION_CODENAME") if release.get("ID") in ("debian", "ubuntu") else None


def _bootstrap(suite: str, architecture: str = "") -> str:
    """Make a bare image of `suite` from its packages and return its tag; `architecture` where it is not this host's."""
    tag = f"{REPOSITORY}-bare:{suite}{architecture and '-' + architecture}"
    if podman.image_exists(tag):
        return tag
    if shutil.which("mmdebstrap") is None:
        host.install_tools()
    foreign = [f"--arch={architecture}"] if architecture else []
    say(f"base image: making a bare {suite} with mmdebstrap (about {'2 minutes' if foreign else '20 s'})")
    prefix = f"cloud-agent-lab-{os.getuid()}-"
    for rest in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # of a run that was killed
        shutil.rmtree(rest, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as directory:
        archive = Path(directory) / "bare.tar"
        run(
            ["mmdebstrap", "--quiet", "--variant=minbase", *foreign, suite, archive],
            timeout=900,
            hint=f"Check that this host reaches a mirror of {suite} (apt-get update), then run this again.",
        )
        run(["podman", "import", "--quiet", *foreign, archive, tag], timeout=300)
    return tag


def _hash(recipe: Path) -> str:
    """A name for the content of a recipe's directory."""
    digest = hashlib.sha256()
    for path in sorted(path for path in recipe.glob("*") if path.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
