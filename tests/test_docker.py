"""The Dockerfile and compose file, checked without an engine: syntax, files, users, commands."""

import json
import re
import subprocess

import pytest
from documented import ROOT, parse_command

KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN"}
KNOWN |= {"USER", "WORKDIR"}


@pytest.fixture(scope="module")
def steps():
    dockerfile_parse = pytest.importorskip("dockerfile_parse")
    parser = dockerfile_parse.DockerfileParser(path=str(ROOT / "Dockerfile"))
    return [s for s in parser.structure if s["instruction"] != "COMMENT"]


@pytest.fixture(scope="module")
def compose():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def values(steps, instruction):
    return [step["value"] for step in steps if step["instruction"] == instruction]


def test_instructions_are_known_and_begin_with_a_fixed_image(steps):
    assert {step["instruction"] for step in steps} <= KNOWN
    assert [step["instruction"] for step in steps][:2] == ["ARG", "FROM"]
    for image in values(steps, "FROM"):
        assert re.match(r"python:\$\{PYTHON\}-slim( AS \w+)?$", image)


def test_every_run_step_is_valid_shell(steps):
    runs = values(steps, "RUN")
    assert runs
    for run in runs:
        done = subprocess.run(["sh", "-n", "-c", run], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{run}: {done.stderr}"


def test_what_is_copied_is_there_and_not_ignored(steps):
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    for value in values(steps, "COPY"):
        if value.startswith("--from="):
            continue
        *sources, _ = value.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source
    assert "*" in ignored


def test_the_extras_and_the_torch_pin_exist(steps):
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = [
        re.search(r'EXTRAS="([^"]+)"', v)[1] for v in values(steps, "ARG") if "EXTRAS" in v
    ]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^torch==", constraints, re.MULTILINE)) == 1


def test_the_last_stage_has_a_user_without_rights_and_the_built_environment(steps):
    order = [step["instruction"] for step in steps]
    last = steps[len(order) - 1 - order[::-1].index("FROM") :]
    assert values(last, "USER") == ["ibllm"]
    kinds = [step["instruction"] for step in last]
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind == "RUN")
    assert "--from=build /opt/ibllm /opt/ibllm" in values(last, "COPY")
    assert any("/opt/ibllm/bin" in value for value in values(last, "ENV"))


def test_commands_are_lists_that_the_program_takes(steps):
    assert json.loads(values(steps, "ENTRYPOINT")[0]) == ["ibllm"]
    asked = json.loads(values(steps, "CMD")[0])
    assert parse_command(asked)["host"] == "0.0.0.0"
    (check,) = values(steps, "HEALTHCHECK")
    program = json.loads(check.partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    compile(program[2], "healthcheck", "exec")
    assert f":{parse_command(asked)['port']}/health" in program[2]
    assert values(steps, "EXPOSE") == [str(parse_command(asked)["port"])]


def test_compose_services_are_whole(compose):
    services, volumes = compose["services"], compose["volumes"]
    for name, service in services.items():
        assert "image" in service, name
        for other in service.get("depends_on", {}):
            assert "healthcheck" in services[other], f"{name} waits for {other}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith(".") or source in volumes, volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to others: {port}"
        if command := service.get("command"):
            parse_command(command)


def test_no_secret_has_a_default(compose):
    told = json.dumps(compose)
    secrets = re.findall(r"\$\{(\w*(?:KEY|PASSWORD)\w*)([^}]*)\}", told)
    assert {name for name, _ in secrets} == {"IBLLM_API_KEY", "POSTGRES_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in secrets)


def test_the_threads_database_is_the_one_that_is_made(compose):
    chat, database = (compose["services"][name] for name in ("chat", "threads"))
    url = re.sub(r"\$\{[^}]*\}", "secret", chat["environment"]["IBLLM_THREADS"])
    made = database["environment"]
    user, name = made["POSTGRES_USER"], made["POSTGRES_DB"]
    assert url == f"postgresql://{user}:secret@threads/{name}"
    assert f"-U {user} -d {name}" in " ".join(database["healthcheck"]["test"])
