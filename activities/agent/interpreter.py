"""Python on the machine: Debian's interpreter with the part of its library that a program without users needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from mulligan.activities.images.build.host import run
from mulligan.activities.images.build.tree import LIBRARIES, LOADER, bring_libraries, copy

PYTHON = "usr/lib/python3.11"
PYTHON_LEFT_OUT = frozenset(
    (
        *("aifc", "antigravity", "asynchat", "asyncore", "cgi", "cgitb", "chunk", "colorsys", "crypt", "curses", "dbm"),
        *("distutils", "doctest", "idlelib", "imaplib", "imghdr", "lib2to3", "mailbox", "mailcap", "msilib", "nntplib"),
        *("pdb", "poplib", "profile", "pstats", "pyclbr", "pydoc", "pydoc_data", "rlcompleter", "smtpd", "smtplib"),
        *("sndhdr", "sqlite3", "ssl", "sunau", "telnetlib", "test", "this", "turtle", "unittest", "venv", "wave"),
        *("webbrowser", "wsgiref", "xdrlib", "xmlrpc", "zipapp"),
    )
)
EXTENSIONS_LEFT_OUT = (
    *("_codecs_", "_crypt", "_ctypes_test", "_curses", "_dbm", "_lsprof", "_multibytecodec", "_sqlite3", "_ssl"),
    *("_test", "_xx", "audioop", "nis", "ossaudiodev", "readline", "xxlimited"),
)
"""What the names of extension modules that stay behind begin with."""


def install_python(packages: Path, tree: Path) -> None:
    """Add the interpreter, and its library compiled, which the machine then need not do; the sources stay behind."""
    copy(packages / "usr/bin/python3.11", tree / "usr/bin/python3.11")
    bring_libraries(packages, tree, packages / "usr/bin/python3.11")
    (tree / "usr/bin/python3").symlink_to("python3.11")
    library = tree / PYTHON
    for source in sorted((packages / PYTHON).iterdir()):
        if source.stem in PYTHON_LEFT_OUT or source.name == "lib-dynload":
            continue
        if source.is_dir():
            shutil.copytree(source, library / source.name)
        elif source.suffix == ".py":
            copy(source, library / source.name)
    for source in sorted((packages / PYTHON / "lib-dynload").glob("*.so")):
        if not source.name.startswith(EXTENSIONS_LEFT_OUT):
            copy(source, library / "lib-dynload" / source.name)
            bring_libraries(packages, tree, source)
    _compile(packages, "-b", "-s", library, "-p", f"/{PYTHON}", "--invalidation-mode", "unchecked-hash", library)
    for compiled in library.rglob("*.py"):
        compiled.unlink()


def compile_program(packages: Path, folder: Path) -> None:
    """Compile the program in this folder beside its sources, which tracebacks show."""
    _compile(packages, "-s", folder.parent, "-p", "/", "--invalidation-mode", "checked-hash", folder)


def _compile(packages: Path, *options: str | Path) -> None:
    """Compile with the interpreter that will read it, which need not be this host's."""
    search = f"{packages / LIBRARIES}:{packages / 'usr' / LIBRARIES}"
    python = (packages / LOADER, "--library-path", search, packages / "usr/bin/python3.11")
    run("env", f"PYTHONHOME={packages / 'usr'}", *python, "-s", "-S", "-m", "compileall", "-q", *options)
