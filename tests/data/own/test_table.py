"""A manifest: what its columns mean, and what the table alone shows to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbdp_fed.data.defects import DUPLICATE, INCOMPLETE, OUTSIDE
from hbdp_fed.data.own.table import Table, read_table
from hbdp_fed.errors import DataFileError, SettingError


def table(tmp_path: Path, text: str, folder: str | None = None) -> Table:
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    return read_table(root=tmp_path, manifest="m.csv", folder=folder)


def kinds(read: Table) -> list[str]:
    return [one.kind for one in read.found]


def test_columns_become_what_they_are_for(tmp_path: Path) -> None:
    read = table(
        tmp_path,
        "\ufeffpath, label ,id,hospital,patient,split,sex,site\n"
        "a/1.png,no,one,north,p1,train,f,\n\n"
        '"a,b.png",yes,,south,p2,test,,x\n',
    )
    first, second = read.rows
    assert (first.line, first.path, first.name, first.label) == (2, tmp_path / "a/1.png", "one", "no")
    assert (first.patient, first.split, first.mask) == ("p1", "train", None)
    assert first.attributes == {"hospital": "north", "sex": "f", "site": "unknown"}
    assert (second.line, second.name, second.path.name) == (4, "a,b.png", "a,b.png")
    assert read.found == ()
    assert not read.has_masks


def test_what_may_be_left_out_is_none(tmp_path: Path) -> None:
    (row,) = table(tmp_path, "path,mask\na.png,m/a.png\n").rows
    assert (row.label, row.mask, row.patient, row.split, row.attributes) == (None, tmp_path / "m/a.png", None, None, {})


def test_paths_start_from_the_folder_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert table(tmp_path, "path,label\na.png,x\n", "images").rows[0].path == tmp_path / "images/a.png"
    absolute = table(tmp_path, "path,label\na.png,x\n", str(tmp_path / "images"))
    assert absolute.folder == tmp_path / "images"


@pytest.mark.parametrize(
    "path", ["../a.png", "a/../../b.png", "/etc/passwd", "link.png", "out/b.png", "C:\\a.png", "a\0b.png"]
)
def test_no_path_leads_out_of_the_folder(path: str, tmp_path: Path) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "b.png").write_bytes(b"x")
    (inside / "link.png").symlink_to(tmp_path / "b.png")
    (inside / "out").symlink_to(tmp_path)
    (inside / "ok.png").symlink_to(inside / "c.png")
    for column in ("path", "mask"):
        line = f"{path},m.png" if column == "path" else f"e.png,{path}"
        read = table(tmp_path, f"path,mask\nok.png,c.png\n{line}\n", "data")
        assert [row.name for row in read.rows] == ["ok.png"]
        assert kinds(read) == [OUTSIDE]


def test_a_record_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    read = table(tmp_path, "path,label,id\na.png,x,1\nc.png,x,1\na.png,y,2\n./a.png,y,3\nb.png,x,4\nd.png,x,5\n")
    assert [row.name for row in read.rows] == ["1", "5"]
    assert kinds(read) == [DUPLICATE] * 4
    assert "line 3 has the id '1' of line 2" in str(read.found[0])
    assert f"{tmp_path / 'a.png'}: duplicate: line 4 lists what line 2 does" == str(read.found[1])


def test_rows_that_say_too_little_are_named_by_their_line(tmp_path: Path) -> None:
    read = table(tmp_path, "path,label,patient,split\na,x,p,train\n,x,q,val\nb,,r,val\nc,x\nd,x,s,dev\n")
    assert [row.name for row in read.rows] == ["a"]
    assert kinds(read) == [INCOMPLETE] * 4
    assert [one.text for one in read.found] == [
        "line 3 has no path", "line 4 has no label", "line 5 has no patient, split",
        "line 6 has the split 'dev', which is none of train, val, test",
    ]  # fmt: skip
    assert read.total == 5


def test_a_patient_in_two_splits_is_an_error_whatever_becomes_of_bad_records(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"has 1 patients in more than one split: p1 \(test, train\); put each"):
        table(tmp_path, "path,label,patient,split\na,x,p1,train\nb,x,p2,train\nc,x,p1,test\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no column 'path'"),
        ("file,label\na,x\n", "has no column 'path'"),
        ("path,sex\na,x\n", "must have one of the columns 'label'"),
        ("path,label,mask\na,x,m\n", "must have one of the columns 'label'"),
        ("path,label,sex,sex\na,x,m,m\n", "has the column sex twice"),
        ("path,label\na,x,y\n", "line 2 has 3 cells, but the header 2"),
        ('path,label\n"a,x\n', "cannot be read as a CSV table"),
        ("path,label\n", "lists no record"),
        ("path,label\n../a,x\n", "lists no record that can be used: .*path outside the folder"),
    ],
)
def test_what_is_no_manifest_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=told):
        table(tmp_path, text)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("path,label\nä,x\n".encode("latin-1"))
    with pytest.raises(DataFileError, match="CSV table in UTF-8"):
        read_table(root=tmp_path, manifest="m.csv", folder=None)


def test_settings_that_name_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^data\.manifest: must name the CSV table"):
        read_table(root=tmp_path, manifest=None, folder=None)
    with pytest.raises(SettingError, match=r"^data\.manifest: there is no file .*none\.csv"):
        read_table(root=tmp_path, manifest="none.csv", folder=None)
    (tmp_path / "m.csv").write_text("path,label\na,x\n")
    with pytest.raises(SettingError, match=r"^data\.folder: there is no folder .*none"):
        read_table(root=tmp_path, manifest="m.csv", folder="none")
