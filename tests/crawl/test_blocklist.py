"""Rules of a blocklist: what a line may be, and what it refuses."""

import hashlib
import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.crawl.blocklist import RADIUS, Blocklist, picture_hashes, read_blocklist
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import Candidate, Fetched, manifest
from tests.dedup.pictures import picture as drawn


def written(tmp_path, *lines):
    path = tmp_path / "blocked.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, **(options or {"format": "PNG"}))
    return out.getvalue()


def test_a_host_stands_for_all_below_it_and_for_nothing_beside_it(tmp_path):
    rules = read_blocklist(
        written(tmp_path, "Example.ORG.", "bücher.example", "192.0.2.7", "[::1]")
    )
    refused = [
        "https://example.org/a.jpg",
        "http://user@CDN.eu.example.org:8080/a.jpg",
        "https://example.org./a.jpg",
        "https://xn--bcher-kva.example/a.jpg",
        "https://www.BÜCHER.example/",
        "http://192.0.2.7/a.jpg",
        "http://[0:0::1]/a.jpg",
    ]
    assert [rules.host(address) for address in refused] == [
        *["host example.org"] * 3,
        *["host xn--bcher-kva.example"] * 2,
        "host 192.0.2.7",
        "host ::1",
    ]
    allowed = [
        "https://notexample.org/",
        "https://example.org.evil.test/example.org",
        "https://example.com/?u=https://example.org/",
        "cat/example.org/1.jpg",
        "",
        "https://[broken/",
        "http://192.0.2.70/",
    ]
    assert [rules.host(address) for address in allowed] == [""] * len(allowed)


def test_comments_and_empty_lines_are_no_rules(tmp_path):
    digits = "AB" * 32
    rules = read_blocklist(
        written(tmp_path, "# all of it", "", f"  {digits}  # by request", "a.example\t#b", "#c")
    )
    assert (rules.hosts, rules.ids, len(rules.hashes)) == ({"a.example"}, {digits.lower()}, 0)
    assert read_blocklist(written(tmp_path, "\ufeffa.example")).hosts == {"a.example"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0" * 32, "an MD5"),
        ("0" * 40, "a SHA-1"),
        ("0" * 63, "63 hex digits"),
        ("https://a.example/x.jpg", "no host name"),
        ("*.a.example", "no host name"),
        ("0.0.0.0 a.example", "no host name"),
        ("localhost", "no host name"),
        ("a..example", "no host name"),
        ("-a.example", "no host name"),
        ("someone@a.example", "no host name"),
        ("a.example?b", "no host name"),
        ("a.example:80", "does not appear to be"),
        ("300.1.1.1", "does not appear to be"),
        ("a b", "no host name"),
    ],
)
def test_a_line_that_is_no_rule_is_an_error_with_its_place(tmp_path, line, said):
    path = written(tmp_path, "# first", "a.example", line)
    with pytest.raises(UserError) as error:
        read_blocklist(path)
    assert f"{path}, line 3: " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"crawl\.blocklist: cannot read"):
        read_blocklist(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"crawl\.blocklist: cannot read"):
        read_blocklist(tmp_path / "binary")


def test_hashes_of_a_picture_are_those_of_the_library():
    image = drawn(3, 90, 70)
    turns = [image, *(image.transpose(turn) for turn in Image.Transpose)]
    theirs = {int(str(imagehash.phash(one)), 16) for one in turns}
    ours = picture_hashes(image).tolist()
    assert ours[0] == int(str(imagehash.phash(image)), 16)
    # the library resizes after the turn; that may flip a bit whose value is at the median
    assert all(min((one ^ other).bit_count() for other in theirs) <= 2 for one in ours)


def test_a_listed_picture_is_refused_small_recompressed_mirrored_and_turned(tmp_path):
    image = drawn(5, 300, 200)
    rules = read_blocklist(written(tmp_path, str(imagehash.phash(image))))
    copies = [
        image,
        image.resize((90, 60), Image.Resampling.BICUBIC),
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        image.transpose(Image.Transpose.ROTATE_90),
        image.transpose(Image.Transpose.TRANSVERSE),
    ]
    for copy in copies:
        for options in ({"format": "PNG"}, {"format": "JPEG", "quality": 30}):
            outcome, detail = rules.image(encoded(copy.convert("RGB"), **options))
            assert outcome == "blocked"
            assert detail.startswith("phash ")


def test_other_pictures_are_not_refused(tmp_path):
    lines = [str(imagehash.phash(drawn(index, 96, 96))) for index in range(60)]
    rules = read_blocklist(written(tmp_path, *lines))
    noise = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    plain = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black", "red")]
    for image in [*map(Image.fromarray, noise), *plain]:
        assert rules.image(encoded(image)) is None


def test_the_radius_is_the_one_that_is_told(tmp_path):
    image = drawn(7, 80, 80)
    own = int(str(imagehash.phash(image)), 16)
    for bits, refused in ((RADIUS, True), (RADIUS + 1, False)):
        other = own ^ ((1 << bits) - 1)
        rules = read_blocklist(written(tmp_path, f"{other:016x}"))
        found = rules.alike(np.array([own], np.uint64))
        assert found == (f"phash {own:016x}, {bits} bits away" if refused else "")


def test_an_id_is_that_of_the_bytes(tmp_path):
    data, other = encoded(drawn(1, 50, 50)), encoded(drawn(2, 50, 50))
    id = hashlib.sha256(data).hexdigest()
    rules = read_blocklist(written(tmp_path, id.upper()))
    assert rules.image(data) == ("blocked", f"SHA-256 {id}")
    assert rules.image(other) is None
    outcome, detail = Blocklist(forgotten=frozenset([id])).image(data)
    assert (outcome, id in detail) == ("forgotten", True)


def test_an_empty_list_decodes_nothing():
    assert Blocklist().image(b"no image at all") is None
    assert Blocklist().host("https://a.example/") == ""


def test_a_record_is_asked_again_once_its_rule_is_gone(tmp_path):
    id, hash = "ab" * 32, "0123456789abcdef"
    rules = read_blocklist(written(tmp_path, id, hash, "a.example"))
    details = [f"SHA-256 {id}", f"phash {hash}, 2 bits away", "host a.example"]
    records = [Fetched("https://x.test/1.jpg", "blocked", detail) for detail in details]
    assert [rules.holds_still(one) for one in records] == [True] * 3
    near = Fetched("https://x.test/1.jpg", "blocked", "phash 0123456789abcdee, 2 bits away")
    assert rules.holds_still(near)
    assert [Blocklist().holds_still(one) for one in [*records, near]] == [False] * 4
    assert not rules.holds_still(Fetched("https://x.test/1.jpg", "blocked", "phash zz, of old"))


def test_a_blocked_row_of_the_manifest_names_no_place_and_no_whole_hash():
    id = "ab" * 32
    bad = Candidate(
        0, "cat", "bing", "cat", 0, "https://a.example/1.jpg", "https://a.example/", "title",
        "https://t.example/1", original="https://a.example/full.jpg", creator="somebody",
    )  # fmt: skip
    good = Candidate(0, "cat", "bing", "cat", 1, "https://b.example/2.jpg", "https://b.example/")
    found = {
        bad: Fetched(bad.url, "blocked", f"SHA-256 {id}", final_url="https://a.example/x"),
        good: Fetched(good.url, "http_error", f"as it came {id}"),
    }
    first, second = manifest([bad, good], found).to_pylist()
    assert "example" not in str(first)
    assert "somebody" not in str(first)
    assert (first["outcome"], first["detail"]) == ("blocked", "SHA-256 abababab…")
    assert (first["class"], first["query"], first["rank"]) == ("cat", "cat", 0)
    assert (second["url"], second["detail"]) == (good.url, f"as it came {id}")
