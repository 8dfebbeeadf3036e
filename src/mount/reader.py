"""A reader as programs are: run in a process of its own, never in the one that serves the mount."""
import errno, mmap, os, random, sys, threading


def same(path, twin):
    """Reads `path` in every way and compares with the plain file `twin`."""
    want = open(twin, "rb").read()
    assert open(path, "rb").read() == want, "sequential"
    fd = os.open(path, os.O_RDONLY)
    chance = random.Random(7)
    spots = [(chance.randrange(len(want) + 1), chance.choice((1, 4096, 70000, 1 << 20))) for _ in range(100)]
    preads = lambda: all(os.pread(fd, n, at) == want[at : at + n] for at, n in spots)
    assert preads(), "random"
    if want:
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            with mmap.mmap(fd, len(want), flags, mmap.PROT_READ) as view:
                assert view[:] == want, "mmap"
    good = []
    threads = [threading.Thread(target=lambda: good.append(preads())) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert good == [True] * 8, "threads"
    assert os.lseek(fd, 0, os.SEEK_END) == len(want)
    if want:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0 and os.lseek(fd, 0, os.SEEK_HOLE) == len(want)
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    if want:
        buffer = mmap.mmap(-1, 1 << 20)
        got = os.preadv(direct, [buffer], 0)
        assert buffer[:got] == want[:got] and got == min(len(want), 1 << 20), "direct"


def refused(root, file):
    """Every change is EROFS."""
    path = os.path.join(root, file)
    new = os.path.join(root, "new")
    changes = [
        lambda: os.open(path, os.O_WRONLY), lambda: os.open(path, os.O_RDWR),
        lambda: os.open(new, os.O_CREAT | os.O_WRONLY), lambda: os.truncate(path, 0),
        lambda: os.mkdir(new), lambda: os.unlink(path), lambda: os.rename(path, new),
        lambda: os.symlink("x", new), lambda: os.link(path, new), lambda: os.chmod(path, 0o777),
        lambda: os.utime(path), lambda: os.setxattr(path, "user.x", b"1"), lambda: os.chown(path, 1, 1),
    ]
    for at, change in enumerate(changes):
        try:
            change()
        except OSError as error:
            assert error.errno == errno.EROFS, (at, error)
        else:
            raise AssertionError(at)
    assert os.listxattr(path) == []
    try:
        os.getxattr(path, "user.x")
    except OSError as error:
        assert error.errno in (errno.ENODATA, errno.ENOTSUP), error


def across(path, twin):
    """Holds a descriptor and a mapping from before a file is complete until after."""
    want = open(twin, "rb").read()
    fd = os.open(path, os.O_RDONLY)
    view = mmap.mmap(fd, len(want), mmap.MAP_SHARED, mmap.PROT_READ)
    assert os.pread(fd, 4096, 0) == want[:4096] and view[:4096] == want[:4096]
    print(os.fstat(fd).st_ino, flush=True)
    sys.stdin.readline()
    assert view[:] == want, "old mapping"
    assert os.pread(fd, len(want), 0) == want, "old descriptor"
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    assert os.pread(again, 4096, 8 << 20) == want[8 << 20 : (8 << 20) + 4096], "the old node, opened anew"


def fault(path):
    """Waits for a page of a shared mapping."""
    fd = os.open(path, os.O_RDONLY)
    view = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    view[0]


def names(root):
    for base, _, files in os.walk(root):
        for file in files:
            print(os.path.relpath(os.path.join(base, file), root))


globals()[sys.argv[1]](*sys.argv[2:])
