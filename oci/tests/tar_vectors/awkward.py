"""The archive of `entries_that_need_records_have_the_bytes_of_their_language` as Python writes it.

Prints its SHA-256 and size: python3 awkward.py
"""

import hashlib
import io
import os
import tarfile

LINK = "l" * 101
SPLITTABLE = "store/" + "d" * 60 + "/" + "n" * 60
UNSPLITTABLE = "store/" + "m" * 120


def entry(name, kind, **fields):
    info = tarfile.TarInfo("/" + os.fsdecode(name))
    info.type = kind
    info.mode = 0o644
    info.uname = info.gname = "root"
    info.mtime = 1
    for key, value in fields.items():
        setattr(info, key, value)
    return info


out = io.BytesIO()
with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
    for info in [
        entry(b"store", tarfile.DIRTYPE, mode=0o755),
        entry(b"store/a", tarfile.REGTYPE, uid=3_000_000, gid=1 << 40),
        entry(b"store/b", tarfile.REGTYPE, uname="u" * 33, gname="g\u00e9"),
        entry(b"store/" + b"d" * 60, tarfile.DIRTYPE),
        entry(os.fsencode(SPLITTABLE), tarfile.SYMTYPE, linkname=LINK),
        entry(os.fsencode(UNSPLITTABLE), tarfile.DIRTYPE, uid=3_000_000),
        entry(("store/n" + "\u00e9" * 60).encode(), tarfile.DIRTYPE),
        entry(b"store/" + b"o" * 93, tarfile.DIRTYPE),
        entry(("store/" + "p" * 92 + "/\u00e9x").encode(), tarfile.REGTYPE),
        entry("store/\u20ac".encode() + b"\xe2\x82z\xff", tarfile.SYMTYPE, linkname="\u00e9"),
    ]:
        tar.addfile(info)

archive = out.getvalue()
print(hashlib.sha256(archive).hexdigest(), len(archive))
