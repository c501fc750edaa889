"""docker/: linted, valid by the published schemas, and its entry points run, without an engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.auth import PROBES
from service.settings import Settings
from studies.client import Client
from tests.harness.process import ROOT, free_port, wait_for

DOCKER = ROOT / "docker"
PROGRAMS = Path(sys.executable).parent
IMAGES = {name: DOCKER / f"{name}.Dockerfile" for name in ("service", "trainer")}
OURS = {f"LMTUNE_{name.upper()}" for name in Settings.model_fields} | {
    "LMTUNE_TOKEN",
    "LMTUNE_TOKEN_FILE",
}


class Image:
    """What a Dockerfile says of the process that it starts."""

    def __init__(self, file: Path) -> None:
        text = re.sub(r"\\\n\s*", " ", file.read_text())
        said = [line.split(" ", 1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
        self.said = dict(said)  # of an instruction given twice, the last
        words = shlex.split(self.said["ENV"])
        self.env = dict(word.split("=", 1) for word in words)
        self.entry: list[str] = json.loads(self.said["ENTRYPOINT"])

    @property
    def check(self) -> list[str]:
        """The health check's command."""
        return json.loads(self.said["HEALTHCHECK"].split("CMD ", 1)[1])


@pytest.fixture
def volume() -> Iterator[Path]:
    """An empty folder that belongs to the image's user, where we may give it away."""
    folder = Path(tempfile.mkdtemp(prefix="lmtune-docker-"))
    if os.getuid() == 0:
        os.chown(folder, 10001, 10001)
    yield folder
    shutil.rmtree(folder)


def unprivileged() -> dict[str, Any]:
    """The image's user, if we may become it and it may read our files; else ourselves."""
    if os.getuid() != 0:
        return {}
    other = {"user": 10001, "group": 10001, "extra_groups": []}
    try:
        code = [sys.executable, "-c", "import service, trainer"]
        subprocess.run(code, cwd=ROOT, check=True, capture_output=True, **other)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return other


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit status after SIGTERM, on a busy machine."""
    process.terminate()
    return process.wait(150)


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_finds_nothing(name: str) -> None:
    done = subprocess.run(
        [PROGRAMS / "hadolint", IMAGES[name]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_numbered_user_in_exec_form(name: str) -> None:
    image = Image(IMAGES[name])
    assert image.said["USER"] == "10001"
    assert image.said["STOPSIGNAL"] == "SIGTERM"
    assert "HEALTHCHECK" in image.said
    assert {key for key in image.env if key.startswith("LMTUNE_")} <= OURS


def test_compose_is_valid_and_sets_what_there_is() -> None:
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, DOCKER / "compose.yaml"], check=True, capture_output=True)
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    for service in services.values():
        environment = service.get("environment", {})
        assert {key for key in environment if key.startswith("LMTUNE_")} <= OURS
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
            assert service["read_only"]


def test_each_gpu_of_compose_has_a_service_of_its_own() -> None:
    """An engine counts from the first GPU for each container: a count gives all the same."""
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    asked = [
        device
        for service in services.values()
        for device in service.get("deploy", {})
        .get("resources", {})
        .get("reservations", {})
        .get("devices", [])
    ]
    numbers = [number for device in asked for number in device["device_ids"]]
    assert numbers == ["0", "1"]
    assert not any("count" in device for device in asked)


def manifests() -> list[dict[str, Any]]:
    files = sorted((DOCKER / "kubernetes").glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def test_kubernetes_manifests_are_valid() -> None:
    for document in manifests():
        kubernetes_validate.validate(document, "1.37", strict=True)
    wrong = next(document for document in manifests() if document["kind"] == "Deployment")
    wrong["spec"]["replicaz"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_kubernetes_manifests_fit_the_images_and_each_other() -> None:
    for document in manifests():
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert str(pod["securityContext"]["runAsUser"]) == Image(IMAGES["service"]).said["USER"]
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {key["name"] for key in container["env"]} <= OURS
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["securityContext"]["readOnlyRootFilesystem"]
            probes = [said for key, said in container.items() if key.endswith("Probe")]
            assert {probe["httpGet"]["path"] for probe in probes} <= PROBES  # without our name


@pytest.mark.slow
def test_the_entry_points_run_as_the_images_start_them(volume: Path) -> None:
    """The server is healthy while it runs and not before or after; compose's worker joins it."""
    service, trainer = Image(IMAGES["service"]), Image(IMAGES["trainer"])
    user, port = unprivileged(), free_port()
    base = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "LMTUNE_HOME": str(volume)}
    env = {**service.env, **base, "LMTUNE_PORT": str(port)}

    def healthy() -> bool:
        done = subprocess.run(service.check, env=env, cwd=volume, capture_output=True, **user)
        return done.returncode == 0

    assert not healthy()
    with (volume / "log").open("wb") as log:
        server = subprocess.Popen(
            service.entry, env=env, cwd=volume, stdout=log, stderr=log, **user
        )
        wait_for(healthy, 120, "healthy server")
        compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["worker-cpu"]
        where = f"127.0.0.1:{port}"
        arguments = [word.replace("server:8080", where) for word in compose["command"]]
        token = {"LMTUNE_TOKEN_FILE": str(volume / "token"), "LMTUNE_HOME": str(volume / "worker")}
        worker = subprocess.Popen(
            [*trainer.entry, *arguments],
            env={**trainer.env, **base, **token},
            cwd=volume, stdout=log, stderr=log, **user,
        )  # fmt: skip
        try:
            client = Client(f"http://{where}", (volume / "token").read_text().strip())
            wait_for(client.workers, 120, "worker")
            client.http.close()
        finally:
            codes = [ended(process) for process in (worker, server)]  # as compose does
    assert codes == [0, 0], (volume / "log").read_text()
    assert not healthy()
