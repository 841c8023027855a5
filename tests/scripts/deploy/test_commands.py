"""What an administrator types: it works, or says in one line what is missing, with a documented exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from hbdp_fed.data import Records, write_shard
from hbdp_fed.errors import DataFileError
from hbdp_fed.federation.site_folder import SiteFolder, read_policy, write_policy
from hbdp_fed.privacy.site_policy import MAY_LEAVE, SitePolicy
from scripts.deploy.__main__ import BAD_INPUT, DONE, FAILED, main
from scripts.deploy.processes import Process
from scripts.deploy.rehearse import rehearse


def test_a_new_site_has_a_key_and_a_policy_that_allows_nothing(tmp_path: Path) -> None:
    assert main(["site", str(tmp_path), "north"]) == DONE
    policy = read_policy(tmp_path / "site" / "policy.yaml")
    assert policy.allowed_tasks == ()
    assert policy.allowed_models == ()
    assert policy.secure_noise
    assert policy.tamper_check
    assert policy.withheld == MAY_LEAVE
    assert (tmp_path / "supernode.pub").read_text().startswith("ecdsa-sha2-nistp384 ")


def test_a_site_that_is_there_keeps_its_policy(tmp_path: Path) -> None:
    main(["site", str(tmp_path), "north"])
    file = tmp_path / "site" / "policy.yaml"
    file.write_text(file.read_text().replace("allowed_tasks: []", "allowed_tasks: [binary]"))
    main(["site", str(tmp_path), "north"])
    assert read_policy(file).allowed_tasks == ("binary",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Input should be a valid dictionary"),
        ("highest_epsilon: 8\n", "lowest_records: Field required"),
        (
            "highest_epsilon: 8\nlowest_records: 1\nallowed_tasks: []\nallowed_models: []\nceiling: 8\n",
            "ceiling: Extra",
        ),
        ("highest_epsilon: -8\nlowest_records: 1\nallowed_tasks: []\nallowed_models: []\n", "must be positive"),
        ("highest_epsilon: much\nlowest_records: 1\nallowed_tasks: []\nallowed_models: []\n", "highest_epsilon: Input"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor"),
        (
            "may_leave: [names]\nhighest_epsilon: 8\nlowest_records: 1\nallowed_tasks: []\nallowed_models: []\n",
            "names is none",
        ),
        ("[" * 5000, "cannot be read"),
        ("x" * 200_000, "longer than"),
    ],
)
def test_a_policy_that_cannot_be_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(DataFileError, match=problem) as error:
        read_policy(file)
    assert len(str(error.value).splitlines()) == 1


def test_a_policy_is_read_as_it_was_written(tmp_path: Path) -> None:
    policy = SitePolicy(float("inf"), 3, ("binary",), ("cnn",), secure_noise=True, may_leave=("seconds",))
    write_policy(tmp_path / "policy.yaml", policy)
    assert read_policy(tmp_path / "policy.yaml") == policy


def test_a_supernode_does_not_start_without_policy_and_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["supernode", str(tmp_path), "north", "--superlink", "x:1", "--root-certificates", str(tmp_path)]
    assert main(command) == BAD_INPUT
    assert "policy.yaml: there is no such file" in capsys.readouterr().err
    main(["site", str(tmp_path), "north"])
    assert main(command) == BAD_INPUT
    assert "records.safetensors: there is no such file" in capsys.readouterr().err


def test_a_site_that_screens_needs_reference_images_which_a_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["site", str(tmp_path), "north"])
    site = SiteFolder(tmp_path / "site")
    write_shard(site.records_file, Records(torch.rand(20, 1, 28, 28), torch.arange(20) % 2))
    write_policy(site.policy_file, SitePolicy(1e9, 1, ("binary",), ("cnn",), screening=True))
    command = ["supernode", str(tmp_path), "north", "--superlink", "x:1", "--root-certificates", str(tmp_path)]
    assert main(command) == BAD_INPUT
    assert "references.safetensors: there is no such file" in capsys.readouterr().err
    assert main(["references", str(tmp_path), "data=atlantis"]) == BAD_INPUT
    assert "atlantis" in capsys.readouterr().err
    drawn = ["data.num_train=60", "data.num_val=30", "data.num_test=30", "clients=2"]
    assert main(["references", str(tmp_path), *drawn]) == DONE
    assert "24 reference images" in capsys.readouterr().out
    references = site.references()
    assert references.images.shape == (24, 1, 28, 28)
    assert references.labels.shape == (24,)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["certificates", str(tmp_path / "server")])
    main(["site", str(tmp_path / "north"), "north"])
    key = tmp_path / "north" / "supernode.pub"
    assert main(["register", str(tmp_path / "server"), "north", str(key), "--port", "1"]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 127.0.0.1:1: ")


def test_the_rehearsal_decides_some_settings_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse(["engine=ray"], tmp_path) == BAD_INPUT
    assert "engine=ray: the rehearsal decides this itself" in capsys.readouterr().err


def test_a_federations_folder_is_fetched_and_a_missing_one_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there" / "run-1").mkdir(parents=True)
    (tmp_path / "there" / "run-1" / "journal.jsonl").write_text("{}\n")
    assert main(["fetch", str(tmp_path / "there"), str(tmp_path / "here")]) == DONE
    assert (tmp_path / "here" / "run-1" / "journal.jsonl").read_text() == "{}\n"
    assert main(["fetch", str(tmp_path / "nowhere"), str(tmp_path / "here")]) == FAILED
    assert "nowhere is no folder" in capsys.readouterr().err


def test_a_process_is_started_again_until_it_ends_well_and_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    process = Process(tmp_path, "napper")
    process.start([sys.executable, "-c", "import time; time.sleep(600)"], {}, again=True)
    number = process.number
    assert number is not None
    process.start(["false"], {})  # it runs already
    assert process.number == number
    process.stop()
    assert process.number is None
    with pytest.raises(ProcessLookupError):
        os.killpg(number, 0)


def test_no_line_of_a_sites_log_names_its_folder(tmp_path: Path) -> None:
    folder = SiteFolder(tmp_path / "DOE JANE")
    folder.path.mkdir()
    write_shard(folder.records_file, Records(images=torch.rand(2, 1, 4, 4), labels=torch.zeros(2, dtype=torch.int64)))
    folder.tell(f"{folder.path}/a file of DOE JANE.png: cannot be read\nand {folder.path}: neither")
    text = folder.log_file.read_text()
    assert "DOE JANE" not in text
    assert text.endswith("<site>\nand <site>\n")
