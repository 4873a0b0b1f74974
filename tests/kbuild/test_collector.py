# SPDX-License-Identifier: GPL-2.0-only
"""The collector's queue: whole lines, each once, nothing lost when it is interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from kbuild_klp.kbuild.collector import DONE, ERRORS, PID, QUEUE, Queue, collect


def append(directory: Path, text: str) -> None:
    with (directory / QUEUE).open("a") as file:
        file.write(text)


def test_queue_takes_whole_lines_once(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    assert queue.take() == []
    append(tmp_path, "/a\n/b\n/a\n/c")
    assert queue.take() == [Path("/a"), Path("/b")]
    assert queue.take() == []
    append(tmp_path, ".o\n")
    assert queue.take() == [Path("/c.o")]


def test_queue_goes_on_where_the_last_reader_finished(tmp_path: Path) -> None:
    append(tmp_path, "/a\n")
    first = Queue(tmp_path)
    first.take()
    first.finish()
    append(tmp_path, "/b\n")
    first.take()
    # Killed before finish(): the next one does it again.
    assert Queue(tmp_path).take() == [Path("/b")]


def test_queue_that_was_cleaned_and_made_anew(tmp_path: Path) -> None:
    append(tmp_path, "/a\n")
    queue = Queue(tmp_path)
    queue.take()
    queue.finish()
    (tmp_path / QUEUE).rename(tmp_path / "old")
    append(tmp_path, "/longer/than/before\n")
    assert queue.take() == [Path("/longer/than/before")]
    assert Queue(tmp_path).take() == [Path("/longer/than/before")]


def test_damaged_offset_file(tmp_path: Path) -> None:
    append(tmp_path, "/a\n")
    for text in ("", "x y", "1", "1 2 3", "0 99999"):
        (tmp_path / DONE).write_text(text)
        assert Queue(tmp_path).take() == [Path("/a")]


def test_errors_are_recorded_and_do_not_stop_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.o", "b.o")]
    seen: list[Path] = []

    def write(objects: Sequence[Path]) -> list[str]:
        seen.extend(objects)
        if len(seen) == 1:
            append(tmp_path, f"{paths[1]}\n")
            raise RuntimeError("broken")
        return ["b.o: truncated"]

    for path in paths:
        path.touch()
    append(tmp_path, f"{paths[0]}\n{tmp_path}/gone.o\n")
    collect(tmp_path, write, idle=0.1, poll=0.01)
    assert seen == paths
    assert (tmp_path / ERRORS).read_text() == "RuntimeError: broken\nb.o: truncated\n"
    assert not (tmp_path / PID).exists()


def test_second_collector_leaves_at_once(tmp_path: Path) -> None:
    entered, release = threading.Event(), threading.Event()
    (tmp_path / "a.o").touch()
    append(tmp_path, f"{tmp_path}/a.o\n")

    def write(objects: Sequence[Path]) -> list[str]:
        entered.set()
        release.wait(10)
        return []

    first = threading.Thread(target=collect, args=(tmp_path, write, 0.05, 0.01))
    first.start()
    entered.wait(10)
    # Any other live process: this one's number would make it the successor that waits.
    (tmp_path / PID).write_text("1\n")
    began = time.monotonic()
    collect(tmp_path, lambda objects: ["never"], idle=0.05, poll=0.01)
    assert time.monotonic() - began < 8  # a successor waits for 10 seconds
    release.set()
    first.join()
    assert not (tmp_path / ERRORS).exists()
