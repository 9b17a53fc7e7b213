"""Commands of the pages, each with how it is checked."""

import re
import shlex

from tests.pages import blocks

RUN = "runs"  # on a project that went through the pipeline: tests/stages/test_doc_commands.py
SCENARIO = "runs there, in a test of its own"
NETWORK, MINUTES, FOREVER = "asks the web", "takes minutes", "runs until Ctrl-C"
INSTALLS = "changes the environment"
CI = "runs in .ci/run"
HOW: dict[str, str] = {  # RUN, SCENARIO, the test that runs it, or why none does
    "make demo": "takes minutes; CI runs it in small",
    "make demo QUICK=1": CI,
    "make table SMOKE=1": CI,
    "make table DATA=PATH LIST=1": "tests/benchmarks/test_cifar10.py",
    "make table DATA=PATH": "takes days; CI runs it in small",
    "make setup": "all other targets of make begin with it",
    "make test": CI,
    "pre-commit install": INSTALLS,
    ". .venv/bin/activate": INSTALLS,
    "dvc repro": "tests/stages/test_repro.py",
    "dvc repro --pull --allow-missing distill": SCENARIO,
    "dvc commit -f distill": SCENARIO,
    "dvc config cache.type reflink,copy": "tests/stages/test_import.py",
    "pipeline import FOLDER": "tests/stages/test_import.py",
    "dvc commit -f crawl": SCENARIO,
    "dvc exp run -S distill.lr=0.3": "tests/stages/test_repro.py",
    "dvc exp show --only-changed": "tests/stages/test_repro.py",
    "dvc exp show --only-changed --drop '(data|models|reports)/'": "tests/stages/test_repro.py",
    "dvc metrics show": "tests/stages/test_dvc.py",
    "dvc metrics diff": "tests/stages/test_dvc.py",
    "dvc plots show": "tests/stages/test_dvc.py",
    "dvc plots diff 'HEAD~1'": "tests/stages/test_dvc.py",
    "pipeline dag": "tests/stages/test_dvc.py",
    "dvc dag --mermaid": "tests/stages/test_dvc.py",
    "git add params.yaml dvc.lock inputs.lock reports": "tests/stages/test_dvc.py",
    "git commit -m 'First run'": "tests/stages/test_dvc.py",
    "make wheel": "tests/stages/test_wheel.py",
    "python3 -m venv my-env": INSTALLS,
    ". my-env/bin/activate": INSTALLS,
    "pip install --constraint constraints.txt kd3_pipeline-0.1.0-py3-none-any.whl": INSTALLS,
    "pip install --constraint constraints.txt"
    " 'kd3_pipeline-0.1.0-py3-none-any.whl[teachers,tune]'": INSTALLS,
    "pipeline init demo --preset quick": "tests/stages/test_wheel.py",
    "cd demo": "tests/stages/test_wheel.py",
    "pipeline repro": "tests/stages/test_wheel.py",
    "pipeline --engine processes:4 repro": "tests/stages/test_engine.py",
    **{
        f"{kind.upper()}_ADDRESS={place} pipeline {stage}": f"tests/clusters/test_{kind}.py"
        for kind, place in (("ray", "head-node:6379"), ("dask", "scheduler-node:8786"))
        for stage in ("dedup", "embed")
    },
    **{
        "pip install --constraint constraints.txt"
        f" 'kd3_pipeline-0.1.0-py3-none-any.whl[{extra}]'": INSTALLS
        for extra in ("ray", "dask")
    },
    "pipeline init ../wildlife --preset own --git": "tests/stages/test_own_project.py",
    "pipeline init --renew .": "tests/stages/test_init.py",
    "cd ../wildlife": "tests/stages/test_own_project.py",
    "dvc remote add --default storage /mnt/storage": SCENARIO,
    "dvc push --run-cache": SCENARIO,
    "dvc pull --run-cache": SCENARIO,
    "pipeline preset demo": SCENARIO,
    "pipeline preset cifar10-local": SCENARIO,
    "pipeline crawl --engine files --source my-pictures": "tests/stages/test_crawl_files.py",
    "pipeline crawl --classes aquarium_fish,AnnualCrop": NETWORK,
    "pipeline crawl --set crawl.rounds=2": "tests/stages/test_crawl_rounds.py",
    "dvc repro teacher": MINUTES,
    "pipeline distill --budget 2h": MINUTES,
    "pipeline distill --budget '9000 steps'": "tests/stages/test_distill_budget.py",
    "pipeline crawl --engine captions --source captions.csv --classes 'red fox,badger' --per-class"
    " 2": "tests/stages/test_crawl_captions.py",
    "pipeline crawl --search-again": RUN,
    "pipeline crawl --retry-failed 404,truncated": RUN,
    "pipeline dedup --dry-run": RUN,
    "pipeline dedup --explain ID": RUN,
    "pipeline dedup --dry-run --rows 500 --sheet sheet.html": RUN,
    "pipeline dedup --set dedup.similarity=0.9": RUN,
    "pipeline duplicates IMAGE": RUN,
    "pipeline distill --epochs 50": "tests/stages/test_distill.py",
    "pipeline distill --set distill.lr=auto": "tests/stages/test_distill_rate.py",
    "python -m kd3_stages distill": "tests/stages/test_distill_sees_no_label.py",
    "torchrun --nproc-per-node 4 -m kd3_stages distill": "wants 4 GPUs",
    "torchrun --nnodes 2 --node-rank 0 --master-addr gpu1 --master-port 29500 --nproc-per-node 4"
    " -m kd3_stages distill": "tests/stages/test_nodes.py",
    "pipeline evaluate": RUN,
    "pipeline evaluate --corruptions": "tests/stages/test_evaluate.py",
    "pipeline evaluate --styles my-styles": RUN,
    "pipeline tune --trials 20": "tests/stages/test_tune.py",
    "pipeline tune --search lr=0.3:3 --search feature_weight=0.5,1,2": "tests/stages/test_tune.py",
    "pipeline predict IMAGE": RUN,
    "pipeline predict my-photos --csv": RUN,
    "pipeline predict IMAGE --model models/export/model.onnx": "tests/stages/test_export.py",
    "pipeline export --set export.input=float": "tests/stages/test_export.py",
    "pipeline export --set 'export.runtimes=[openvino,opencv]'": "tests/stages/test_export.py",
    "pipeline trace ID": RUN,
    "pipeline forget ID --dry-run": RUN,
    "pipeline forget ID --why 'letter of 3 May'": "tests/stages/test_forget.py",
    "pipeline forget https://shop.example/images/fox.jpg": "tests/stages/test_forget.py",
    "pipeline forget shop.example": "tests/stages/test_forget.py",
    "pipeline forget --blocklist": "tests/stages/test_forget.py",
    "pipeline recheck": "tests/stages/test_recheck.py",
    "pipeline recheck --dry-run": RUN,
    "dvc gc -w": "tests/stages/test_forget.py",
    "pipeline neighbours IMAGE --html sheet.html": RUN,
    "pipeline report --open": RUN,
    "pipeline report --watch": FOREVER,
    "pipeline check": "tests/stages/test_check.py",
    "pipeline doctor": "tests/stages/test_doctor.py",
    "pipeline teacher --check": "tests/stages/test_teacher_check.py",
    "pipeline teacher --check --images my-pictures": "tests/stages/test_teacher_check.py",
    "pipeline doctor --engine commons": NETWORK,
    "pipeline doctor --engine bing --query 'red fox'": NETWORK,
    "pipeline serve-demo": FOREVER,
}


def commands() -> dict[str, str]:
    """Every command of the pages' sh blocks as it would be typed, with its first place."""
    found: dict[str, str] = {}
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s&&\s", line):
                if words := shlex.split(part, comments=True):
                    found.setdefault(shlex.join(words), block.place)
    return found


COMMANDS = commands()
