"""The image's bytes as they come: fetched on from where a connection was lost, and expanded, never more than a few
mebibytes in memory. What the boot server says is zeros is not fetched at all."""

from __future__ import annotations

import http.client
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from .disk_io import Hole, Piece
from .home import PAUSE_SECONDS, Away, Home
from .tools import Failed

CHUNK = 1024**2
_ZEROS = bytes(CHUNK)


def image_pieces(home: Home, image: Mapping[str, Any]) -> Iterator[Piece]:
    """The image's disk from its beginning to its end.

    `data` of what is not compressed lists the stretches, by their first byte and the byte after their last, outside of
    which there is nothing but zeros. Pieces of what is expanded that are nothing but zeros are holes too.
    """
    total, stretches = int(image["bytes"]), image.get("data")
    if image["compression"] != "none" or stretches is None:
        return _holed(_expanded(fetched(home, "image", total), str(image["compression"])), int(image["disk_bytes"]))
    return _spread(home, total, [(int(start), int(end)) for start, end in stretches])


def image_head(home: Home, image: Mapping[str, Any], size: int) -> bytes:
    """The first `size` bytes of the image's disk."""
    total, compression = int(image["bytes"]), str(image["compression"])
    head = b""
    for piece in _expanded(fetched(home, "image", min(total, size) if compression == "none" else total), compression):
        head += piece
        if len(head) >= size:
            break
    return head[:size]


def fetched(home: Home, name: str, end: int, start: int = 0) -> Iterator[bytes]:
    """Every byte of `image` or `seed` from `start` up to `end` once, whatever happens to the connection."""
    offset = start
    while offset < end:
        before = offset
        try:
            with home.bytes_from(name, offset, end) as answer:
                while piece := _piece(answer):
                    offset += len(piece)
                    yield piece
        except Away as away:
            print(f"the {name} stopped at byte {offset} of {end}: {away}; going on from there", flush=True)
        if offset == before:
            time.sleep(PAUSE_SECONDS)


def _spread(home: Home, total: int, stretches: list[tuple[int, int]]) -> Iterator[Piece]:
    at = 0
    for start, end in [*stretches, (total, total)]:
        if at < start:
            yield Hole(start - at)
        yield from fetched(home, "image", end, start)
        at = end


def _holed(pieces: Iterator[bytes], most: int) -> Iterator[Piece]:
    done = 0
    for piece in pieces:
        done += len(piece)
        if done > most:
            raise Failed("IMAGE_MISMATCH", f"the image expands to more than the {most} bytes that it is said to have")
        yield Hole(len(piece)) if piece == _ZEROS[: len(piece)] else piece


def _piece(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(CHUNK)
    except http.client.IncompleteRead as cut:
        return cut.partial
    except (OSError, http.client.HTTPException) as error:
        raise Away(str(error) or type(error).__name__) from error


def _expanded(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """The disk's own bytes."""
    if compression == "none":
        return pieces
    if compression == "gzip":
        return _gunzipped(pieces)
    if compression == "zstd":
        return _piped(pieces, ("zstd", "--decompress", "--stdout", "--quiet"))
    raise Failed("UNSUPPORTED", f"this agent cannot expand {compression}; build it again with `mulligan agent build`")


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    machine = zlib.decompressobj(31)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                yield machine.decompress(rest, CHUNK)
                rest = machine.unconsumed_tail
        yield machine.flush()
    except zlib.error as error:
        raise Failed("IMAGE_BROKEN", f"the image is not gzip: {error}") from error


def _piped(pieces: Iterator[bytes], command: tuple[str, ...]) -> Iterator[bytes]:
    """Through a program; what goes wrong while it is fed is raised where it is read."""
    troubles: list[Exception] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        feeder = threading.Thread(target=_feed, args=(pieces, program.stdin, troubles.append), daemon=True)
        feeder.start()
        try:
            while piece := program.stdout.read(CHUNK):
                yield piece
            feeder.join()
            status = program.wait()
        finally:
            program.kill()
        # That it could not be fed any more is no trouble of its own: what it says itself is why.
        if trouble := next((each for each in troubles if not isinstance(each, BrokenPipeError)), None):
            raise trouble
        if status:
            said = program.stderr.read().decode("utf-8", "replace").strip()[-200:]
            raise Failed("IMAGE_BROKEN", f"{command[0]} could not expand the image: {said}")


def _feed(pieces: Iterator[bytes], pipe: IO[bytes], trouble: Callable[[Exception], None]) -> None:
    try:
        with pipe:
            for piece in pieces:
                pipe.write(piece)
    except Exception as error:  # noqa: BLE001 - a thread's boundary: whatever it was is raised by the reader
        trouble(error)
