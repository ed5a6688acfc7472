"""What lies in deploy/ and the release workflow: as far as it can be held to rules without running it."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from salema.runtime.serve.cli import app

ROOT = Path(__file__).parents[1]
IMAGES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def instructions(path):
    """The Dockerfile's instructions, each with its continuation lines joined to it."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    return [line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def stages(path):
    """The instructions of each stage, by its base image."""
    found = []
    for name, rest in instructions(path):
        if name == "FROM":
            found.append((rest.split(" AS ")[0], []))
        elif found:
            found[-1][1].append((name, rest))
    return found


def test_there_is_an_image_for_each_kind_of_machine():
    assert [path.name.removesuffix(".Dockerfile") for path in IMAGES] == ["cpu", "cuda", "jetson"]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    ran = subprocess.run([Path(sys.executable).with_name("hadolint"), path], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_has_a_version_no_root_and_both_commands(path):
    told = [rest for name, rest in instructions(path) if name == "ARG" and "=" in rest]
    defaults = dict(one.split("=") for one in told)
    for base, _ in stages(path):
        image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], base)
        assert re.fullmatch(r"[\w./-]+:[\w.]*\d[\w.-]*", image), image
    last = stages(path)[-1][1]
    assert ("USER", "10001:10001") in last
    assert not any(name in {"RUN", "COPY", "ADD"} for name, _ in last[last.index(("USER", "10001:10001")) :])
    assert not any(name == "ENTRYPOINT" for name, _ in last)  # the command's name is given: salema-run, salema-serve
    assert any(name == "ENV" and "PATH=/opt/salema/bin:" in rest for name, rest in last)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_installs_extras_that_exist(path):
    named = re.findall(r"'\.\[([\w,-]+)\]'", path.read_text("utf-8"))
    assert named
    for extra in {extra for names in named for extra in names.split(",")}:
        assert re.search(rf"(?m)^{extra} = \[", PROJECT), extra


def test_an_image_is_built_of_the_packages_and_nothing_else():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    folders = set(re.findall(r'"salema\.\w+" = "(\w+)"', PROJECT))
    assert kept - folders == {"constraints.txt", "LICENSE", "MANIFEST.in", "pyproject.toml", "README.md"}
    assert folders <= kept


def test_the_unit_gives_the_camera_little():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "deploy/salema-serve.service", "utf-8")
    service = unit["Service"]
    wanted = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "CapabilityBoundingSet": "",
        "DevicePolicy": "closed",
        "Restart": "always",
    }
    assert {name: service[name] for name in wanted} == wanted
    assert service["MemoryMax"]
    assert "WatchdogSec" not in service
    assert "--token-file ${CREDENTIALS_DIRECTORY}/token" in service["ExecStart"]
    assert service["LoadCredential"].startswith("token:")
    known = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
    assert set(re.findall(r"--[\w-]+", service["ExecStart"])) <= known


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_versions_of_what_it_uses(path):
    workflow = yaml.safe_load(path.read_text("utf-8"))
    jobs = [job for job in workflow["jobs"].values() if "steps" in job]  # others are whole workflows
    used = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step]
    assert used
    for action in used:
        assert re.search(r"@(v\d+(\.\d+)*|[0-9a-f]{40})$", action), action
    assert all(job["timeout-minutes"] for job in jobs)


def test_a_release_may_do_no_more_than_it_does():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "tests": {"contents": "read"},
        "wheel": {"contents": "read"},
        "pypi": {"id-token": "write"},
        "image": {"contents": "read", "packages": "write"},
    }
    assert workflow["jobs"]["tests"]["uses"] == "./.github/workflows/ci.yml"
    assert {name: job.get("needs") for name, job in workflow["jobs"].items()} == {
        "tests": None,
        "wheel": "tests",
        "pypi": "wheel",
        "image": "wheel",
    }
    built = {f"{name}.Dockerfile" for name in workflow["jobs"]["image"]["strategy"]["matrix"]["for"]}
    assert built <= {path.name for path in IMAGES}
