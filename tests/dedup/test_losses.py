import pyarrow as pa

from kd3_pipeline.dedup.losses import LOUD, emptied, unfit_losses
from kd3_pipeline.verdicts import SCHEMA

NAMES = {0: "fox", 1: "badger", 2: "deer"}


def verdicts(*rows):
    """Table of rows (labels, reason): the first label is the one that an image counts for."""
    columns = {name: [None] * len(rows) for name in SCHEMA.names}
    columns["label"] = [labels[0] for labels, _ in rows]
    columns["labels"] = [sorted(labels) for labels, _ in rows]
    columns["reason"] = [reason for _, reason in rows]
    columns["kept"] = [not reason for _, reason in rows]
    return pa.table(columns, schema=SCHEMA)


def test_a_class_is_loud_when_more_than_a_share_goes_for_what_it_shows():
    few = [((0,), "")] * 97 + [((0,), "low-information")] * 3
    more = [((1,), "")] * 96 + [((1,), "low-information")] * 3 + [((1,), "blurred")]
    assert LOUD == 0.03
    (loss,) = unfit_losses(verdicts(*few, *more), NAMES)
    assert (loss.name, loss.images, loss.dropped) == ("badger", 100, 4)
    assert loss.reasons == (("low-information", 3), ("blurred", 1))


def test_duplicates_leaks_and_broken_files_are_not_losses_of_what_is_shown():
    rows = [((0,), reason) for reason in ("near-duplicate", "leaked", "unreadable", "")]
    assert unfit_losses(verdicts(*rows), NAMES) == []


def test_the_worst_class_is_told_first():
    rows = [((0,), ""), ((0,), "dark"), ((1,), "dark"), ((2,), "dark"), ((2,), ""), ((2,), "")]
    names = [loss.name for loss in unfit_losses(verdicts(*rows), NAMES)]
    assert names == ["badger", "fox", "deer"]


def test_a_class_is_emptied_when_no_image_that_was_found_for_it_stays():
    rows = [((0,), ""), ((1,), "low-information"), ((1,), "leaked"), ((1,), "leaked")]
    (loss,) = emptied(verdicts(*rows), NAMES)
    assert (loss.name, loss.images) == ("badger", 3)
    assert loss.reasons == (("leaked", 2), ("low-information", 1))


def test_a_class_whose_images_stay_under_another_name_is_not_emptied():
    rows = [((0, 1), ""), ((0, 1), "near-duplicate"), ((1,), "low-information")]
    assert emptied(verdicts(*rows), NAMES) == []


def test_images_without_a_class_are_told_of_only_where_nothing_is_left():
    blank = ((-1,), "low-information")
    assert emptied(verdicts(((0,), ""), blank), NAMES) == []
    assert emptied(verdicts(((-1,), ""), blank), {}) == []
    (loss,) = emptied(verdicts(blank, blank), {})
    assert (loss.name, loss.images) == ("images without a class", 2)


def test_a_class_without_a_name_has_its_number():
    assert emptied(verdicts(((7,), "leaked")), NAMES)[0].name == "class 7"
