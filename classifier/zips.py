"""member of a zip → **whether it unpacks at once**, whatever was asked for."""

import zipfile

IN_PIECES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpacks_at_once(member: zipfile.ZipInfo) -> bool:
    """Of bzip2 and LZMA zipfile unpacks all that there is, also where the header
    declares less and few bytes are read: 1 KB took 3 GB.
    """
    return member.compress_type not in IN_PIECES
