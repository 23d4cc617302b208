"""Prefect's API without a password and Dask without a certificate refuse, set up as in the compose file."""

import base64
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import dask
import pytest
import yaml
from command import wavecity_process
from distributed import Client
from processes import finished, process, python, wait_until
from servers import DASK, ROOT, ask

from wavecity.flows.bench.prefect_server import free_port, prefect_server
from wavecity.flows.cluster import compute
from wavecity.geo.errors import InputError

pytestmark = pytest.mark.system

# A client that does not connect leaves itself as the default scheduler, which the end of a setting undoes.
DEFAULT = {"scheduler": None}
PASSWORD = "wavecity:of-a-test"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Environment that reaches a server with a password, which the environment lacks."""
    assert "PREFECT_SERVER_API_AUTH_STRING" in COMPOSE["prefect-server"]["environment"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_API_AUTH_STRING", PASSWORD)
        stack = ExitStack()
        environment = stack.enter_context(prefect_server(tmp_path))
    with stack:
        yield {key: value for key, value in environment.items() if key != "PREFECT_SERVER_API_AUTH_STRING"}


def status(url: str, password: str = "") -> int:
    """Status of a request for all flows."""
    headers = {"Content-Type": "application/json"}
    if password:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    request = urllib.request.Request(f"{url}/flows/filter", b"{}", headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


SECRETS = """
import sys
from prefect.blocks.system import Secret
for name in ("key-id", "secret-key"):
    Secret(value=f"value of {name}").save(f"wavecity-s3-{name}")
"""


def test_prefects_api_refuses_who_has_no_password(server: dict[str, str], tmp_path: Path) -> None:
    url = server["PREFECT_API_URL"]
    assert status(url) == status(url, "wavecity:wrong") == 401
    assert status(url, PASSWORD) == 200
    # The probes of compose file and manifests have none.
    urllib.request.urlopen(f"{url}/health", timeout=60).close()
    refused = wavecity_process("build", "quickstart", "--out", tmp_path / "store", **server)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"wavecity: PREFECT_API_URL={url}: this server asks for a password: set PREFECT_API_AUTH_STRING to its USER:PASSWORD"
    )
    assert not (tmp_path / "store").exists()

    # S3 credentials as Secret blocks: the template of a pool names them, and a worker puts their values into a run.
    granted = {**server, "PREFECT_API_AUTH_STRING": PASSWORD}
    python(SECRETS, env=granted)
    prefect = Path(sys.executable).with_name("prefect")
    template = ["--type", "process", "--base-job-template", "docker/s3-pool.json"]
    made = finished([prefect, "work-pool", "create", "s3-pool", *template], env=granted, cwd=ROOT)
    assert made.returncode == 0, made.stdout + made.stderr
    found = python(RUN_OF_POOL, env=granted)
    assert found == "value of key-id, value of secret-key"
    kept = ask(granted, "work_pools/s3-pool")["base_job_template"]
    assert "value of" not in json.dumps(kept)


RUN_OF_POOL = """
import asyncio
from prefect import get_client
from prefect.workers.process import ProcessJobConfiguration

async def main():
    async with get_client() as client:
        template = (await client.read_work_pool("s3-pool")).base_job_template
    found = await ProcessJobConfiguration.from_template_and_values(template, {})
    print(found.env["AWS_ACCESS_KEY_ID"], found.env["AWS_SECRET_ACCESS_KEY"], sep=", ")

asyncio.run(main())
"""


@contextmanager
def tls_cluster(folder: Path) -> Iterator[str]:
    """Dask's scheduler and a worker with the commands and environment of the compose file; its address."""
    made = finished([ROOT / "docker" / "certificate.sh", folder / "tls"])
    assert made.returncode == 0, made.stderr
    given: dict[str, str] = COMPOSE["dask-scheduler"]["environment"]
    environment = os.environ | {key: value.replace("/run/secrets", str(folder / "tls")) for key, value in given.items()}
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    ours = {
        "0.0.0.0": "127.0.0.1",
        "8786": str(port),
        ":8787": ":0",
        ":8788": ":0",
        "tls://dask-scheduler:8786": address,
    }
    with ExitStack() as stack:
        for name in ("dask-scheduler", "dask-worker"):
            words = [ours.get(word, word) for word in COMPOSE[name]["command"][1:]]
            words = [str(folder / "dask") if word == "/tmp/dask" else word for word in words]
            stack.enter_context(process([DASK, *words], folder / f"{name}.log", environment, folder))
        yield address


def settings_of(folder: Path) -> dict[str, str]:
    """Dask's settings of a client with the certificate in a folder."""
    tls = "distributed.comm.tls"
    return {
        f"{tls}.ca-file": str(folder / "dask.pem"),
        f"{tls}.client.cert": str(folder / "dask.pem"),
        f"{tls}.client.key": str(folder / "dask.key"),
    }


def test_dask_refuses_who_has_no_certificate(tmp_path: Path) -> None:
    with tls_cluster(tmp_path) as address:
        with dask.config.set(settings_of(tmp_path / "tls")):
            with compute(address=address) as client:
                assert client.submit(sum, [1, 2]).result(timeout=120) == 3
                worker = next(iter(client.nthreads()))
            assert worker.startswith("tls://")
        needs = r"^--dask tls://.*: TLS needs a certificate: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE"
        with pytest.raises(InputError, match=needs):
            compute(address=address).__enter__()
        # A certificate of one's own is none, even of one who knows the scheduler's; without TLS nobody is understood.
        other = finished([ROOT / "docker" / "certificate.sh", tmp_path / "other"])
        assert other.returncode == 0, other.stderr
        stranger = {
            **settings_of(tmp_path / "other"),
            "distributed.comm.tls.ca-file": str(tmp_path / "tls" / "dask.pem"),
        }
        refused = r"(?i)tls|timed out|reset|closed"
        with dask.config.set(stranger | DEFAULT), pytest.raises(OSError, match=refused):
            Client(address, timeout=5)
        for plain in (address, worker):
            with dask.config.set(DEFAULT), pytest.raises(OSError, match=refused):
                Client(plain.replace("tls://", "tcp://"), timeout=5)
        key = tmp_path / "tls"
        assert key.stat().st_mode & 0o077 == 0


def test_local_workers_use_the_certificate_where_encryption_is_required(tmp_path: Path) -> None:
    """As in a container of the compose file whose run asks for workers of its own."""
    made = finished([ROOT / "docker" / "certificate.sh", tmp_path])
    assert made.returncode == 0, made.stderr
    tls = {**settings_of(tmp_path), "distributed.comm.require-encryption": True}
    for role in ("scheduler", "worker"):
        tls[f"distributed.comm.tls.{role}.cert"] = str(tmp_path / "dask.pem")
        tls[f"distributed.comm.tls.{role}.key"] = str(tmp_path / "dask.key")
    with dask.config.set(tls), compute(workers=1) as client:
        wait_until(client.nthreads, 120)
        assert next(iter(client.nthreads())).startswith("tls://")
