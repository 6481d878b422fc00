"""Debian packages for an image, fetched and checked by apt with a state of its own: the host's is left alone.

The mirrors are the host's own: whatever its apt sources name for Debian's archive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mulligan.activities.errors import HostNotReady, Unreachable
from mulligan.activities.images.build.host import run, watch

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_SUITES = ("{}", "{}-updates", "{}-security")


def sources(release: str, components: tuple[str, ...] = ("main",)) -> tuple[str, ...]:
    """The lines of a sources.list for these components of Debian's release, from where the host itself has `main`."""
    if not KEYRING.exists():
        raise HostNotReady(
            f"Debian's packages are checked against {KEYRING}, which this host does not have",
            remedy="apt-get install --no-install-recommends debian-archive-keyring",
        )
    suites = {suite.format(release) for suite in _SUITES}
    fields = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
    listed = run("apt-get", "indextargets", "--format", fields, "Created-By: Packages").splitlines()
    found = []
    for uri, suite, component, origin in (line.split("|") for line in listed if line.count("|") == 3):
        known = origin == "Debian" or (origin in ("", "$(ORIGIN)") and "/debian" in uri)
        if known and suite in suites and component == "main":
            found.append((uri, suite))
    if not any(suite == release for _, suite in found):
        raise HostNotReady(
            f"images are built from Debian's {release}, which is not among this host's apt sources; add it, then build "
            "again",
            remedy="apt-get update",
            release=release,
        )
    return tuple(
        f"deb [signed-by={KEYRING}] {uri} {suite} {' '.join(components)}" for uri, suite in dict.fromkeys(found)
    )


class Archive:
    """Debian's archive as apt sees it, with lists and packages cached under one directory."""

    def __init__(self, directory: Path, release: str, components: tuple[str, ...] = ("main",)) -> None:
        """Prepare the directory; nothing is fetched before `refresh`."""
        self._debs = directory / "debs"
        self._lists = directory / "state/lists"
        for folder in (self._debs, self._lists / "partial", directory / "cache/archives/partial"):
            folder.mkdir(parents=True, exist_ok=True)
        (directory / "state/status").touch()
        (directory / "sources.list").write_text("\n".join(sources(release, components)) + "\n")
        settings = {
            "Dir::State": directory / "state",
            "Dir::State::status": directory / "state/status",
            "Dir::Cache": directory / "cache",
            "Dir::Etc::sourcelist": directory / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self._config = directory / "apt.conf"
        lines = [f'{name} "{value}";\n' for name, value in settings.items()]
        self._config.write_text("".join(lines) + '#clear APT::Architectures;\nAPT::Architectures "amd64";\n')

    def refresh(self) -> None:
        """Fetch the package lists; without a network, those of an earlier build are good enough."""
        try:
            self._apt("update", "--error-on=any")
        except HostNotReady as error:
            if not list(self._lists.glob("*_Packages*")):
                raise Unreachable(
                    f"Debian's package lists could not be fetched: {error.message}\n"
                    "Check the network and the host's apt sources"
                ) from error

    def dependency(self, package: str) -> str:
        """The one package that a metapackage stands for, e.g. the kernel of today."""
        shown = run("apt-cache", f"--config-file={self._config}", "show", "--no-all-versions", package)
        match = re.search(r"^Depends: ([^ ,]+)", shown, re.MULTILINE)
        if match is None:
            raise Unreachable(f"Debian's archive has no package {package} that names another; check the apt sources")
        return match.group(1)

    def missing(self, *packages: str) -> tuple[str, ...]:
        """Those of the packages that the archive does not have."""
        names = run("apt-cache", f"--config-file={self._config}", "pkgnames").split()
        return tuple(package for package in packages if package not in set(names))

    def closure(self, *packages: str) -> tuple[str, ...]:
        """The packages with everything that they depend on."""
        plan = self._apt("install", "--simulate", *packages)
        return tuple(line.split()[1] for line in plan.splitlines() if line.startswith("Inst "))

    def fetch(self, packages: Sequence[str], progress: Callable[[float], None]) -> tuple[Path, ...]:
        """Download what is not in the cache, checked by apt; forgets packages that are no longer asked for."""
        listed = self._apt("download", "--print-uris", *packages).splitlines()
        files = [self._debs / line.split()[1] for line in listed if line.startswith("'")]
        for old in set(self._debs.glob("*.deb")) - set(files):
            old.unlink()
        got = 0

        def count(line: str) -> None:
            nonlocal got
            got += line.startswith("Get:")
            progress(min(1.0, got / len(files)))

        try:
            watch("apt-get", f"--config-file={self._config}", "download", *packages, on_line=count, cwd=self._debs)
        except HostNotReady as error:
            raise Unreachable(f"packages could not be fetched from Debian's archive: {error.message}") from error
        return tuple(files)

    def _apt(self, verb: str, *words: str) -> str:
        return run("apt-get", f"--config-file={self._config}", verb, *words)


def unpack(debs: Sequence[Path], target: Path) -> None:
    """Unpack packages side by side into a directory; no script of theirs is run."""
    for deb in debs:
        run("dpkg-deb", "--extract", deb, target)
