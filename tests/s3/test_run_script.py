"""scripts/run: serves, says so when it is true, and what it says to paste works as it stands."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import EXTERNAL
from daemon import ROOT, free_port, new_data_dir

pytestmark = pytest.mark.skipif(bool(EXTERNAL), reason="an outside endpoint is tested")


def paste(text: str, folder) -> list[str]:
    """Writes demo.py as the shell would, and gives the boto3 listing and what curl got."""
    demo = re.search(r"cat > demo.py <<'END'\n(.*?)END\n", text, re.DOTALL)[1]
    (folder / "demo.py").write_text(demo)

    def run(*arguments: str) -> str:
        command = [sys.executable, "demo.py", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    assert "scripts/python demo.py\n" in text and 'curl "$(scripts/python demo.py presign)"\n' in text
    listed = run()
    curl = ["curl", "--silent", "--fail", run("presign")]
    return [listed, subprocess.run(curl, capture_output=True, text=True, check=True, timeout=60).stdout]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_what_the_script_says_to_paste_works(host, tmp_path):
    address, data = f"{host}:{free_port()}", new_data_dir()
    flags = ["--listen", address, "--data", str(data), "--capacity", "256MiB"]
    process = subprocess.Popen([ROOT / "scripts/run", *flags], stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        said = ""
        while 'curl "$(' not in said:
            line = process.stdout.readline()
            assert line, f"it ended with {process.wait()}: {said}"
            said += line
        assert said.index(f"listening on http://{address}") < said.index("Paste next")
        assert paste(said, tmp_path) == ["['hello.txt']", "Hello from Weft\n"]
    finally:
        # The script has become the daemon.
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        code = process.wait()
        shutil.rmtree(data, ignore_errors=True)
    assert code == 0
