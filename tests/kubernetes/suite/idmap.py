"""Binds SOURCE at TARGET through an idmapped mount, as a container runtime does for a pod with `hostUsers: false`, and
prints what is seen there: the owner of FILE and its content. Root inside is user 100000 outside.

Debian 12's containerd knows no user namespaces, so this is what stands in for it: the same three calls."""

import ctypes
import os
import subprocess
import sys

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x100000

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main(source, target, file):
    holder = subprocess.Popen(["unshare", "--user", "sh", "-c", "echo ready; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    for kind in ("uid", "gid"):
        with open(f"/proc/{holder.pid}/{kind}_map", "w") as table:
            table.write("0 100000 65536")
    users = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
    tree = call(OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE)
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_IDMAP, 0, 0, users)
    call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), ctypes.sizeof(attributes))
    os.makedirs(target, exist_ok=True)
    call(MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
    try:
        path = os.path.join(target, file)
        print(os.stat(path).st_uid)
        print(open(path).read())
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)
        os.rmdir(target)
        holder.kill()
        holder.wait()


main(*sys.argv[1:])
