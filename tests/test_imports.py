"""The package's names, its lean import, and the one way that its imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ibllm_tools

PACKAGE = Path(ibllm_tools.__file__).parent
# A module may import from its own stage and from stages before it.
STAGES = [
    {"errors", "checkpoints"},
    {"media"},
    {"preprocess"},
    {"encoder"},
    {"mix", "cache"},
    {"bind", "injection"},
    {"llm"},
    {"model"},
    {"convert"},
    {"data"},
    {"routing"},
    {"train"},
    {"decoding"},
    {"grammar"},
    {"engine"},
    {"chat_models", "embeddings"},
    {"vectorstores"},
    {"retrievers"},
    {"experts"},
    {"attachments"},
    {"toolkit"},
    {"media_agent"},
    {"agent_graphs"},
    {"serving", "mcp_server", "terminal", "ui"},
    {"evaluate"},
    {"demo", "demo_picture", "doctor"},
    {"cli"},
]
STAGE_OF = {name: index for index, stage in enumerate(STAGES) for name in stage}


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_sorted_and_importable():
    assert sorted(ibllm_tools.__all__) == ibllm_tools.__all__
    assert set(ibllm_tools.__all__) <= set(dir(ibllm_tools))
    for name in ibllm_tools.__all__:
        assert getattr(ibllm_tools, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = ibllm_tools.nothing


def test_importing_the_package_is_quick_and_loads_nothing():
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); "
        "import ibllm_tools; print(time.process_time() - start, *set(sys.modules) - before)"
    )
    seconds, *modules = run(code).split()
    assert float(seconds) < 0.3
    roots = {module.partition(".")[0] for module in modules}
    assert not roots & {"torch", "transformers", "langchain", "langchain_core", "numpy", "PIL"}


@pytest.mark.parametrize(
    "name", ["ChatImageBindLLM", "ImageBindEmbeddings", "ImageBindVectorStore", "Media"]
)
def test_making_an_object_loads_no_torch(name):
    made = "" if name == "Media" else "()"
    code = f"import sys; from ibllm_tools import {name}; {name}{made}; print(*sys.modules)"
    modules = set(run(code).split())
    assert not modules & {"torch", "transformers", "faiss", "langchain.agents"}


def own_imports(path):
    """The modules of this package that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            if node.module == "ibllm_tools":
                names = [ibllm_tools._HOME.get(alias.name, alias.name) for alias in node.names]
                yield from ((name, node.lineno) for name in names)
            elif (node.module or "").startswith("ibllm_tools."):
                yield node.module.split(".")[1], node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("ibllm_tools."):
                    yield alias.name.split(".")[1], node.lineno


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in STAGE_OF, f"{own} has no stage; add it to STAGES"
    for name, line in own_imports(path):
        if name != "__version__":
            assert STAGE_OF[name] <= STAGE_OF[own], f"{path}:{line} imports {name} against the flow"
