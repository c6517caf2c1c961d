"""What a result is made from, all the way up to the data: its lineage.

Snakemake does not rebuild a missing intermediate file while what depends on it looks current. After a stage in the
middle has failed, a second run would therefore report success with an old figure. Hence every rule has the lineage of
its inputs among its params: whatever is changed upstream, all that follows from it is known to be outdated, and stays
so until it is made anew.
"""

import hashlib
import json


def lineage(*made_from: object) -> str:
    """Digest of settings, seeds, digests of code and of files: of anything that JSON can say, in any order of keys."""
    text = json.dumps(made_from, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
