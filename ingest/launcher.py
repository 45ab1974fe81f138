"""Takes rights away from itself, then becomes the program it was told to run.

Run as `python -I -S launcher.py PARENT_PID CPU_SECONDS MEMORY_BYTES FILE_BYTES PROGRAM ARGUMENT...`, a process of its
own, so that nothing has to happen between fork and exec in a worker full of threads. Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 13  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EACCES
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K

# The audit name of the machine, and its numbers of the calls socket and io_uring_setup (which can make sockets too).
_CALLS = {"x86_64": (0xC000003E, (41, 425)), "aarch64": (0xC00000B7, (198, 425))}


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main(arguments: list[str]) -> None:
    """Set the limits and become the program; does not return."""
    parent, cpu_seconds, memory_bytes, file_bytes = (int(text) for text in arguments[:4])
    program = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before its death could be signalled
        sys.exit(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and what is ignored stays so
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    _shut_network(libc)
    os.execve(program[0], program, os.environ)  # noqa: S606  # becoming the program, without a shell, is the point


def _shut_network(libc: ctypes.CDLL) -> None:
    """Refuse new sockets for good. Where the kernel has no seccomp, ffmpeg's protocol white list stands alone."""
    machine = _CALLS.get(platform.machine())
    if machine is None:
        return
    audit, calls = machine
    code = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 0, len(calls) + 2, audit), (_LOAD, 0, 0, 0)]
    code += [(_JUMP_IF_EQUAL, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(code), packed)), 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
