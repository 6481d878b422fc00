"""Directory trees that become file systems: programs with their libraries, and drivers with what they depend on."""

from __future__ import annotations

import re
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mulligan.activities.errors import Unsupported
from mulligan.activities.images.build.host import run

LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
STATIC = frozenset({"bin/busybox"})
"""What is linked statically, and so brings no libraries."""
_WANTED = re.compile(rb"\0softdep=([^\0]+)")
_WORDS = re.compile(r"(pre|post):|(\S+)")
_BUILT_IN_ALIAS = re.compile(rb"\0\w+\.alias=([^\0]+)")


def install(packages: Path, target: Path, *programs: str) -> None:
    """Copy programs with the shared libraries that the dynamic loader finds for them among the packages.

    Paths are relative to both trees. Raises Unsupported, naming it, for a library that no unpacked package brings.
    """
    for program in programs:
        copy(packages / program, target / program)
        if program not in STATIC:
            bring_libraries(packages, target, packages / program)


def bring_libraries(packages: Path, target: Path, binary: Path) -> None:
    """Copy the shared libraries of a program or of a library, and the loader, from the packages."""
    search = f"{packages / LIBRARIES}:{packages / 'usr' / LIBRARIES}"
    listed = run(packages / LOADER, "--library-path", search, "--list", binary)
    for line in listed.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if not arrow or not name.startswith("lib"):
            continue
        found = Path(rest.split(" (")[0])
        if not found.is_relative_to(packages):  # missing, or the host's own
            raise Unsupported(f"{binary.name} needs {name}, which none of the packages brings", library=name)
        copy(found, target / LIBRARIES / name)
    copy(packages / LOADER, target / "lib64/ld-linux-x86-64.so.2")


class Drivers:
    """A kernel package's modules: each by its name, with the modules that it depends on.

    What one asks for without depending on it (`softdep`) is one of them: a network card may be of no use without the
    driver of its PHY, which its own driver looks for.
    """

    def __init__(self, packages: Path, version: str) -> None:
        """Index the modules of that kernel among the unpacked packages."""
        self._busybox, self._version = packages / "bin/busybox", version
        self._folder = Path("lib/modules") / version
        self._packages = packages
        run(self._busybox, "depmod", "-b", packages, version)
        self._needs: dict[str, tuple[str, ...]] = {}
        for line in (packages / self._folder / "modules.dep").read_text().splitlines():
            path, _, dependencies = line.partition(":")
            self._needs[_name(path)] = (path, *dependencies.split())
        self._aliases: dict[str, set[str]] = defaultdict(set)
        for line in (packages / self._folder / "modules.alias").read_text().splitlines():
            if line.startswith("alias "):
                _, alias, module = line.split()
                self._aliases[_plain(alias)].add(_plain(module))

    def below(self, *folders: str) -> set[str]:
        """The names of the modules below these folders of the kernel's tree, e.g. `drivers/net/ethernet`."""
        starts = tuple(f"kernel/{folder}/" for folder in folders)
        return {name for name, (path, *_) in self._needs.items() if path.startswith(starts)}

    def needing(self, *modules: str) -> set[str]:
        """The names of these modules and of all that depend on one of them."""
        unwanted = {_name(module) for module in modules}
        return {name for name, paths in self._needs.items() if unwanted & {_name(path) for path in paths}}

    def copy(self, target: Path, modules: Iterable[str]) -> None:
        """Copy modules with what they depend on or ask for, and index them for modprobe; a name that is no module is
        built in. Raises Unsupported for what one asks to have before it, and the kernel has nowhere."""
        for path in sorted(self._whole(modules)):
            copy(self._packages / self._folder / path, target / self._folder / path)
        run(self._busybox, "depmod", "-b", target, self._version)

    def _whole(self, modules: Iterable[str]) -> set[str]:
        """The paths of the modules, and of all that they bring."""
        found: set[str] = set()
        new = {path for module in modules for path in self._needs.get(_name(module), ())}
        while new:
            found |= new
            asked = {name for path in new for name in self._asked_by(path)}
            new = {path for name in asked for path in self._needs[name]} - found
        return found

    def _asked_by(self, path: str) -> set[str]:
        """The names of the modules that it asks to have before or after it, each by its name or by an alias."""
        found, when = set[str](), ""
        text = b" ".join(_WANTED.findall((self._packages / self._folder / path).read_bytes())).decode()
        for label, word in _WORDS.findall(text):
            when = label or when
            modules = {_plain(word)} & self._needs.keys() or self._aliases.get(_plain(word), set())
            found |= modules
            if word and when == "pre" and not modules and not self._built_in(_plain(word)):
                raise Unsupported(f"{Path(path).name} needs {word}, which the kernel does not bring", module=word)
        return found

    def _built_in(self, name: str) -> bool:
        names = (self._packages / self._folder / "modules.builtin").read_text().split()
        aliases = _BUILT_IN_ALIAS.findall((self._packages / self._folder / "modules.builtin.modinfo").read_bytes())
        return name in {*map(_name, names), *(_plain(alias.decode()) for alias in aliases)}


def _name(module: str) -> str:
    return _plain(Path(module).stem)


def _plain(name: str) -> str:
    return name.replace("-", "_")


def copy(source: Path, target: Path) -> None:
    """Copy one file, and make the folders that it needs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def executable(path: Path, text: str) -> None:
    """Write a script that anyone may run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
