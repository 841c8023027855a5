"""What words and numbers mean."""

from __future__ import annotations

import numpy as np
import pytest

from hbdp_fed.data.defects import LABEL, NO_CLASS, Defect
from hbdp_fed.data.own.classes import TWO_CLASSES, check_class_names, class_of, classes_of_mask, names_of
from hbdp_fed.errors import SettingError

THREE = ("background", "liver", "tumour")


def test_occurring_labels_are_sorted_as_what_they_are() -> None:
    assert names_of(["b", "a", "b"]) == ("a", "b")
    assert names_of(["10", "9", "9"]) == ("9", "10")
    assert names_of(["10", "9", "x"]) == ("10", "9", "x")


def test_a_class_is_named_or_numbered() -> None:
    assert [class_of(label, THREE) for label in ("liver", "2", "0")] == [1, 2, 0]
    # Where names are numbers, the name is meant.
    assert class_of("1", ("1", "2")) == 0
    for label in ("3", "-1", "1.0", "Liver", ""):
        with pytest.raises(Defect, match=r"the classes are background, liver, tumour \(or 0 to 2\)") as caught:
            class_of(label, THREE)
        assert caught.value.kind == LABEL


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_numbers_of_a_mask_are_classes(
    dtype: type,
) -> None:
    values = np.array([[0, 1], [2, 2]], dtype=dtype)
    np.testing.assert_array_equal(classes_of_mask(values, THREE), values)


def test_of_two_classes_white_is_the_second() -> None:
    np.testing.assert_array_equal(classes_of_mask(np.array([0, 255, 255]), TWO_CLASSES), [0, 1, 1])
    np.testing.assert_array_equal(classes_of_mask(np.array([0, 1]), TWO_CLASSES), [0, 1])
    for strange in ([0, 1, 255], [0, 2]):
        with pytest.raises(Defect, match="but the classes are 0 to 1") as caught:
            classes_of_mask(np.array(strange), TWO_CLASSES)
        assert caught.value.kind == LABEL


@pytest.mark.parametrize("strange", [3.0, -1.0, 0.5, np.nan, np.inf, 1e9])
def test_any_other_number_is_refused(strange: float) -> None:
    with pytest.raises(Defect) as caught:
        classes_of_mask(np.array([0.0, 1.0, strange]), THREE)
    assert caught.value.kind == LABEL
    assert f"holds {strange:g}," in caught.value.text


def test_a_mask_has_to_show_something() -> None:
    with pytest.raises(Defect, match="holds nothing but background: none of liver, tumour") as caught:
        classes_of_mask(np.zeros((3, 3)), THREE)
    assert caught.value.kind == NO_CLASS


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"], ["a", " "], "ab", [str(n) for n in range(300)]])
def test_names_have_to_tell_classes_apart(names: list[str]) -> None:
    with pytest.raises(SettingError, match=r"^data\.class_names: must be"):
        check_class_names(names)


def test_names_may_be_left_out() -> None:
    assert check_class_names(None) is None
    assert check_class_names(["no", "yes"]) == ("no", "yes")
