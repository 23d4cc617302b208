"""Images, compose file and Kubernetes files as far as they can be judged without an engine."""

import asyncio
import copy
import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiobotocore.session import get_session
from dask.config import get as read_config
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values
from processes import finished

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DOCKER / "kubernetes" / "wavecity.yaml").read_text("utf-8")))
TEMPLATES = {
    pool: json.loads((DOCKER / "kubernetes" / f"{pool}.json").read_text()) for pool in ("cpu-pool", "gpu-pool")
}


def pods() -> dict[str, dict[str, Any]]:
    found = {
        doc["metadata"]["name"]: doc["spec"]["template"]["spec"]
        for doc in MANIFESTS
        if "template" in doc.get("spec", {})
    }
    for pool, template in TEMPLATES.items():
        found[pool] = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    return found


def commands() -> list[list[str]]:
    """Every `prefect` and `dask` command of the files."""
    found = [
        service["command"] for service in SERVICES.values() if service.get("command", [""])[0] in ("prefect", "dask")
    ]
    script = SERVICES["setup"]["command"][-1].replace("$$", "$")
    found += [shlex.split(line) for line in re.findall(r"\bprefect [^>|;\n]+", script)]
    for pod in pods().values():
        arguments = pod["containers"][0]["args"]
        found += [arguments] if isinstance(arguments, list) else []
    found.append(json.loads(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]))
    return found


@pytest.mark.system
def test_the_dockerfile_is_clean() -> None:
    result = finished([BIN / "hadolint", DOCKER / "Dockerfile"])
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.system
def test_the_compose_file_fits_the_schema() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml"]
    result = finished(command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_package_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = set(re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE))
    sources = {word for line in copied for word in line.split()}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    # `wavecity`, whose links are copied as they are, and the folders that they lead to.
    packages = {part for package in project["tool"]["setuptools"]["packages"] for part in package.split(".")[:2]}
    needed = packages | {"pyproject.toml", "constraints.txt", "prefect.yaml", "README.md", "LICENSE"}
    assert needed <= sources
    # What is copied is let into the context, and is there.
    assert sources <= let_in
    assert all((ROOT / source).exists() for source in sources)
    entrypoints = {
        d["entrypoint"].split("/")[0] for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    }
    assert entrypoints <= packages


def test_the_images_take_the_tested_versions() -> None:
    installs = re.findall(r"pip install (.*?)(?:&&|;;|$)", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    packages = [line for line in installs if " -r " in line]
    assert len(packages) == 2  # torch for the CPU, and everything
    assert all("-c constraints.txt" in line for line in packages)
    assert all("--no-deps -e ." in line for line in installs if line not in packages)


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_confined(name: str) -> None:
    service = SERVICES[name]
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    # Pinned, and nothing listens beyond the machine. A host name of its own keeps the builder's lease honest.
    tag = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]).rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+", tag)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not {"hostname", "network_mode", "pid"} & service.keys()


def test_services_are_watched_and_wait_for_health() -> None:
    once = {name for name, service in SERVICES.items() if service.get("healthcheck", {}).get("disable")}
    assert once == {"setup"}
    assert all(SERVICES[name]["healthcheck"]["test"][0] == "CMD" for name in SERVICES.keys() - once)
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in once else "service_healthy"
            assert how == {"condition": expected}


def test_no_secret_is_in_the_files() -> None:
    secret = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|CONNECTION_URL|AUTH_STRING")
    given = {(name, key): value for name, service in SERVICES.items() for key, value in service["environment"].items()}
    for (_, key), value in given.items():
        if secret.search(key):
            assert re.search(r"\$\{\w+:\?[^}]+\}", value), key
    example = dict(re.findall(r"^(\w+)=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert not any(example.values())
    required = set(re.findall(r"\$\{(\w+):\?", (DOCKER / "compose.yaml").read_text()))
    assert required == set(example)
    assert {"docker/.env", "docker/s3/", "docker/tls/"} <= set((ROOT / ".gitignore").read_text().splitlines())
    assert not any(doc["kind"] == "Secret" for doc in MANIFESTS)


def test_the_environment_is_what_the_code_reads() -> None:
    from prefect.settings import get_current_settings

    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("flows/*.py"))
    read = set(re.findall(r"environ(?:\.get\(|\[)[\"'](WAVECITY_\w+)", code))
    read |= set(re.findall(r"^VARIABLE = \"(WAVECITY_\w+)\"", code, re.MULTILINE))
    read.remove("WAVECITY_EVENTS")  # off by default
    assert read >= {"WAVECITY_STORE", "WAVECITY_DASK", "WAVECITY_RUNS", "WAVECITY_MAPS"}
    # What botocore reads, and PostgreSQL's image.
    known = read | {
        "DO_NOT_TRACK",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
    }
    known |= {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"}
    settings = set(get_current_settings().to_environment_variables(exclude_unset=False))
    settings |= {"PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_SERVER_UI_STATIC_DIRECTORY", "PREFECT_API_URL"}
    settings |= {"PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"}  # secrets, which Prefect does not list
    given = {key for service in SERVICES.values() for key in service["environment"]}
    given |= next(doc for doc in MANIFESTS if doc["kind"] == "ConfigMap")["data"].keys()
    dask = {key for key in given if key.startswith("DASK_")}
    assert given - known - dask <= settings
    for key in dask:  # Dask takes any name, and reads those that it has
        assert read_config(key.removeprefix("DASK_").lower().replace("__", "."), default="none") != "none", key
    for name in ("cpu-worker", "gpu-worker", "dask-worker", "setup"):
        assert read <= SERVICES[name]["environment"].keys()
    # Everything that runs our code or Prefect's sends no telemetry.
    for name in SERVICES.keys() - {"postgres", "objects", "prometheus"}:
        assert SERVICES[name]["environment"]["DO_NOT_TRACK"] == "1"
        assert SERVICES[name]["environment"].get("PREFECT_SERVER_ANALYTICS_ENABLED", "false") == "false"


def test_addresses_name_services() -> None:
    for name, service in SERVICES.items():
        text = json.dumps([service.get("command"), service["environment"]])
        for host in re.findall(r"(?:http|tcp|tls)://([a-z-]+):\d|@([a-z-]+):\d", text):
            assert "".join(host) in SERVICES, name
    names = {doc["metadata"]["name"] for doc in MANIFESTS if doc["kind"] == "Service"}
    settings = next(doc for doc in MANIFESTS if doc["kind"] == "ConfigMap")["data"]
    for key in ("PREFECT_API_URL", "WAVECITY_DASK"):
        assert re.search(r"://([a-z-]+):", settings[key])[1] in names  # type: ignore[index]


def test_the_gpu_worker_has_the_gpus() -> None:
    worker = SERVICES["gpu-worker"]
    assert worker["profiles"] == ["gpu"]
    assert worker["build"]["args"] == {"FLAVOUR": "cuda"}
    assert worker["build"]["dockerfile"] == "docker/Dockerfile"
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    optional = {name: service["profiles"] for name, service in SERVICES.items() if service.get("profiles")}
    assert optional == {"gpu-worker": ["gpu"], "prometheus": ["metrics"]}


def subcommand(words: list[str]) -> tuple[str, ...]:
    """`prefect deploy` and Dask's are commands of one word, the others of two."""
    names = [word for word in words if word != "--no-prompt"]
    return tuple(names[: 2 if names[0] == "dask" or names[1] == "deploy" else 3])


@pytest.mark.system
@pytest.mark.parametrize("command", sorted({subcommand(words) for words in commands()}), ids=" ".join)
def test_commands_exist_with_their_options(command: tuple[str, ...]) -> None:
    result = finished([BIN / command[0], *command[1:], "--help"])
    assert result.returncode == 0, result.stdout + result.stderr
    options = {word for words in commands() if subcommand(words) == command for word in words if word.startswith("--")}
    for option in options - {"--no-prompt"}:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", result.stdout), option


@pytest.mark.parametrize("pool", TEMPLATES)
def test_prefect_accepts_the_job_template(pool: str) -> None:
    template = TEMPLATES[pool]
    WorkPoolCreate(name=pool, type="kubernetes", base_job_template=template)
    undeclared = {**template, "variables": {"type": "object", "properties": {"image": {}}}}
    with pytest.raises(ValueError, match="undeclared"):
        WorkPoolCreate(name=pool, type="kubernetes", base_job_template=undeclared)
    container = pods()[pool]["containers"][0]
    assert container["args"] == "{{ command }}"
    limits = container["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (pool == "gpu-pool")
    image = template["variables"]["properties"]["image"]["default"]
    assert image.endswith("-cuda" if pool == "gpu-pool" else "-cpu")


@pytest.mark.system
@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_manifests_and_jobs_fit_the_schema_of_kubernetes(version: str) -> None:
    """Strictly: a key that Kubernetes does not know is an error."""
    judge = pytest.importorskip("kubernetes_validate")
    jobs = []
    for template in TEMPLATES.values():
        given = {name: variable.get("default") for name, variable in template["variables"]["properties"].items()}
        given |= {"command": ["prefect", "flow-run", "execute"], "name": "run", "labels": {}, "annotations": {}}
        given["env"] = [{"name": "PREFECT__FLOW_RUN_ID", "value": "1"}]  # as prefect-kubernetes writes it
        jobs.append(apply_values(template["job_configuration"], given)["job_manifest"])
    for document in MANIFESTS + jobs:
        judge.validate(document, version, strict=True)
    (worker,) = (
        each for each in MANIFESTS if each["metadata"]["name"] == "dask-worker" and each["kind"] == "Deployment"
    )
    worker = copy.deepcopy(worker)
    worker["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(judge.ValidationError, match="volumeMount"):
        judge.validate(worker, version, strict=True)


@pytest.mark.parametrize("name", pods())
def test_pods_are_confined(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert re.search(r":\d+\.\d+|^\{\{", container["image"])
    # What is mounted is there, and the root is read-only: /tmp must be mounted.
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert "/tmp" in mounts.values()
    claims = {doc["metadata"]["name"] for doc in MANIFESTS if doc["kind"] == "PersistentVolumeClaim"}
    wanted = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert wanted <= claims


def test_prefect_asks_for_a_password_and_dask_for_a_certificate() -> None:
    """On in both sets of files: who connects has what the server wants."""
    secret = "${PREFECT_AUTH_STRING:?set it in docker/.env}"
    assert SERVICES["prefect-server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"] == secret
    clients = {name for name, service in SERVICES.items() if "PREFECT_API_URL" in service["environment"]}
    assert clients >= {"setup", "cpu-worker", "gpu-worker"}
    assert {SERVICES[name]["environment"].get("PREFECT_API_AUTH_STRING") for name in clients} == {secret}
    (settings,) = (doc["data"] for doc in MANIFESTS if doc["kind"] == "ConfigMap")
    containers = {name: pod["containers"][0] for name, pod in pods().items()}
    server = {entry["name"]: entry for entry in containers["prefect-server"]["env"]}
    assert server["PREFECT_SERVER_API_AUTH_STRING"]["valueFrom"]["secretKeyRef"]["name"] == "wavecity-prefect"
    for name in ("wavecity-deploy", "cpu-worker", "gpu-worker", "cpu-pool", "gpu-pool"):
        assert {"secretRef": {"name": "wavecity-prefect"}} in containers[name]["envFrom"], name

    roles = {"scheduler": "dask-scheduler", "worker": "dask-worker", "client": "cpu-worker"}
    for role, name in roles.items():
        for given in (SERVICES[name]["environment"], settings):
            assert given["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
            folder = "/run/secrets" if given is not settings else "/run/secrets/wavecity-dask"
            tls = "DASK_DISTRIBUTED__COMM__TLS__"
            wanted = (f"{folder}/dask.pem", f"{folder}/dask.pem", f"{folder}/dask.key")
            assert (
                tuple(given[tls + key] for key in ("CA_FILE", f"{role.upper()}__CERT", f"{role.upper()}__KEY"))
                == wanted
            )
    for name in ("dask-scheduler", "dask-worker", "cpu-worker", "gpu-worker"):
        assert SERVICES[name]["secrets"][:2] == ["dask.pem", "dask.key"]
    for name in ("dask-scheduler", "dask-worker", "cpu-pool", "gpu-pool"):
        mounts = {mount["name"]: mount["mountPath"] for mount in containers[name]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pods()[name]["volumes"]}
        assert mounts["dask"] == "/run/secrets/wavecity-dask"
        assert volumes["dask"]["secret"] == {"secretName": "wavecity-dask"}
    assert all("tcp://" not in json.dumps(part) for part in (COMPOSE, MANIFESTS))


def test_the_credentials_of_the_store_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the store and for who opens it; in no environment, where `docker inspect` would show them."""
    folder = tmp_path / "s3"
    made = finished([DOCKER / "s3.sh", folder])
    assert made.returncode == 0, made.stderr
    assert folder.stat().st_mode & 0o077 == 0
    (identity,) = json.loads((folder / "identities.json").read_text())["identities"]
    (pair,) = identity["credentials"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    found = asyncio.run(get_session().get_credentials())  # as s3fs does
    assert (found.access_key, found.secret_key) == (pair["accessKey"], pair["secretKey"])
    assert len(pair["secretKey"]) == 48

    again = finished([DOCKER / "s3.sh", folder])
    assert again.returncode == 2
    assert pair["secretKey"] in (folder / "credentials").read_text()

    secrets = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert secrets["s3-credentials"] == "./s3/credentials"
    assert secrets["s3-identities.json"] == "./s3/identities.json"
    readers = {name for name, service in SERVICES.items() if "AWS_ENDPOINT_URL" in service["environment"]}
    assert readers == {"setup", "cpu-worker", "gpu-worker", "dask-worker"}
    for name in readers:
        assert SERVICES[name]["environment"]["AWS_SHARED_CREDENTIALS_FILE"] == "/run/secrets/s3-credentials"
        assert "s3-credentials" in SERVICES[name]["secrets"]
    assert SERVICES["objects"]["secrets"] == ["s3-identities.json"]
    assert "-s3.config=/run/secrets/s3-identities.json" in SERVICES["objects"]["command"]


def test_network_policies_let_in_who_connects_and_nobody_else() -> None:
    policies = {doc["metadata"]["name"]: doc["spec"] for doc in MANIFESTS if doc["kind"] == "NetworkPolicy"}
    closed = policies.pop("nothing-comes-in")
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress"]}
    labels = {
        doc["metadata"]["name"]: doc["spec"]["template"]["metadata"]["labels"]["app"]
        for doc in MANIFESTS
        if "template" in doc.get("spec", {})
    }
    for template in TEMPLATES.values():
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]
        assert pod["metadata"]["labels"] == {"app": "wavecity-run"}
    may = {}
    for name, policy in policies.items():
        assert policy["podSelector"] == {"matchLabels": {"app": labels[name]}}
        (rule,) = policy["ingress"]
        (peer,) = rule["from"]
        (expression,) = peer["podSelector"]["matchExpressions"]
        assert set(expression["values"]) <= {*labels.values(), "wavecity-run"}
        may[name] = set(expression["values"]), [port["port"] for port in rule.get("ports", [])]
    # Those that the environment sends to Prefect or Dask, and Dask's parts to each other.
    assert may == {
        "prefect-server": ({"cpu-worker", "gpu-worker", "wavecity-deploy", "wavecity-run"}, [4200]),
        "dask-scheduler": ({"dask-worker", "wavecity-run"}, [8786]),
        "dask-worker": ({"dask-scheduler", "dask-worker", "wavecity-run"}, []),
    }


@pytest.mark.system
def test_systemd_accepts_the_unit_of_the_docs(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze in PATH")
    page = (ROOT / "docs" / "operations" / "deploy.md").read_text(encoding="utf-8")
    (unit,) = re.findall(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    name, text = unit
    program = "/srv/wavecity/.venv/bin/prefect"
    assert f"ExecStart={program} worker start " in text
    file = tmp_path / name
    file.write_text(text.replace(program, str(BIN / "prefect")))
    checked = finished(["systemd-analyze", "verify", "--man=no", file])
    assert (checked.returncode, checked.stderr) == (0, "")
    # An unknown key is no error of its own.
    file.write_text(file.read_text().replace("Restart=", "Restrt="))
    assert "Restrt" in finished(["systemd-analyze", "verify", "--man=no", file]).stderr
    # All processes are asked to end: the run, and its watcher that reports it.
    assert "KillMode" not in text
    words = shlex.split(text.partition("ExecStart=")[2].splitlines()[0])
    assert words[1:] == SERVICES["cpu-worker"]["command"][1:]
