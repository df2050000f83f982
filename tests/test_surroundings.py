"""The tests see neither the variables nor the plugins of the machine that they run on."""

import json
import os
import site
import subprocess
import venv
from pathlib import Path

from tests.conftest import ROOT
from tests.installed import write_package

PROGRAM = """
import json
import os
from pathlib import Path

from tests.conftest import fmsd_command
from tests.surroundings import python_path
from fmsd.plugins import plugins

place = Path.cwd()
help_pages = [
    fmsd_command("train", "--help", "method", cwd=place, PYTHONPATH=python_path(*places)).stdout
    for places in ((), (place / "again",))
]
print(json.dumps({
    "plugins": [plugin.name for plugin in plugins()],
    "variables": {name: value for name, value in os.environ.items() if name.startswith("FMSD_")},
    "help": ["stranger" in page for page in help_pages],
    "lora": "lora" in help_pages[0],
}))
"""


def test_variables_and_plugins_of_the_machine_are_hidden(tmp_path: Path) -> None:
    """In an environment with a plugin installed, as a developer has it."""
    venv.create(tmp_path / "env")
    (installed,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (installed / "all.pth").write_text("\n".join(site.getsitepackages()))
    files = {"conf/method/stranger.yaml": "# Mine.\n_target_: strange.x\n"}
    for place in (installed, tmp_path / "again"):
        write_package(place, "strange", files)
    variables = {"FMSD_FFPP": "/x", "FMSD_ROOTS": "/y", "FMSD_SWEEP": "/z", "FMSD_TEST_DATA": "/d"}
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["plugins"] == []
    assert found["help"] == [False, True]  # only where a test puts it into the search path
    assert found["lora"]
    left = found["variables"]
    own = {"FMSD_TEST_DATA", "FMSD_TEST_CACHE", "FMSD_ROOTS", "FMSD_CACHE"}
    assert left.keys() - {"FMSD_TEST_DIST"} == own
    assert left["FMSD_CACHE"] == left["FMSD_TEST_CACHE"]
    assert left["FMSD_TEST_DATA"] == "/d"
    assert left["FMSD_ROOTS"] != "/y"
    assert not Path(left["FMSD_ROOTS"]).parent.exists()  # nothing is left behind
