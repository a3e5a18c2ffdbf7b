"""What is killed at any moment, forked from a process that has imported everything and done nothing.

So the moments fall into the work and not into the start of Python, and twenty kills don't take twenty starts.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "pipelines"

# Each line it reads is a name, seconds or null, and arguments; each it writes a status and the seconds it took.
PARENT = """
import importlib.util, json, os, pathlib, signal, sys, time, traceback
from hitfinder.cli import main
from hitfinder.registry.tracking import import_mlflow
for module in ("mlflow.pyfunc", "mlflow.tracking", "mlflow.artifacts", "mlflow.store.tracking.sqlalchemy_store"):
    import_mlflow(module)

def program(arguments):
    sys.argv = ["hitfinder", *arguments]
    main()

mains = {"hitfinder": program}
for name in ("retrain", "weekly"):
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(sys.argv[1]) / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    mains[name] = module.main

def work(name, arguments):
    os.setsid()
    os.dup2(2, 1)
    status = 70
    try:
        status = mains[name](arguments) or 0
    except SystemExit as left:
        status = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 70)

for line in sys.stdin:
    name, seconds, arguments = json.loads(line)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        work(name, arguments)
    done = 0
    while not done and (seconds is None or time.monotonic() < began + seconds):
        time.sleep(0.002)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        while os.getpgid(child) != child:  # not yet a group of its own, which ends with what it started
            time.sleep(0.001)
        os.killpg(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - began]), flush=True)
"""


@contextmanager
def forking(cwd):
    """Yield `call(name, *arguments, seconds=None)`: (status, seconds it took), killed -9 after `seconds`.

    `name` is `hitfinder`, `retrain` or `weekly`; the status is 0, or -9 where it was killed before it was done.
    """
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, "-c", PARENT, str(SCRIPTS)], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=said, text=True,
        ) as parent,
    ):  # fmt: skip

        def call(name, *arguments, seconds=None):
            parent.stdin.write(json.dumps([name, seconds, [str(each) for each in arguments]]) + "\n")
            parent.stdin.flush()
            answer = parent.stdout.readline()
            status, took = json.loads(answer) if answer else (None, 0.0)
            if status not in (0, -signal.SIGKILL):
                said.seek(0)
                raise AssertionError(f"{name} left with {status}: {said.read()[-3000:]}")
            return status, took

        yield call
        parent.stdin.close()
