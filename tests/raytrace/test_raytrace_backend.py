"""The choice of LLVM, on made-up folders and in a fresh process."""

import json
import os
import sys
from pathlib import Path

import pytest
from processes import python

from wavecity.geo.errors import InputError
from wavecity.raytrace import backend


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("libLLVM.so.23.1", (23, 1)),
        ("libLLVM-14.0.6.so.1", (14, 0, 6)),
        ("libLLVM-15.so", (15,)),
        ("libLLVM.so", ()),
        ("libLLVM-19.dylib", (19,)),
    ],
)
def test_version_is_read_from_the_name(tmp_path: Path, name: str, version: tuple[int, ...]) -> None:
    assert backend.llvm_version(touch(tmp_path, name)[0]) == version


def test_bare_name_has_the_version_of_what_it_links_to(tmp_path: Path) -> None:
    touch(tmp_path, "libLLVM.so.22.1")
    (tmp_path / "libLLVM.so").symlink_to("libLLVM.so.22.1")
    assert backend.llvm_version(tmp_path / "libLLVM.so") == (22, 1)


def test_newest_is_picked(tmp_path: Path) -> None:
    touch(tmp_path, "libLLVM-14.so", "libLLVM-9.so", "libLLVM.so.19.1")
    picked = backend.pick_llvm(backend.libraries([tmp_path]), avx512=False)
    assert picked == tmp_path / "libLLVM.so.19.1"


def test_old_ones_are_refused_on_avx512(tmp_path: Path) -> None:
    paths = touch(tmp_path, "libLLVM-14.so.1", "libLLVM-15.so.1")
    assert backend.pick_llvm(paths, avx512=False) == paths[1]
    assert backend.pick_llvm(paths, avx512=True) is None
    newer = touch(tmp_path, "libLLVM-16.so.1")
    assert backend.pick_llvm([*paths, *newer], avx512=True) == newer[0]


@pytest.mark.parametrize(
    ("flags", "has"), [("fpu avx2", False), ("fpu avx2 avx512f", True), ("avx512f avx512_fp16", True)]
)
def test_avx512_counts_even_where_no_fp16_is_listed(flags: str, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine may hide the flag of what LLVM then finds by asking the CPU."""
    monkeypatch.setattr(Path, "read_text", lambda path: f"processor\t: 0\nflags\t\t: {flags}\n")
    assert backend.has_avx512() is has


def test_wheel_goes_before_a_newer_system_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "system").mkdir()
    wheel = touch(tmp_path / "lib", "libLLVM.so.23.1")[0]
    system = touch(tmp_path / "system", "libLLVM.so.24.1")[0]
    monkeypatch.delenv(backend.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(backend, "SYSTEM_FOLDERS", (str(tmp_path / "sys*"),))
    assert backend.find_llvm() == wheel
    wheel.unlink()
    assert backend.find_llvm() == system


def test_none_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backend.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(backend, "SYSTEM_FOLDERS", ())
    with pytest.raises(InputError, match="pip install karellen-llvm-core"):
        backend.find_llvm()


def test_users_choice_is_respected_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = touch(tmp_path, "libLLVM-mine.so")[0]
    monkeypatch.setenv(backend.LIBRARY_VARIABLE, str(mine))
    assert backend.find_llvm() == mine
    monkeypatch.setenv(backend.LIBRARY_VARIABLE, str(tmp_path / "gone.so"))
    with pytest.raises(InputError, match=r"gone\.so is not a file"):
        backend.find_llvm()


def test_fresh_process_is_prepared_once() -> None:
    code = (
        "import json; from wavecity.raytrace.backend import prepare; first = prepare(1); second = prepare(); third = prepare(2);"
        "print(json.dumps([first.variant, first.library, first.threads, second.threads, third.threads]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != backend.LIBRARY_VARIABLE}
    variant, library, *threads = json.loads(python(code, env=environment).splitlines()[-1])
    assert threads == [1, 1, 2]
    assert (variant == "cuda_ad_mono_polarized") == backend.has_cuda()
    if variant.startswith("llvm"):
        assert Path(library).is_file()
