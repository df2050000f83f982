"""Roots of datasets that are set once: the file, the variables, their order, and `fmsd roots`."""

import json
import os
import re
from pathlib import Path
from typing import Any

import hydra
import pytest

from fmsd.cli import file_of_roots, roots
from fmsd.cli.completion import candidates
from fmsd.cli.data_config import add_test_sources
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.package_files import CONF
from tests.conftest import ROOT, fmsd_command, grow_tree
from tests.installed import on_path, write_package


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any root; the current folder is another."""
    monkeypatch.delenv("FMSD_ROOTS", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def write(place: Path, text: str | bytes, file: str = "home/.config/fmsd/roots.yaml") -> Path:
    """The file of roots, below `place`."""
    path = place / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def folder(place: Path, name: str) -> str:
    """A folder that holds something."""
    (place / name).mkdir(parents=True, exist_ok=True)
    (place / name / "files").touch()
    return str(place / name)


def composed(*overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", list(overrides))
        add_test_sources(config.data)
        return config.data


def table(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of `fmsd roots`, and its rows by dataset."""
    capsys.readouterr()
    code = main(["roots", "--json"])
    rows = json.loads(capsys.readouterr().out)["tables"]["roots"]
    return code, {row["dataset"]: row for row in rows}


def test_a_name_has_a_variable_and_they_are_those_of_the_data_files() -> None:
    assert roots.variable("ff++") == "FMSD_FFPP"
    assert roots.variable("celebdf_v2") == "FMSD_CELEBDF_V2"
    assert len({*map(roots.variable, roots.datasets())}) == len(roots.datasets())
    for name in ("ff++", "celebdf_v2", "df40", "faces", "deepfakebench"):
        assert name in roots.datasets()
    assert roots.datasets()["celebdf_v2"] == ("celebdf_v2", "deepfakebench", "Celeb-DF-v2.json")
    assert roots.datasets()["df40"] == ("df40", None, None)
    assert roots.datasets()["ff++"] == ("ff++", "deepfakebench", "FaceForensics++.json")
    assert roots.datasets()["deepfakebench"] == ("deepfakebench", None, None)
    assert roots.datasets()["faces"] == ("faces", None, None)  # whose file is for the top level


def test_variables_of_fmsd_that_are_no_roots_are_known() -> None:
    files = [*(ROOT / "fmsd").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    read = re.compile(r"""(?:= |environ\.get\(|environ\[)"(FMSD_[A-Z_0-9]+)\"""")
    found = {name for file in files for name in read.findall(file.read_text())}
    assert found - set(map(roots.variable, roots.datasets())) == set(roots.OTHER_VARIABLES)


def test_the_command_line_wins_over_the_variable_and_that_over_the_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert composed("data=uadfv").root is None
    write(place, f"uadfv: {folder(place, 'file')}\n")
    assert composed("data=uadfv").root == str(place / "file")
    monkeypatch.setenv("FMSD_UADFV", folder(place, "variable"))
    assert composed("data=uadfv").root == str(place / "variable")
    assert composed("data=uadfv", "data.root=/command").root == "/command"
    monkeypatch.setenv("FMSD_UADFV", "")  # as good as unset
    assert composed("data=uadfv").root == str(place / "file")


def test_a_root_of_its_own_wins_over_the_shared_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = folder(place, "shared")
    write(place, f"deepfakebench: {shared}\nuadfv: {folder(place, 'own')}\n")
    assert composed("data=uadfv").root == str(place / "own")
    monkeypatch.setenv("FMSD_DEEPFAKEBENCH", folder(place, "variable"))
    assert composed("data=uadfv").root == str(place / "own")
    assert composed("data=dfd").root == str(place / "variable")
    assert composed("data=df40").root is None


def test_test_datasets_find_their_roots(place: Path) -> None:
    (place / "bench" / "dataset_json").mkdir(parents=True)
    (place / "bench" / "dataset_json" / "UADFV.json").touch()
    write(
        place,
        f"deepfakebench: {place / 'bench'}\ndf40: {folder(place, 'df40')}\nffiw: /gone\n",
    )
    assert composed("data=uadfv", "data.test=[ff++]").roots["ff++"] is None  # of ff++, too
    data = composed("data=ff++", "data.test=[uadfv,df40,dfdc]")
    assert data.roots.uadfv == str(place / "bench")
    assert data.roots.df40 == str(place / "df40")
    assert data.roots.dfdc is None  # the shared folder has no JSON file of it
    given = composed("data=ff++", "data.test=[ffiw]", "data.roots.ffiw=/given")
    assert given.roots.ffiw == "/given"  # what is not used is not looked at


@pytest.mark.parametrize("where", ["FMSD_ROOTS", "XDG_CONFIG_HOME", "home"])
def test_the_file_is_found_where_it_is_documented(
    where: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "FMSD_ROOTS": "mine.yaml",
        "XDG_CONFIG_HOME": "xdg/fmsd/roots.yaml",
        "home": "home/.config/fmsd/roots.yaml",
    }
    names = list(files)[list(files).index(where) :]
    for name in names:  # the first of them counts
        write(place, f"uadfv: {folder(place, name)}\n", files[name])
        value = {"FMSD_ROOTS": files[name], "XDG_CONFIG_HOME": "xdg"}.get(name)
        if value is not None:
            monkeypatch.setenv(name, str(place / value))
    assert composed("data=uadfv").root == str(place / where)


def test_a_relative_config_home_and_a_missing_home_are_no_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert file_of_roots.default_file() == place / "home/.config/fmsd/roots.yaml"
    assert file_of_roots.roots_file() is None
    monkeypatch.setenv("FMSD_ROOTS", str(place / "no.yaml"))
    with pytest.raises(InputError, match=r"FMSD_ROOTS=.*no\.yaml is no file; correct it"):
        file_of_roots.roots_file()


def test_paths_may_begin_with_the_home_folder(place: Path) -> None:
    folder(place, "home/data")
    write(place, "uadfv: ~/data\n# dfd: /nowhere\n")
    assert composed("data=uadfv").root == str(place / "home/data")


def test_a_line_of_a_dataset_that_is_not_installed_is_shown_and_disturbs_no_other(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(place, "dfd")
    write(place, f"dfd: {place / 'dfd'}\nour_lab: {place / 'lab'}\n")
    assert composed("data=dfd").root == str(place / "dfd")
    capsys.readouterr()
    main(["roots", "--json"])
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)["tables"]["roots"]}
    assert rows["our_lab"]["state"] == "no such dataset"
    assert rows["our_lab"]["root"] == str(place / "lab")
    assert rows["celebdf_v2"]["state"] == "not set"


def test_a_misspelt_line_is_shown_with_what_it_may_mean_and_told_to_who_needs_it(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    lines = {"celeb_df_v2": "celebdf_v2", "ffpp": "ff++", "dfd": "dfd"}
    file = write(place, "".join(f"{name}: {folder(place, name)}\n" for name in lines))
    (place / "dfd" / "file").touch()
    code, rows = table(capsys)
    assert (code, rows["dfd"]["state"]) == (1, "found")
    for name, meant in list(lines.items())[:2]:
        assert rows[name]["state"] == f"no such dataset: did you mean {meant}?"
    assert composed("data=dfd").root == str(place / "dfd")
    assert "did you mean" not in caplog.text
    data = composed("data=dfd", "data.test=[celebdf_v2]")
    assert data.roots.celebdf_v2 is None
    assert f"{file} names celeb_df_v2, which is no dataset: did you mean celebdf_v2?" in caplog.text
    assert "ff++" not in caplog.text


def test_a_dataset_of_config_dir_has_its_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    folder(place, "lab")
    write(place, f"our_lab: {place / 'lab'}\n")
    own = place / "own" / "data"
    own.mkdir(parents=True)
    (own / "our_lab.yaml").write_text(
        "defaults: [_dataset, _self_]\nname: our_lab\nroot: ${root:our_lab}\n"
        "source: {_target_: our.scan, _partial_: true}\n"
    )
    options = ["--cfg", "job", "--config-dir", "own"]
    assert main(["train", "data=our_lab", *options]) == 0
    assert "root: ${root:our_lab}" in capsys.readouterr().out
    assert roots.find_root("our_lab") is not None


FAULTS = [
    ("- /data", r"is no list of roots; write a line like celebdf_v2: /data/celebdf_v2"),
    ("just text", r"is no list of roots"),
    ("ff++: {a: /b}", r"Line 1 of .*roots\.yaml is not of the form NAME: PATH"),
    ("# x\n\nff++: [/a]", r"Line 3 of "),
    ("a: [", r"is no configuration \(.*\); write a line like"),
    ("ff++: *x", r"is no configuration|YAML alias"),
    ("ff++: !!python/name:os.system /x", r"has the YAML tag"),
    ("dfd: /x\ndfd: /x", r"has dfd twice; remove one of the lines"),
    ("dfd: data/dfd", r"dfd: data/dfd in .* is not an absolute path; write the whole path"),
    ("dfd:", r"dfd:  in .* is not an absolute path"),
    ("dfd: ~nosuchuser/x", r"dfd in .*There is no home folder for ~nosuchuser/x"),
    ("dfd: /x\n---\ndfd: /y", r"is no list of roots \(.*single document.*\); write a line like"),
    (r'dfd: "/x\0y"', r"dfd in .* holds characters that cannot be printed \('/x\\x00y'\); take"),
    (r'dfd: "/x\e]0;a\a"', r"dfd in .* holds characters that cannot be printed"),
    (r'"d\e]0;a\a": /x', r"A name in .* holds characters that cannot be printed"),
    (b"dfd: /caf\xe9", r"is not encoded in UTF-8; save it again in UTF-8"),
]


@pytest.mark.parametrize(("text", "sentence"), FAULTS)
def test_a_faulty_file_is_refused_by_its_name(
    text: str | bytes, sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(place, text)
    with pytest.raises(InputError, match=sentence) as raised:
        roots.find_root("dfd")
    assert str(file) in str(raised.value)
    assert str(raised.value).isprintable()
    assert main(["roots"]) == 2
    assert capsys.readouterr().err == f"fmsd: {raised.value}\n"


def test_a_variable_with_an_unknown_home_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMSD_DFD", "~nosuchuser/x")
    with pytest.raises(InputError, match=r"FMSD_DFD: There is no home folder for ~nosuchuser/x"):
        roots.find_root("dfd")


@pytest.mark.parametrize("name", ["FMSD_DFD", "FMSD_ROOTS", "XDG_CONFIG_HOME"])
def test_a_variable_that_cannot_be_printed_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("/x\x1b]0;a\a", "/caf\udce9"):
        monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=f"{name} holds characters that cannot") as raised:
            roots.find_root("dfd")
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["FMSD_ROOTS", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("fault", ["long", "loop", "locked"])
def test_a_file_that_cannot_be_reached_is_named(
    name: str, fault: str, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if fault == "locked" and os.geteuid() == 0:
        pytest.skip("root may read every folder")
    if fault == "loop":
        (place / "loop").symlink_to("loop")
    else:
        (place / "locked").mkdir(mode=0)
    path = place / ("x" * 300 if fault == "long" else f"{fault}/deep")
    monkeypatch.setenv(name, str(path))
    assert main(["roots"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(
        rf"fmsd: (FMSD_ROOTS=)?{path}(/fmsd/roots\.yaml)? cannot be read \(.*\); .*\.\n", told
    )
    assert ("FMSD_ROOTS=" in told) == (name == "FMSD_ROOTS")
    assert "XDG_CONFIG_HOME" in told or name == "FMSD_ROOTS"
    assert "hydra.run.dir" not in told


def test_an_address_of_a_pack_may_be_a_root(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, "uadfv: s3://bucket/packs/uadfv/\n")
    monkeypatch.setenv("FMSD_DFD", "https://example.org/dfd")
    assert composed("data=uadfv").root == "s3://bucket/packs/uadfv"
    data = composed("data=uadfv", "data.test=[dfd]")
    assert data.roots.dfd == "https://example.org/dfd"
    code, rows = table(capsys)
    assert code == 0
    row = rows["uadfv"]
    assert (row["root"], row["state"], row["holds"]) == (
        "s3://bucket/packs/uadfv",
        "found",
        "a pack",
    )
    write(place, "uadfv: s3://me:password@bucket/packs\n")
    with pytest.raises(InputError, match=r"s3://\.\.\. .*password.*credentials") as caught:
        roots.find_root("uadfv")
    assert "me:" not in str(caught.value)


def test_an_empty_file_sets_nothing(place: Path) -> None:
    write(place, "# nothing yet\n")
    assert roots.find_root("dfd") is None


def test_a_root_that_is_no_folder_is_refused_where_it_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(place, f"dfd: /gone\nuadfv: {folder(place, 'uadfv')}\n")
    assert main(["index", "data=dfd", "out=x.parquet"]) == 2
    assert (
        f"/gone, which dfd in {file} gives as the root of dfd, is no folder; correct it there, or "
        "give data.root=PATH" in capsys.readouterr().err
    )
    monkeypatch.setenv("FMSD_DFD", "/lost")
    assert main(["index", "data=dfd", "out=x.parquet"]) == 2
    assert "/lost, which FMSD_DFD gives as the root of dfd, is no folder" in capsys.readouterr().err
    assert composed("data=uadfv").root == str(place / "uadfv")  # others are not concerned


@pytest.mark.parametrize("by", ["file", "variable", "shared folder"])
def test_a_test_dataset_whose_root_is_lost_has_none_and_that_is_told(
    by: str, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"uadfv: {folder(place, 'uadfv')}\n"
    if by == "variable":
        monkeypatch.setenv("FMSD_DFD", "/gone")
    else:
        text += "dfd: /gone\n" if by == "file" else "deepfakebench: /gone\n"
    file = write(place, text)
    data = composed("data=uadfv", "data.test=[uadfv,dfd]")
    assert data.roots.dfd is None
    assert "dfd" in data.others  # so that it is skipped as one without a root
    origin = {"variable": "FMSD_DFD", "file": f"dfd in {file}"}
    by_what = origin.get(by, f"deepfakebench in {file}")
    told = f"/gone, which {by_what} gives as the root of dfd, is no folder."
    assert caplog.messages == [told]
    given = composed("data=uadfv", "data.test=[dfd]", f"data.roots.dfd={place}")
    assert given.roots.dfd == str(place)
    assert caplog.messages == [told]


def test_a_test_dataset_whose_disk_is_not_mounted_has_no_root(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "mount").mkdir()
    write(place, f"uadfv: {folder(place, 'uadfv')}\ndfd: {place / 'mount'}\n")
    assert composed("data=uadfv", "data.test=[uadfv,dfd]").roots.dfd is None
    assert "as the root of dfd, is empty or cannot be read." in caplog.text


def test_an_address_without_its_protocol_is_no_folder(place: Path) -> None:
    for given in ("localhost:8765/pack", "10.0.0.1:80"):
        with pytest.raises(InputError, match=f"give http://{given}, or the path of a folder"):
            composed("data=synthetic", f"data.root={given}")
    (place / "a:1").mkdir()
    assert composed("data=synthetic", f"data.root={place}/a:1").root == f"{place}/a:1"


def test_the_table_shows_what_sets_a_root_and_whether_it_is_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = table(capsys)
    assert code == 0
    assert {row["state"] for row in rows.values()} == {"not set"}
    (place / "bench").mkdir()
    (place / "bench" / "UADFV.json").touch()
    (place / "crops").mkdir()
    (place / "crops" / "extract.json").touch()
    (place / "faces").mkdir()
    (place / "faces" / "manifest.csv").touch()
    grow_tree(place / "tree", videos=1)
    file = write(
        place,
        f"deepfakebench: {place / 'bench'}\ndfdc: {place / 'crops'}\nffiw: {place / 'tree'}\n",
    )
    monkeypatch.setenv("FMSD_FACES", str(place / "faces"))
    code, rows = table(capsys)
    assert code == 0
    assert rows["uadfv"] == {
        "dataset": "uadfv",
        "root": str(place / "bench"),
        "set_by": str(file),
        "state": "found",
        "holds": "DeepfakeBench's UADFV.json",
    }
    assert rows["dfd"]["state"] == "not set"  # the shared folder has no JSON file of it
    assert rows["dfdc"]["holds"] == "extracted crops"
    assert rows["ffiw"]["holds"] == "files"
    assert (rows["faces"]["set_by"], rows["faces"]["holds"]) == ("FMSD_FACES", "a manifest")
    monkeypatch.setenv("FMSD_DF40", str(place / "gone"))
    (place / "mount").mkdir()
    monkeypatch.setenv("FMSD_FFIW", str(place / "mount"))
    code, rows = table(capsys)
    assert code == 1
    assert (rows["df40"]["state"], rows["df40"]["holds"]) == ("missing", None)
    assert rows["ffiw"]["state"] == "empty"
    assert main(["roots"]) == 1
    printed = capsys.readouterr().out
    assert "FMSD_DF40" in printed
    assert str(file) in printed


def test_the_dataset_of_an_installed_package_has_its_root(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (
        "defaults: [_dataset, _self_]\nname: own_faces\nroot: ${root:own_faces,deepfakebench}\n"
        "source: {_target_: fmsd.data.sources.folder.scan, _partial_: true}\n"
    )
    package = write_package(place, "roots_plugin", {"conf/data/own_faces.yaml": data})
    write(place, f"own_faces: {folder(place, 'faces')}\n")
    _, rows = table(capsys)
    assert rows["own_faces"]["state"].startswith("no such dataset")
    with on_path(package):
        assert main(["train", "data=own_faces", "--cfg", "job", "--resolve"]) == 0
        assert f"root: {place / 'faces'}\n" in capsys.readouterr().out
        assert candidates(["train", "data=own"], ["train"]) == ["data=own_faces"]
        _, rows = table(capsys)
    assert rows["own_faces"]["root"] == str(place / "faces")


FLOW = (
    'defaults: [_dataset, _self_]\nname: own\nroot: "${root:own, deepfakebench}"\n'
    "source: {_target_: fmsd.data.sources.deepfakebench.scan, _partial_: true, file: Own.json}\n"
)


WHOLE = (
    '# @package _global_\ndata: {name: own, root: "${root:own, deepfakebench}", source: '
    "{_target_: fmsd.data.sources.deepfakebench.scan, _partial_: true, file: Own.json}}\n"
)


@pytest.mark.parametrize("text", [FLOW, WHOLE])
def test_a_data_file_may_be_written_in_any_form_of_yaml(text: str, place: Path) -> None:
    package = write_package(place, "roots_plugin", {"conf/data/own.yaml": text})
    with on_path(package):
        assert roots.datasets()["own"] == ("own", "deepfakebench", "Own.json")


def test_a_file_that_builds_on_the_root_of_another_changes_nothing_of_it(place: Path) -> None:
    text = "defaults: [ff++, _self_]\nroot: ${root:ff++}\n"
    package = write_package(place, "roots_plugin", {"conf/data/a_subset.yaml": text})
    before = roots.datasets()["ff++"]
    with on_path(package):
        assert roots.datasets()["ff++"] == before


@pytest.mark.parametrize(
    ("lookup", "sentence"),
    [
        *((name, f"by ${{root:{name}}}: FMSD_{name.upper()} sets something else; give the dataset")
          for name in ("roots", "cache", "sweep", "test_data")),
        ("own,cache", "by ${root:cache}: FMSD_CACHE sets something else"),
        ("ffpp", "both would have the variable FMSD_FFPP; rename one of the datasets"),
    ],
)  # fmt: skip
def test_a_name_whose_variable_means_something_else_is_refused(
    lookup: str, sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FLOW.replace("${root:own, deepfakebench}", f"${{root:{lookup}}}")
    package = write_package(place, "roots_plugin", {"conf/data/own.yaml": text})
    with on_path(package):
        assert main(["roots"]) == 2
        assert sentence in capsys.readouterr().err
        if "ffpp" not in lookup:
            assert main(["train", "data=own", "--cfg", "job", "--resolve"]) == 2
            assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_file_reaches_a_run_and_its_record(place: Path) -> None:
    """In processes of their own, as launchers start them."""
    videos = grow_tree(place / "videos", domains=("real", "swap"), videos=4)
    made = fmsd_command(
        "pack", "data=folder", f"data.root={videos}", "data.name=uadfv", "out=packed", cwd=place
    )
    assert made.returncode == 0, made.stderr
    write(place, f"uadfv: {place / 'packed'}\n", "mine.yaml")
    done = fmsd_command(
        *("train", "-m", "data=uadfv", "method=probe", "backbone=demo_vit", "trainer=smoke"),
        *("trainer.accelerator=cpu", "seed=0,1", "hydra/launcher=joblib", "hydra.sweep.dir=runs"),
        cwd=place,
        FMSD_ROOTS="mine.yaml",
    )
    assert done.returncode == 0, done.stderr
    configs = [path.read_text() for path in (place / "runs").glob("*/config.yaml")]
    assert len(configs) == 2
    assert all(f"root: {place / 'packed'}\n" in config for config in configs)
