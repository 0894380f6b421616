"""docker-compose.yml and Dockerfile, checked without Docker: shape, references, secrets, settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DURATION = r"^([0-9]+(us|ms|s|m|h))+$"
STRINGS = {"type": "array", "items": {"type": "string"}}
# The part of the Compose specification that the file uses; whatever is not listed is an error.
SCHEMA = {
    "type": "object",
    "required": ["services"],
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": {"$ref": "#/$defs/service"}},
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
    },
    "$defs": {
        "service": {
            "type": "object",
            "additionalProperties": False,
            "required": ["image"],
            "properties": {
                "image": {"type": "string"},
                "build": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"context": {"type": "string"}, "target": {"type": "string"}},
                },
                "command": STRINGS,
                "environment": {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "number", "null"]},
                },
                "ports": STRINGS,
                "volumes": STRINGS,
                "profiles": {**STRINGS, "uniqueItems": True},
                "init": {"type": "boolean"},
                "restart": {"pattern": "^(no|always|on-failure(:[0-9]+)?|unless-stopped)$", "type": "string"},
                "shm_size": {"type": "string", "pattern": "^[0-9]+(b|k|m|g|kb|mb|gb)$"},
                "stop_grace_period": {"type": "string", "pattern": DURATION},
                "depends_on": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["condition"],
                        "properties": {
                            "condition": {
                                "enum": [
                                    "service_started",
                                    "service_healthy",
                                    "service_completed_successfully",
                                ]
                            }
                        },
                    },
                },
                "healthcheck": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["test"],
                    "properties": {
                        "test": {**STRINGS, "minItems": 2},
                        "interval": {"type": "string", "pattern": DURATION},
                        "timeout": {"type": "string", "pattern": DURATION},
                        "start_period": {"type": "string", "pattern": DURATION},
                        "retries": {"type": "integer", "minimum": 1},
                    },
                },
                "deploy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"resources": {"$ref": "#/$defs/resources"}},
                },
            },
        },
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "reservations": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "devices": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["capabilities"],
                                "properties": {
                                    "driver": {"type": "string"},
                                    "count": {"type": ["integer", "string"]},
                                    "capabilities": STRINGS,
                                },
                            },
                        }
                    },
                }
            },
        },
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file with its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_it_has_the_shape_of_the_specification(compose: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(compose)


def test_the_services_are_those_of_the_documentation(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles", []) for name, service in compose["services"].items()}
    assert profiles == {
        "postgres": [],
        "redis": [],
        "migrate": [],
        "api": [],
        "worker-cpu": [],
        "worker-train": ["cpu"],
        "worker-gpu": ["gpu"],
    }


def test_every_dependency_can_be_met(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for name, wish in service.get("depends_on", {}).items():
            needed = services[name]
            assert not needed.get("profiles")
            if wish["condition"] == "service_healthy":
                assert needed["healthcheck"]
            if wish["condition"] == "service_completed_successfully":
                assert needed["restart"] == "no"


def test_everything_that_stays_up_is_watched_and_started_again(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name != "migrate":
            assert service["restart"] == "unless-stopped", name
            assert "test" in service["healthcheck"], name


def test_named_volumes_are_declared_and_each_is_used(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    assert {mount.split(":")[0] for mount in mounts} == set(compose["volumes"])


def test_api_and_workers_share_one_home_and_the_same_servers(compose: dict[str, Any]) -> None:
    ours = [
        compose["services"][name] for name in ("migrate", "api", "worker-cpu", "worker-train", "worker-gpu")
    ]
    assert all(service["environment"] == ours[0]["environment"] for service in ours)
    assert all(service["volumes"] == ours[0]["volumes"] for service in ours)
    home = ours[0]["environment"]["DEFT_HOME"]
    assert f"home:{home}" in ours[0]["volumes"]


def test_every_setting_it_sets_exists(compose: dict[str, Any]) -> None:
    known = {f"DEFT_{name.upper()}" for name in Settings.model_fields}
    for service in compose["services"].values():
        assert {name for name in service["environment"] if name.startswith("DEFT_")} <= known


def test_no_secret_stands_in_the_file_and_each_variable_in_the_example(compose: dict[str, Any]) -> None:
    text = "\n".join(
        line for line in (ROOT / "docker-compose.yml").read_text().splitlines() if not line.startswith("#")
    )
    example = {
        line.split("=")[0]: line.split("=", 1)[1]
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    }
    variables = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
    assert variables <= set(example)
    for name in variables:
        if name.endswith("PASSWORD"):
            assert example[name] == ""
            assert not re.search(rf"\$\{{{name}(?!:\?)", text), f"{name} must have no default"


def test_only_the_api_is_published_and_on_loopback(compose: dict[str, Any]) -> None:
    published = {
        name: service["ports"] for name, service in compose["services"].items() if "ports" in service
    }
    assert published == {"api": ["${DEFT_PUBLISH:-127.0.0.1:8000}:8000"]}


def test_targets_exist_and_the_api_image_has_no_engine(compose: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", dockerfile, flags=re.M | re.S))
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == {"api", "worker", "gpu"}
    assert targets <= set(stages)
    assert "torch" not in stages["api"]
    assert "engine" not in stages["api"]
    for target in targets:
        assert "USER deft" in stages[target]


def test_what_the_images_copy_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), flags=re.M)
    assert packages is not None
    assert set(shlex.split(packages.group(1).replace(",", " "))) <= kept
    assert all((ROOT / name).exists() for name in kept)
