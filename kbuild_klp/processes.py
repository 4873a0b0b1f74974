# SPDX-License-Identifier: GPL-2.0-only
"""Other processes: the one place that runs programs, and the processes among which work is divided.

How many these are: what the user says, what make's jobserver lends, or one for each processor. Protocol: GNU Make
manual, "POSIX Jobserver Interaction". Every process started under make has one job slot of its own; each further one
is a byte read from the jobserver, which has to be written back.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import os
import pickle
import re
import shlex
import signal
import stat
import struct
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from kbuild_klp.errors import KlpError, ProgramError

Task = TypeVar("Task")
Result = TypeVar("Result")

_LAST_LINES = 3  # of a program that failed, in the error
_ALIGNED = 64  # bytes to which arrays that are sent are aligned
_SIZE = 8  # bytes of the size of one
_BLOCK = 1 << 16  # bytes to read at a time

_AUTH = re.compile(r"--jobserver-(?:auth|fds)=(?:fifo:(\S+)|(\d+),(\d+))")


# -- programs ---------------------------------------------------------------------------------------------------------


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    merged: bool = False,
) -> str:
    """Run a program to its end; returns what it printed on standard output.

    ``command`` is the program and its arguments, which no shell sees. ``environment`` takes the place of ours; the
    language is C in any case, for what a program says is to be parsed, or quoted in an error. Its standard input is
    empty. ``merged``: what it prints on standard error is returned as well, in its place. Bytes that are no text are as
    os.fsdecode gives them.

    Raises:
        ProgramError: the program is missing, cannot be started, fails or is killed. An argument that cannot be encoded
            (a file name that is no UTF-8) cannot be started either: sh has no way to pass it on.
    """
    words = [os.fspath(word) for word in command]
    options = {
        "cwd": None if cwd is None else os.fspath(cwd),
        "tty_out": False,
        "err_to_out": merged,
        "out_bufsize": _BLOCK,
    }
    with _running(words, "", os.environ if environment is None else environment, **options) as process:
        ending = _ending(_wait(process))
    output = os.fsdecode(process.stdout)
    if ending:
        error = _program_error(words, ending, os.fsdecode(process.stderr) or output)
        error.output = output
        raise error
    return output


def read_output(command: Sequence[str], package: str = "") -> Generator[bytes, None, None]:
    """Run a program, and yield what it prints on standard output as it comes; who stops asking ends it.

    Raises ProgramError as `run` does.
    """
    reader, writer = os.pipe()
    try:
        with _running(command, package, os.environ, out=writer) as process:
            os.close(writer)
            writer = -1
            while piece := os.read(reader, _BLOCK):
                yield piece
            ending = _ending(_wait(process))
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if ending:
        raise _program_error(command, ending, os.fsdecode(process.stderr))


@contextmanager
def _running(words: Sequence[str], package: str, environment: Mapping[str, str], **options: Any) -> Iterator[Any]:
    """Start a program whose standard input is empty and whose language is C, and end it if anything is raised."""
    process: Any = None
    options |= {"env": {**environment, "LC_ALL": "C"}, "err_bufsize": _BLOCK}
    try:
        with open(os.devnull, "rb") as nothing, _interrupts_held():  # noqa: PTH123
            process = _start(words, package, stdin=nothing, **options)
        yield process
    except BaseException:
        if process is not None:
            _stop(process)
        raise


class FedProgram:
    """A program that reads what we write, and otherwise has our terminal: a pager.

    Ctrl-C reaches both. Raises ProgramError when it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        reader, writer = os.pipe()
        try:
            self._process = _start(command, env=dict(environment), stdin=reader, out=1, err=2)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        # Line by line: the program is to show what there is, while we work on the rest.
        self._pipe = os.fdopen(writer, "w", 1, encoding=sys.stdout.encoding, errors=sys.stdout.errors)

    def write(self, text: str) -> None:
        """Hand over text; raises BrokenPipeError when the program reads no more."""
        self._pipe.write(text)

    def finish(self) -> int:
        """Say that this was all, and wait for the end; returns the exit status, negative for a signal."""
        with suppress(BrokenPipeError):
            self._pipe.close()
        return _wait(self._process)


def _start(words: Sequence[str], package: str = "", *, stdin: object, **options: Any) -> Any:
    """Start a program and return sh's object for it; ``options`` are sh's, without the underscore."""
    import sh  # not at the top: most runs start no program, and importing it takes longer than many of them

    group, hangup = os.getpgrp(), signal.getsignal(signal.SIGHUP) or signal.SIG_DFL

    def undo() -> None:
        """Undo in the program's process what sh, and we, did there."""
        # sh 1.14 gives it its own process group, where Ctrl-C does not reach it and the terminal is not its to read.
        os.setpgid(0, group)
        # One that is not waited for at once does not hear that the terminal is gone.
        signal.signal(signal.SIGHUP, hangup)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    options |= {
        "in": stdin,
        "encoding": sys.getfilesystemencoding(),
        "decode_errors": sys.getfilesystemencodeerrors(),
        "new_session": False,
        "preexec_fn": undo,
        # We wait ourselves, so that Ctrl-C finds us with the program in hand.
        "bg": True,
        "bg_exc": False,
    }
    try:
        return sh.Command(words[0])(*words[1:], **{f"_{name}": value for name, value in options.items()})
    except sh.CommandNotFound:
        hint = f"install {package}" if package else "is it installed, and in PATH?"
        raise ProgramError("no such program", file=words[0], hint=hint) from None
    except (sh.ForkException, UnicodeEncodeError) as error:
        # What happened between fork and exec comes as the text of a traceback.
        reason = str(error).strip().splitlines()[-1]
        raise _program_error(words, "cannot be started", reason) from None


def _wait(process: Any) -> int:
    """Wait for the end of a program; returns its exit status, negative for a signal."""
    import sh

    with suppress(sh.ErrorReturnCode):  # raised for some signals only
        process.wait()
    return int(process.exit_code)


def _stop(process: Any) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(ChildProcessError):  # it had ended, and an interrupt came before its exit status did
        _wait(process)


def _ending(status: int) -> str:
    """Say how a program ended; nothing where all is well."""
    if status < 0:
        return f"killed by signal {-status} ({signal.strsignal(-status)})"
    return f"exit status {status}" if status else ""


def _program_error(words: Sequence[str], what: str, said: str) -> ProgramError:
    """Return the error of a program, with the last lines of what it said in one."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    text = ": ".join(filter(None, (shlex.join(words), what, " | ".join(lines[-_LAST_LINES:]))))
    return ProgramError("".join(letter if letter.isprintable() else "?" for letter in text))


# -- job slots --------------------------------------------------------------------------------------------------------


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def job_slots(wanted: int | None, most: int) -> Iterator[int]:
    """Give the number of processes to run, at most ``most``; job slots of make are returned at the end.

    ``wanted`` is what the user asked for, None to find out.
    """
    if wanted is not None:
        yield max(1, min(wanted, most))
        return
    most = max(1, min(most, processors()))
    flags = os.environ.get("MAKEFLAGS")
    if flags is None:
        yield most
        return
    auth = next(reversed([*_AUTH.finditer(flags)]), None)  # make appends; the last one is that of our make
    if auth is None:  # make without -j: one job
        yield 1
        return
    with _jobserver(auth) as server:
        tokens = _take(server[0], most - 1) if server else b""
        try:
            yield 1 + len(tokens)
        finally:
            if tokens and server:
                os.write(server[1], tokens)


@contextmanager
def _jobserver(auth: re.Match[str]) -> Iterator[tuple[int, int] | None]:
    """Open make's jobserver: gives descriptors to read from without waiting and to write to, None without one."""
    try:
        if auth[1]:
            opened = writer = _open_pipe(auth[1], os.O_RDWR)
        else:
            writer = int(auth[3])
            if not stat.S_ISFIFO(os.fstat(writer).st_mode):
                raise OSError
            # Opened again, because O_NONBLOCK on make's own descriptor would be make's too. Another process may
            # take a token between our look and our read.
            opened = _open_pipe(f"/proc/self/fd/{int(auth[2])}", os.O_RDONLY)
    except (OSError, OverflowError):  # make did not pass it on, and the number may be that of another file
        yield None
        return
    try:
        yield opened, writer
    finally:
        os.close(opened)


def _open_pipe(path: str, flags: int) -> int:
    """Open a pipe, without waiting; raises OSError for everything else."""
    if not Path(path).is_fifo():
        raise OSError
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _take(reader: int, most: int) -> bytes:
    """Take up to ``most`` job slots without waiting for any."""
    tokens = b""
    with suppress(OSError):  # nothing left (EAGAIN)
        while len(tokens) < most and (token := os.read(reader, 1)):
            tokens += token
    return tokens


# -- processes among which work is divided ----------------------------------------------------------------------------


def in_processes(work: Callable[[Task], Result], tasks: Sequence[Task], slots: int) -> Iterator[tuple[int, Result]]:
    """Do tasks in ``slots`` processes; yields the number of each and its result, as they are done.

    The processes are forked: they have what this one has, and only tasks and results are sent. Raises KlpError when
    one of them is killed, and whatever ``work`` raises.
    """
    # Not at the top: most runs need one process.
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(slots, get_context("fork"), initializer=_inherit, initargs=(work,))
    try:
        # Ctrl-C goes to all processes, and only the parent is to speak: for those that start here it is held for good.
        with _interrupts_held():
            numbers = {pool.submit(_work_on, task): number for number, task in enumerate(tasks)}
        for future in as_completed(numbers):
            yield numbers.pop(future), future.result()
    except BrokenExecutor:
        raise KlpError("a process that reads objects was killed", hint="if memory is short, try --jobs 1") from None
    finally:
        pool.shutdown(cancel_futures=True)


def side_by_side(first: Callable[[], Task], second: Callable[[], Result], wanted: int | None) -> tuple[Task, Result]:
    """Do two things at a time where there is a job slot for each (``wanted`` as in job_slots), else one by one.

    The second is done in a process of its own, which sends the result; its large arrays and the like are not copied,
    and cannot be written to. If it fails there, it is done here: so this raises whatever it does.
    """
    with job_slots(wanted, 2) as slots:
        if slots == 1:
            return first(), second()
        from multiprocessing import get_context

        with _memory() as file:
            process = get_context("fork").Process(target=_send, args=(second, file))
            with _interrupts_held():
                process.start()
            try:
                result = first()
            except BaseException:
                process.kill()
                raise
            finally:
                process.join()
            if process.exitcode == 0 and os.fstat(file.fileno()).st_size:
                with suppress(KlpError):  # what it refers to is not there any more
                    return result, _received(file)
            return result, second()


def _memory() -> BinaryIO:
    """Return a file that is nowhere else."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("kbuild-klp"), "w+b")  # noqa: PTH123
    import tempfile

    return tempfile.TemporaryFile()


def _send(work: Callable[[], Any], file: BinaryIO) -> None:
    """Write what ``work`` returns to a file: what is left of it without its buffers, these, and the sizes of all.

    Nothing where it fails: then it will fail where anybody can be told.
    """
    try:
        buffers: list[pickle.PickleBuffer] = []
        rest = io.BytesIO()
        pickler = pickle.Pickler(rest, 5, buffer_callback=buffers.append)
        whole: Any = {memoryview: lambda view: (memoryview, (view.obj,))}
        pickler.dispatch_table = {**copyreg.dispatch_table, **whole}
        pickler.dump(work())
        pieces = [rest.getbuffer(), *(buffer.raw() for buffer in buffers)]
        for piece in pieces:
            file.write(piece)
            file.write(bytes(-len(piece) % _ALIGNED))
        file.write(struct.pack(f"={len(pieces) + 1}Q", *map(len, pieces), len(pieces)))
        file.flush()
    except BaseException:
        os.ftruncate(file.fileno(), 0)


def _received(file: BinaryIO) -> Any:
    """Return what was sent; as long as it lives, the file does."""
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    [count] = struct.unpack("=Q", view[-_SIZE:])
    sizes = struct.unpack(f"={count}Q", view[-_SIZE * (count + 1) : -_SIZE])
    at, pieces = 0, []
    for size in sizes:
        pieces.append(view[at : at + size])
        at += size + -size % _ALIGNED
    return pickle.loads(pieces[0], buffers=pieces[1:])


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, also in processes that start meanwhile."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_inherited: Callable[[Any], Any] | None = None


def _inherit(work: Callable[[Any], Any]) -> None:
    global _inherited
    _inherited = work


def _work_on(task: Any) -> Any:
    assert _inherited is not None
    return _inherited(task)
