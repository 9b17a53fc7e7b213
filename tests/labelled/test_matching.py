"""Classes of a test set beside the teacher's: matched, offered, or left out and told."""

import numpy as np
import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.labelled.labels import Labels, renamed, told_apart
from kd3_pipeline.labelled.matching import matched
from kd3_pipeline.labelled.names import ClassNames

NAMES = ["ant", "bee", "cat"]
TWICE = ["crane", "fox", "crane"]  # as ImageNet has it


def match(names, labels, teacher, alike=False, within="") -> Labels:
    found = Labels(np.array(labels, np.int64), list(names))
    return matched(found, teacher, "here", "evaluate", alike, within)


def test_labels_follow_the_teachers_order_of_the_names():
    assert match(NAMES, [0, 1, 2, 0], NAMES).labels.tolist() == [0, 1, 2, 0]
    assert match(NAMES, [0, 1, 2, 0], ["cat", "ant", "bee"]).labels.tolist() == [1, 2, 0, 1]


def test_images_of_other_classes_are_left_out_and_counted():
    found = match(NAMES, [0, 1, 1, 2], ["cat", "dog", "ant"])
    assert found.labels.tolist() == [2, -1, -1, 0]
    assert any("2 images are of classes that the teacher does not know" in n for n in found.notes)
    assert any("bee 2" in note for note in found.notes)


def test_a_set_without_a_class_of_the_teacher_shows_both_lists():
    with pytest.raises(UserError) as caught:
        match(NAMES, [0], ["dog", "emu"])
    assert "none of the classes of here (ant, bee, cat) is one of the teacher's (dog, emu)" in str(
        caught.value
    )
    assert "set evaluate.class_names: {ant: dog, …}" in str(caught.value)


def test_a_long_list_of_names_is_cut_and_counted():
    with pytest.raises(UserError, match=r"n11, … 100 in all"):
        match(NAMES, [0], [f"n{index}" for index in range(100)])


def test_a_teacher_whose_classes_have_no_names_is_the_cause():
    with pytest.raises(UserError, match=r"set teacher\.class_names in the order"):
        match(NAMES, [0], ["class 0", "class 1"])


def test_folders_that_are_numbers_are_not_taken_for_outputs():
    with pytest.raises(UserError, match=r"if they number the teacher's outputs.*\[cat, dog\]"):
        match(["0", "1"], [0, 1], ["cat", "dog"])
    found = renamed(Labels(np.array([0, 1, 2]), ["0", "1", "10"]), ClassNames([*"abcdefghijk"]), "")
    assert found.names == ["a", "b", "k"]


def test_labels_without_names_must_be_within_the_teachers_classes():
    found = match([], [0, 3], ["a", "b", "c", "d"])
    assert found.labels.tolist() == [0, 3]
    assert any("0 is a, 1 is b, 2 is c, 3 is d" in note for note in found.notes)
    with pytest.raises(UserError, match="here has label 3, but the teacher has 3 classes, from 0"):
        match([], [0, 3], NAMES)
    with pytest.raises(UserError, match="may be counted from 1"):
        match([], [1, 2, 3], NAMES)


def test_two_classes_of_one_name_are_told_apart_by_their_number():
    assert match(TWICE, [0, 1, 2, 0], TWICE).labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("theirs", [["fox", "crane", "crane"], ["crane", "fox", "owl"]])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_name_of_two_classes_in_another_order_is_an_error(theirs, swapped):
    own, teacher = (TWICE, theirs) if swapped else (theirs, TWICE)
    with pytest.raises(UserError, match="'crane' is the name of two classes"):
        match(own, [0, 1, 2], teacher)


def test_names_of_two_classes_have_their_numbers_in_results():
    assert told_apart(TWICE) == ["crane (class 0)", "fox", "crane (class 2)"]
    assert told_apart(NAMES) == NAMES


LIKE = ["Red_Fox", "arctic-fox", "cat"]
TEACHER = ["cat", "red fox", "Arctic Fox"]


def test_names_that_differ_in_spelling_alone_are_offered_and_not_guessed():
    with pytest.raises(UserError) as caught:
        match(LIKE, [0, 1, 2], TEACHER)
    text = str(caught.value)
    assert "'Red_Fox' may be 'red fox', 'arctic-fox' may be 'Arctic Fox'" in text
    assert "evaluate.class_names: {Red_Fox: red fox, arctic-fox: Arctic Fox}" in text
    with pytest.raises(UserError, match=r'\{"dog ": dog\}'):
        match(["dog "], [0], ["dog"])


def test_names_that_differ_in_spelling_alone_are_taken_where_that_is_asked_for_and_told():
    found = match(LIKE, [0, 1, 2], TEACHER, alike=True)
    assert found.labels.tolist() == [1, 2, 0]
    assert any("'Red_Fox' as 'red fox', 'arctic-fox' as 'Arctic Fox'" in n for n in found.notes)


def test_a_name_that_could_be_two_of_the_teachers_is_neither():
    with pytest.raises(UserError, match="none of the classes"):
        match(["Red_Fox"], [0], ["red fox", "red-fox"], alike=True)


# other names


def test_a_mapping_renames_classes_and_brings_some_together():
    found = renamed(
        Labels(np.array([0, 1, 2, -1]), ["hound", "mare", "poodle"]),
        ClassNames(renamed={"hound": "dog", "poodle": "dog", "mare": "horse"}),
        "evaluate.class_names",
    )
    assert found.names == ["dog", "horse"]
    assert found.labels.tolist() == [0, 1, 0, -1]


def test_a_list_names_labels_that_are_numbers():
    found = renamed(Labels(np.array([1, 0]), []), ClassNames(["dog", "horse"]), "")
    assert found.names == ["dog", "horse"]
    with pytest.raises(UserError, match=r"evaluate\.class_names has no name for the label 2"):
        renamed(Labels(np.array([2]), []), ClassNames(["a", "b"]), "evaluate.class_names")


def test_a_list_says_nothing_about_classes_that_have_other_names():
    with pytest.raises(UserError, match="make it a mapping"):
        renamed(Labels(np.array([0]), ["n0144"]), ClassNames(["tench"]), "evaluate.class_names")


def test_a_mapping_may_name_some_numbers_only():
    given = ClassNames(renamed={"0": "dog", "7": "horse"})
    found = renamed(Labels(np.array([7, 0]), []), given, "evaluate.class_names")
    assert [found.names[label] for label in found.labels] == ["horse", "dog"]
    with pytest.raises(UserError, match=r"evaluate\.class_names has no name for the label 3"):
        renamed(Labels(np.array([7, 3]), []), given, "evaluate.class_names")


def test_a_list_that_has_a_name_twice_means_two_classes():
    found = renamed(Labels(np.array([2, 0]), []), ClassNames(TWICE), "evaluate.class_names")
    assert (found.names, found.labels.tolist()) == (TWICE, [2, 0])
