#!/usr/bin/env python3
"""drop_connection.py PID OTHER N: shuts the N-th TCP connection between two processes (N counts around, so any number
will do), as a broken network would: both ends see its end, neither has closed it. Prints its ports. Status 3: the system
does not let this user reach into the process (pidfd_getfd needs what a debugger needs), 4: there is no connection.
"""
import ctypes
import os
import re
import socket
import sys

PIDFD_GETFD = 438  # its number on all architectures that have it (Linux 5.6)
ESTABLISHED = "01"


def connections(pid):
    """{(local address, remote address): descriptor} of the established TCP connections of a process."""
    ends = {}
    for table in ("tcp", "tcp6"):
        for line in open(f"/proc/{pid}/net/{table}").readlines()[1:]:
            words = line.split()
            if words[3] == ESTABLISHED:
                ends[words[9]] = (words[1], words[2])
    found = {}
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        try:
            inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
        if inode and inode[1] in ends:
            found[ends[inode[1]]] = int(name)
    return found


def main():
    pid, other, number = map(int, sys.argv[1:])
    theirs = connections(other)
    ours = [(ends, fd) for ends, fd in sorted(connections(pid).items()) if ends[::-1] in theirs]
    if not ours:
        print(f"no connection between {pid} and {other}")
        return 4
    (local, remote), fd = ours[number % len(ours)]
    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), fd, 0)
    if copy < 0:
        print(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        return 3
    socket.socket(fileno=copy).shutdown(socket.SHUT_RDWR)
    print(f"connection {number % len(ours) + 1} of {len(ours)}, {local} to {remote}")
    return 0


sys.exit(main())
