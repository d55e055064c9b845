"""Models by repository, against two real servers that play the hub and its content network."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.machinery
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from builder import build, hub, lock, plan
from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.fetch import TRIES
from builder.installer import payload as installer_payload
from builder.installer import system
from builder.lock import Lock
from builder.media import payload
from builder.spec.load import loads

TOKEN = "hf_" + "SecretSecretSecretSecret1234567890"
REPO = "org/name"
OLD, NEW = "a" * 40, "b" * 40
WEIGHTS = bytes(range(256)) * 2048
FILES = {
    "config.json": b'{"layers": 2}\n',
    "empty.txt": b"",
    "README.md": "Größe\n".encode(),
    "model-1.gguf": WEIGHTS,
    "sub folder/model-2.gguf": WEIGHTS[::-1],
    "sub folder/twin.gguf": WEIGHTS,
}
HEAD = """\
name: demo
network: {subnet: 10.77.0.0/24}
nodes: [{name: node1, match: {serial: A}}]
models:
"""


class Server(ThreadingHTTPServer):
    """Notes every request: path, Authorization, Range."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.seen: list[tuple[str, str | None, str | None]] = []


class Hub(Server):
    """``trees``: commit → path → content. ``listing`` changes the API's answer before it is sent."""

    def __init__(self, content: Content) -> None:
        super().__init__(HubHandler)
        self.content = content
        self.trees = {OLD: FILES}
        self.main = OLD
        self.gated = False
        self.compressed = False
        self.readers = {TOKEN}  # tokens with access
        self.strangers = {"hf_stranger"}  # valid, without access
        self.listing: Any = lambda answer: answer


class Content(Server):
    """Serves bytes by digest, to whoever has a signed link. ``cuts``: answers that break off after a while."""

    def __init__(self) -> None:
        super().__init__(ContentHandler)
        self.host = "127.0.0.1"
        self.bytes: dict[str, bytes] = {}
        self.cuts = 0
        self.expired = 0

    def link(self, digest: str) -> str:
        return f"http://{self.host}:{self.server_port}/{digest}?signature=signed"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def note(self) -> None:
        self.server.seen.append((self.path, self.headers["Authorization"], self.headers["Range"]))

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def part(self, content: bytes) -> None:
        wanted = self.headers["Range"]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and start >= len(content):
            self.reply(416)
            return
        self.reply(206 if wanted else 200, content[start:])

    def log_message(self, *_args: object) -> None:
        pass


class HubHandler(Handler):
    server: Hub

    def do_GET(self) -> None:
        self.note()
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if token and token not in self.server.readers | self.server.strangers:
            self.reply(401, X_Error_Message="Invalid credentials in Authorization header")
        elif repo != REPO:
            self.reply(404 if token else 401, X_Error_Code="RepoNotFound")
        elif self.server.gated and not token:
            self.reply(401, X_Error_Code="GatedRepo")
        elif self.server.gated and token not in self.server.readers:
            self.reply(403, X_Error_Code="GatedRepo")
        elif api:
            self.list(parts[5], parse_qs(address.query))
        else:
            self.resolve(parts[3], "/".join(parts[4:]))

    def list(self, revision: str, query: dict[str, list[str]]) -> None:
        commit = self.server.main if revision == "main" else revision
        if commit not in self.server.trees:
            self.reply(404, X_Error_Code="RevisionNotFound")
            return
        assert query == {"blobs": ["true"]}
        siblings = [self.sibling(path, data) for path, data in self.server.trees[commit].items()]
        answer = self.server.listing({"id": REPO, "sha": commit, "siblings": siblings})
        self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

    def sibling(self, path: str, data: bytes) -> dict[str, Any]:
        sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": sha1}
        if path.endswith(".gguf"):
            sha256 = hashlib.sha256(data).hexdigest()
            self.server.content.bytes.setdefault(sha256, data)
            entry |= {"lfs": {"sha256": sha256, "size": len(data), "pointerSize": 134}}
        return entry

    def resolve(self, commit: str, path: str) -> None:
        data = self.server.trees.get(commit, {}).get(path)
        if data is None:
            self.reply(404, X_Error_Code="EntryNotFound")
        elif path.endswith(".gguf"):
            self.reply(302, Location=self.server.content.link(hashlib.sha256(data).hexdigest()))
        elif "gzip" in self.headers["Accept-Encoding"] and not self.headers["Range"]:
            self.server.compressed = True
            self.reply(200, gzip.compress(data), Content_Encoding="gzip")
        else:
            self.part(data)


class ContentHandler(Handler):
    server: Content

    def do_GET(self) -> None:
        self.note()
        if self.server.expired:
            self.server.expired -= 1
            self.reply(403)
            return
        data = self.server.bytes[urlsplit(self.path).path.strip("/")]
        if self.server.cuts:
            self.server.cuts -= 1
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + (1 << 16)])
            self.close_connection = True
            return
        self.part(data)


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def content() -> Iterator[Content]:
    server = Content()
    with running(server):
        yield server


@pytest.fixture
def server(content: Content, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(content)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running(server):
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def pinned(text: str, cache: Cache) -> plan.Plan:
    """A plan whose models are locked now, and that needs no package archive."""
    cluster = loads(HEAD + text)
    models, commits = lock.resolve_models(cluster, Path(), cache)
    return plan.make(cluster, Lock(lock.asks_of(cluster), 0, (), models, (), commits))


def staged(todo: plan.Plan, cache: Cache) -> dict[str, bytes]:
    paths = build.stage_models(todo, Path(), cache)
    return {model.name: paths[model.sha256].read_bytes() for model in todo.models}


def in_folder(folder: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {f"{folder}/{path}": data for path, data in files.items()}


ANY = "  - repo: org/name\n"
GATED = "  - {repo: org/name, token_env: HF_TOKEN}\n"


def test_a_repository_is_locked_at_its_commit_and_comes_in_whole(
    server: Hub, content: Content, cache: Cache
) -> None:
    todo = pinned(ANY, cache)
    assert todo.lock is not None
    assert todo.lock.commits == {"org--name": OLD}
    assert {model.name: (model.sha256, model.size) for model in todo.models} == {
        name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in in_folder("org--name").items()
    }
    assert content.seen == []  # the hub knows the digests of weights
    assert staged(todo, cache) == in_folder("org--name")
    assert len(content.seen) == 2  # the twin came once
    assert not server.compressed  # a part of that could not be resumed


def test_the_same_lock_twice_even_if_the_hub_shuffles(server: Hub, cache: Cache, tmp_path: Path) -> None:
    for name, sign in (("one", 1), ("two", -1)):
        server.listing = lambda answer, sign=sign: {**answer, "siblings": answer["siblings"][::sign]}
        pins = pinned(ANY, cache).lock
        assert pins is not None
        lock.save(pins, tmp_path / name)
        assert lock.load(tmp_path / name) == pins
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "127.0.0.1" not in (tmp_path / "one").read_text()


def test_a_lock_keeps_its_commit_when_the_branch_moves(server: Hub, cache: Cache) -> None:
    todo = pinned(ANY, cache)
    server.trees[NEW] = {"model-1.gguf": b"new"}
    server.main = NEW
    assert staged(todo, cache) == in_folder("org--name")
    assert pinned(ANY, cache).lock != todo.lock
    assert pinned(f"  - {{repo: org/name, revision: {OLD}}}\n", cache).lock.commits == {"org--name": OLD}  # type: ignore[union-attr]


def test_globs_choose_and_the_spec_names_the_folder(server: Hub, cache: Cache) -> None:
    todo = pinned("  - {repo: org/name, name: mine, files: ['*-[12].gguf', config.json]}\n", cache)
    wanted = ("config.json", "model-1.gguf", "sub folder/model-2.gguf")
    assert staged(todo, cache) == in_folder("mine", {path: FILES[path] for path in wanted})


def test_a_glob_that_finds_nothing_is_named(server: Hub, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"org/name at main: no file is like \*\.ggfu") as caught:
        pinned("  - {repo: org/name, files: ['*.ggfu', '*.gguf']}\n", cache)
    assert caught.value.code == Exit.SPEC
    assert "model-1.gguf" in caught.value.hint


def test_nothing_is_asked_of_anyone_once_everything_is_here(
    server: Hub, content: Content, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gated = True
    todo = pinned(GATED, cache)
    first = staged(todo, cache)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    server.seen.clear()
    assert staged(todo, cache) == first
    assert server.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_goes_to_the_hub_alone_and_is_kept_nowhere(
    server: Hub, content: Content, cache: Cache, tmp_path: Path, capfd: pytest.CaptureFixture[str], host: str
) -> None:
    """Another port is another host, and so is another name."""
    server.gated = True
    content.host = host
    todo = pinned(GATED, cache)
    assert todo.lock is not None
    lock.save(todo.lock, tmp_path / "x.lock")
    assert staged(todo, cache) == in_folder("org--name")
    assert {authorization for _, authorization, _ in server.seen} == {f"Bearer {TOKEN}"}
    assert [authorization for _, authorization, _ in content.seen] == [None, None]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert TOKEN not in "".join(capfd.readouterr())
    assert TOKEN not in repr(hub.item(lock.repo_of(todo.cluster.models[0]), OLD, "x", None, 1))
    assert "HF_TOKEN" not in (tmp_path / "x.lock").read_text()


def test_a_public_repository_gets_no_token(server: Hub, content: Content, cache: Cache) -> None:
    staged(pinned(ANY, cache), cache)
    assert {authorization for _, authorization, _ in server.seen} == {None}


REFUSALS = [
    ("gated, no token", ANY, None, "it is gated", "accept its terms"),
    ("gated, no access", GATED, "hf_stranger", "the token in HF_TOKEN has no access", "accept its terms"),
    ("bad token", GATED, "hf_made_up", "does not take the token in HF_TOKEN", "make a new token"),
    ("no token", GATED, "", "variable HF_TOKEN is not set", "export HF_TOKEN"),
    ("two lines", GATED, "hf_made\nup", "HF_TOKEN does not hold a token", "no spaces"),
    ("unknown", "  - repo: org/nmae\n", None, "or there is no such repository", "if the name is right"),
    ("unknown, token", "  - {repo: org/nmae, token_env: HF_TOKEN}\n", TOKEN, "no such repository", "`repo`"),
    ("revision", "  - {repo: org/name, revision: v9, token_env: HF_TOKEN}\n", TOKEN, "or tag v9", "`revision`"),
]


@pytest.mark.parametrize(
    ("text", "token", "said", "hint"), [one[1:] for one in REFUSALS], ids=[one[0] for one in REFUSALS]
)
def test_a_refusal_says_what_to_do(
    server: Hub,
    cache: Cache,
    text: str,
    token: str | None,
    said: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.gated = True
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BuilderError) as caught:
        pinned(text, cache)
    assert caught.value.code == Exit.FETCH
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert len(server.seen) <= 1  # asking again would not help
    assert not token or token.split("\n")[0] not in caught.value.message + caught.value.hint


def test_what_was_taken_from_the_hub_since_the_lock_is_named(server: Hub, cache: Cache) -> None:
    todo = pinned(ANY, cache)
    server.trees[OLD] = {path: data for path, data in FILES.items() if path != "model-1.gguf"}
    server.trees[OLD].pop("sub folder/twin.gguf")
    with pytest.raises(BuilderError, match=r"it has no file .*(model-1|twin)\.gguf any more") as caught:
        staged(todo, cache)
    assert "lock --update" in caught.value.hint


def test_a_token_never_goes_out_in_the_clear(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(BuilderError, match="HF_TOKEN would go over the network in the clear"):
        pinned(GATED, cache)


def test_an_endpoint_that_is_no_address_is_named(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example")
    with pytest.raises(BuilderError, match="HF_ENDPOINT holds a user or password") as caught:
        pinned(ANY, cache)
    assert "secret" not in caught.value.message


def test_a_hub_out_of_reach_is_named(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("builder.fetch.TRIES", 2)
    with pytest.raises(BuilderError, match=r"revision/main: .*refused \(2 tries\)") as caught:
        pinned(ANY, cache)
    assert caught.value.code == Exit.FETCH


BAD_NAMES = ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "", "a\\b", "a\nb", "a\x1b[2Jb", "x" * 300]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_out_of_its_folder_is_refused(
    server: Hub, cache: Cache, tmp_path: Path, name: str
) -> None:
    server.trees = {OLD: {**FILES, name: b"evil"}}
    with pytest.raises(
        BuilderError, match="the hub's list of org/name at main cannot be used: the name"
    ) as caught:
        pinned(ANY, cache)
    assert caught.value.code == Exit.FETCH
    assert "\n" not in caught.value.message and "\x1b" not in caught.value.message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


SIBLING = {"rfilename": "a", "size": 1, "blobId": "c" * 40}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "TypeError"),
        ({"sha": OLD}, "KeyError: 'siblings'"),
        ({"sha": "main", "siblings": []}, "'main' is not a commit"),
        ({"sha": OLD, "siblings": [SIBLING, SIBLING]}, "names a file twice"),
        ({"sha": OLD, "siblings": [SIBLING, {**SIBLING, "rfilename": "a/b"}]}, "a is both a file and a folder"),
        ({"sha": OLD, "siblings": [{"rfilename": "a", "size": 1}]}, "KeyError: 'blobId'"),
        ({"sha": OLD, "siblings": [{**SIBLING, "blobId": "../x"}]}, "a comes without a digest"),
        ({"sha": OLD, "siblings": [{**SIBLING, "lfs": {"sha256": "../x", "size": 1}}]}, "without a digest"),
        ({"sha": OLD, "siblings": [{**SIBLING, "size": None}]}, "a comes without a size"),
        ({"sha": OLD, "siblings": [{**SIBLING, "rfilename": 7}]}, "AttributeError"),
    ],
)
def test_an_answer_that_cannot_be_trusted(server: Hub, cache: Cache, answer: Any, said: str) -> None:
    server.listing = lambda _answer: answer
    with pytest.raises(BuilderError, match="cannot be used") as caught:
        pinned(ANY, cache)
    assert said in caught.value.message


def test_another_commit_than_the_one_asked_for_is_refused(server: Hub, cache: Cache) -> None:
    server.listing = lambda answer: {**answer, "sha": NEW}
    with pytest.raises(BuilderError, match=f"it answers for the commit {NEW}"):
        pinned(f"  - {{repo: org/name, revision: {OLD}}}\n", cache)


def test_a_small_file_is_held_to_git_s_digest(server: Hub, cache: Cache) -> None:
    def lie(answer: Any) -> Any:
        for entry in answer["siblings"]:
            if entry["rfilename"] == "config.json":
                entry["blobId"] = "d" * 40
        return answer

    server.listing = lie
    with pytest.raises(BuilderError, match=r"config\.json: wrong content") as caught:
        pinned(ANY, cache)
    assert "d" * 40 in caught.value.message
    assert not cache.blob(hashlib.sha256(FILES["config.json"]).hexdigest()).exists()


def test_weights_are_held_to_the_lock(server: Hub, content: Content, cache: Cache) -> None:
    todo = pinned(ANY, cache)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    content.bytes[digest] = WEIGHTS[:-1] + b"!"
    with pytest.raises(BuilderError, match="wrong content") as caught:
        staged(todo, cache)
    assert digest in caught.value.message
    assert not cache.blob(digest).exists()


def test_a_link_that_expired_is_asked_for_anew(server: Hub, content: Content, cache: Cache) -> None:
    """Links are good for minutes, so a 403 of the content network is not the hub's refusal."""
    todo = pinned(ANY, cache)
    content.expired = 2
    assert staged(todo, cache) == in_folder("org--name")


def test_a_download_may_be_cut_any_number_of_times(server: Hub, content: Content, cache: Cache) -> None:
    todo = pinned("  - {repo: org/name, files: [model-1.gguf]}\n", cache)
    content.cuts = TRIES + 2
    assert staged(todo, cache) == {"org--name/model-1.gguf": WEIGHTS}
    assert [wanted for _, _, wanted in content.seen] == [
        f"bytes={n << 16}-" if n else None for n in range(len(content.seen))
    ]
    assert len(content.seen) > TRIES


def test_from_the_hub_to_the_node(
    server: Hub, cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lock, payload, installer and the node's own check agree on every path."""
    todo = pinned(ANY, cache)
    layer = tmp_path / "layer"
    layer.write_bytes(b"layer")
    layers = {one.file: layer for one in todo.layers}
    gathered = payload.make(todo, layers, build.stage_models(todo, Path(), cache))
    medium, node = tmp_path / "medium", tmp_path / "node"
    for path, file in gathered.files.items():
        (medium / path).parent.mkdir(parents=True, exist_ok=True)
        (medium / path).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    manifest = installer_payload.parse_manifest(gathered.manifest_bytes)
    installer_payload.verify(medium, installer_payload.used_by(manifest, manifest.nodes[0]), lambda *_: None)
    system.models(node, medium, manifest, lambda *_: None)
    placed = node / "srv/models"
    assert {name: (placed / name).read_bytes() for name in in_folder("org--name")} == in_folder("org--name")

    script = Path(__file__).parents[2] / "overlays/site/rootfs/usr/lib/builder/verify-models"
    loader = importlib.machinery.SourceFileLoader("verify_models", str(script))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.MANIFEST, module.MODELS = tmp_path / "manifest.json", placed
    module.MANIFEST.write_bytes(gathered.manifest_bytes)
    assert module.main() == 0
    (placed / "org--name/sub folder/twin.gguf").chmod(0o644)
    (placed / "org--name/sub folder/twin.gguf").write_bytes(WEIGHTS[:-1] + b"!")
    assert module.main() == 1
    assert "org--name/sub folder/twin.gguf: damaged" in capsys.readouterr().out
