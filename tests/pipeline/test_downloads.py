import hashlib
import http.server
import threading

import pytest

from flyweight.errors import CheckpointError
from flyweight.pipeline.downloads import downloaded, is_url
from flyweight.pipeline.preflight import weights_path

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, and counts."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        found = self.path == "/a.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        self.wfile.write(CONTENT if found else b"")

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_are_downloaded_once(url, tmp_path, recorded_progress):
    path = downloaded(f"{url}/a.safetensors", progress=recorded_progress)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path)
    assert recorded_progress.notes == [f"downloaded {url}/a.safetensors: 0.0 MiB, sha256 {DIGEST}"]
    assert ("update", "download", len(CONTENT), {}) in recorded_progress.events
    asked = Handler.asked
    assert downloaded(f"{url}/a.safetensors#sha256={DIGEST}", progress=False) == path
    assert weights_path(f"{url}/a.safetensors") == path
    assert Handler.asked == asked
    with pytest.raises(CheckpointError, match=f"whose sha256 is {DIGEST}"):
        downloaded(f"{url}/a.safetensors#sha256={'0' * 64}")


def test_what_cannot_be_downloaded_is_one_line(url, tmp_path):
    for name in (f"{url}/none.safetensors", "http://127.0.0.1:9/a.safetensors"):
        with pytest.raises(CheckpointError, match="Check that this machine is online") as refusal:
            downloaded(name, progress=False)
        assert "\n" not in str(refusal.value)
    assert not list(tmp_path.rglob("*safetensors*"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("https://example.org/yolov3_mobilenet_v1.tar", "import-paddle"),
        ("https://example.org/a.pdparams", "import-paddle"),
        ("output/best_model.pdparams", "import-paddle"),
        ("https://example.org/a.pth", "must be named https://"),
        ("file:///etc/passwd.safetensors", "must be named https://"),
    ],
)
def test_other_files_are_refused(name, reason):
    with pytest.raises(CheckpointError, match=reason):
        weights_path(name)


def test_urls_are_told_from_paths():
    assert is_url("https://example.org/a")
    assert not is_url("C:/a")
    assert not is_url("output/a")
