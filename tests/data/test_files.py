"""The downloader: interruptions, versions, digests, permissions."""

import hashlib
import http.server
import os
import resource
import stat
import threading

import pytest

from sigad.data.files import download, put_there, write_whole
from sigad.errors import InvalidInputError, MissingDataError, StorageError

CONTENT = bytes(range(256)) * 400
HALF = len(CONTENT) // 2


class Server(http.server.BaseHTTPRequestHandler):
    """Serves bytes, from the position that is asked for if the version is the same; the first connection breaks off."""

    def do_GET(self):
        server = self.server
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        if self.headers.get("If-Range", server.etag) != server.etag:
            start = 0
        server.asked.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(server.content[start : HALF if len(server.asked) == 1 else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        server.content, server.asked, server.etag = CONTENT, [], '"one"'
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_interrupted_download_goes_on_where_it_was(server, tmp_path):
    path = tmp_path / "a"
    with pytest.raises(MissingDataError, match="try again"):
        download(f"{server.url}/a", path)
    assert not path.exists()
    assert download(f"{server.url}/a", path).read_bytes() == CONTENT
    assert server.asked == [0, HALF]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.downloaded"]


@pytest.mark.parametrize("change", ["version", "address", "no validator"])
def test_two_versions_are_never_put_together(server, tmp_path, change):
    if change == "no validator":
        server.etag = ""
    with pytest.raises(MissingDataError):
        download(f"{server.url}/a", tmp_path / "a")
    server.content = CONTENT[::-1]
    if change == "version":
        server.etag = '"two"'
    address = f"{server.url}/b" if change == "address" else f"{server.url}/a"
    assert download(address, tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_a_known_digest_is_validator_enough(server, tmp_path):
    server.etag, digest = "", hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(MissingDataError):
        download(f"{server.url}/a", tmp_path / "a", sha256=digest)
    assert download(f"{server.url}/a", tmp_path / "a", sha256=digest).read_bytes() == CONTENT
    assert server.asked == [0, HALF]


def test_the_first_digits_of_a_digest_are_compared(tmp_path):
    source, path = tmp_path / "source", tmp_path / "there"
    source.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert download(source.as_uri(), path, sha256=digest[:8].upper()).read_bytes() == CONTENT
    path.write_bytes(b"altered")
    with pytest.raises(InvalidInputError, match=f"there has sha256 .* expected was {digest[:8]}: ask me"):
        download(source.as_uri(), path, sha256=digest[:8], way_out="ask me")
    assert path.read_bytes() == b"altered"
    with pytest.raises(InvalidInputError):
        download(source.as_uri(), tmp_path / "other", sha256="0" * 64)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source", "there", "there.downloaded"]


def test_a_downloaded_file_can_be_read_by_whom_the_umask_allows(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    source.chmod(0o600)
    before = os.umask(0o027)
    try:
        path = download(source.as_uri(), tmp_path / "shared" / "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.fixture
def full_disk():
    """No file may grow beyond 64 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, full_disk):
    path = tmp_path / "kept" / "state"
    write_whole(path, b"first")
    with pytest.raises(StorageError, match=r"state could not be written \(File too large\): make room"):
        write_whole(path, bytes(1 << 17))
    assert path.read_bytes() == b"first"
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_what_a_person_put_there_is_told_from_what_was_downloaded(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    path = tmp_path / "there"
    assert put_there(path) is None and put_there(None) is None
    download(source.as_uri(), path)
    assert put_there(path) is None
    time_stamp = path.stat().st_mtime
    path.write_bytes(CONTENT[::-1])
    os.utime(path, (time_stamp, time_stamp))
    assert put_there(path) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    path.write_bytes(CONTENT)
    assert put_there(path) is None
    assert put_there(source) == hashlib.sha256(CONTENT).hexdigest()
    before = put_there(tmp_path)
    (tmp_path / "more").write_bytes(b"")
    assert put_there(tmp_path) != before
