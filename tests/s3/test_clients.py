"""Outside clients in a whole session each: the scripts of scripts/clients, every step of which must pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ACCESS_KEY, ROOT, SECRET_KEY

SCRIPTS = ROOT / "scripts/clients"


@pytest.mark.parametrize("script", ["awscli.sh", "s3cmd.sh", "minio_py.py"])
@pytest.mark.timeout(170)
def test_a_client_session_passes(endpoint, script):
    """put, get, ls, copy, delete, 100 MiB by parts, odd keys, sync."""
    # The clients are installed beside the Python that runs this.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    keys = {"WEFT_ENDPOINT": endpoint, "WEFT_ACCESS_KEY": ACCESS_KEY, "WEFT_SECRET_KEY": SECRET_KEY}
    command = [sys.executable, script] if script.endswith(".py") else ["bash", script]
    done = subprocess.run(command, cwd=SCRIPTS, env=os.environ | keys | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("PASS all") and "FAIL" not in done.stdout
    assert done.stdout.count("PASS") > 15
