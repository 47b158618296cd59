"""Images with their own low-resolution files: recognised by name and size, used as they are, said in words."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resolute import run
from resolute.attacks.registry import AttackTable
from resolute.errors import BrokenImageError, ImageError, ImageNote, ImageWarning
from resolute.images import from_uint8, read_image, sample_image, to_uint8, write_png
from resolute.marks import marks_of_file
from resolute.pairing import matched_images, read_pair
from resolute.resize import downscale, mod_crop
from resolute.studies.check import Check
from resolute.studies.grid import Grid
from resolute.training.judge import photographs
from resolute.training.patches import Patches


def photo(side=64, at=0):
    return sample_image("coffee")[:, 100 + at : 100 + at + side, 150 : 150 + side]


def write_pair(high: Path, low: Path, scale=4, side=64, at=0):
    """Write a photograph and a low-resolution form that no resizing here makes of it: with its corner marked."""
    image = to_uint8(photo(side, at))
    small = downscale(mod_crop(image, scale), scale).copy()
    small[0, 0] = (255, 0, 255)
    for path, pixels in ((high, image), (low, small)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return from_uint8(small), from_uint8(image)


LAYOUTS = {
    "srf": ("image_SRF_4/img_001_SRF_4_HR.png", "image_SRF_4/img_001_SRF_4_LR.png", "image_SRF_4"),
    "around": ("baby_HR_x4.png", "baby_LR_x4.png", "."),
    "div2k": ("0801.png", "0801x4.png", "."),
    "div2k folders": ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X4/0801x4.png", "."),
    "folders": ("Set5/HR/baby.png", "Set5/LR_bicubic/X4/babyx4.png", "Set5"),
    "same names": ("Set5/GTmod12/baby.png", "Set5/LRbicx4/baby.png", "Set5"),
    "in front": ("HR_baby.png", "LR_baby.png", "."),
    "glued": ("babyHR.png", "babyLR.png", "."),
    "other kinds of file": ("baby_HR.png", "baby_LR.bmp", "."),
    "parent": ("image_SRF_4/img_001_SRF_4_HR.png", "image_SRF_4/img_001_SRF_4_LR.png", "."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_releases_are_pairs(layout, tmp_path):
    high, low, root = LAYOUTS[layout]
    write_pair(tmp_path / high, tmp_path / low)
    for truth in (True, False):
        with pytest.warns(ImageNote, match="1 pair"):
            (image,) = matched_images([tmp_path / root], 4, high=truth)
        assert (image.path, image.low) == (tmp_path / high, tmp_path / low)
        assert image.name in ("img_001", "baby", "0801")


def test_two_folders_can_be_named(tmp_path):
    for number in range(3):
        write_pair(tmp_path / f"big/{number}.png", tmp_path / f"small/{number}.png", at=number)
    write_png(tmp_path / "big" / "9.png", photo(48, 9))
    with pytest.warns(ImageNote, match=r"3 pairs.*1 without a partner"):
        found = matched_images([tmp_path / "big", tmp_path / "small"], 4)
    assert [image.low is not None for image in found] == [True, True, True, False]


def test_of_several_scales_the_models_is_taken(tmp_path):
    for scale in (2, 4):
        write_pair(tmp_path / "HR/a.png", tmp_path / f"LR_bicubic/X{scale}/ax{scale}.png", scale)
    write_pair(tmp_path / "b.png", tmp_path / "bx2.png", 2)
    write_pair(tmp_path / "b.png", tmp_path / "bx4.png", 4)
    files = [tmp_path / name for name in ("b.png", "bx2.png", "bx4.png", "HR", "LR_bicubic/X2", "LR_bicubic/X4")]
    for scale in (2, 4):
        with pytest.warns(ImageNote, match=r"2 pairs.*2 other forms"):
            found = matched_images(files, scale)
        assert [image.low.name for image in found] == [f"bx{scale}.png", f"ax{scale}.png"]


def test_results_of_methods_beside_a_pair_are_no_images(tmp_path):
    stem = tmp_path / "img_001_SRF_4"
    write_pair(Path(f"{stem}_HR.png"), Path(f"{stem}_LR.png"))
    for method in ("bicubic", "SRCNN"):
        write_png(f"{stem}_{method}.png", photo())
    with pytest.warns(ImageNote, match="2 other forms"):
        assert len(matched_images([tmp_path], 4)) == 1


@pytest.mark.parametrize("names", [("a_HR.png", "a_LR.png"), ("a.png", "ax4.png"), ("a.png", "a_LR.png")])
def test_another_size_ratio_is_told_with_both_sizes_and_the_scale(names, tmp_path):
    write_png(tmp_path / names[0], photo(64))
    write_png(tmp_path / names[1], photo(20))
    with pytest.raises(ImageError, match=r"20 x 20.*64 x 64.*scale 4") as caught:
        matched_images([tmp_path], 4)
    assert "\n" not in str(caught.value)


def test_names_alone_make_no_pair(tmp_path):
    for name, side in (("a.png", 32), ("ax4.png", 128), ("b_HR.png", 40), ("b.png", 40), ("c.png", 40), ("c.jpg", 40)):
        write_png(tmp_path / name, torch.rand(3, side, side))
    assert all(image.low is None for image in matched_images([tmp_path], 4))


def test_two_low_resolution_forms_are_not_chosen_from(tmp_path):
    for kind in ("bicubic", "unknown"):
        write_pair(tmp_path / "V_HR/1.png", tmp_path / f"V_LR_{kind}/X4/1x4.png")
    with pytest.raises(ImageError, match=r"V_LR_bicubic.*V_LR_unknown"):
        matched_images([tmp_path], 4)


def test_sizes_may_differ_by_a_part_of_a_pixel(tmp_path):
    pixels = to_uint8(sample_image("coffee")[:, :67, :81])
    for name, low in (("cut", (16, 20)), ("added", (17, 21))):
        Image.fromarray(pixels).save(tmp_path / f"{name}_HR.png")
        Image.fromarray(np.zeros((*low, 3), np.uint8)).save(tmp_path / f"{name}_LR.png")
    with pytest.warns(ImageNote):
        found = matched_images([tmp_path], 4)
    for image in found:
        low, high = read_pair(image.path, image.low, 4)
        assert (low.shape, high.shape) == ((16, 20, 3), (64, 80, 3))
        assert np.array_equal(high, pixels[:64, :80])


def test_a_camera_that_was_turned_changes_no_ratio(tmp_path):
    pixels = to_uint8(sample_image("coffee")[:, :48, :80])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a_HR.jpg", exif=exif)
    Image.fromarray(downscale(np.rot90(pixels, -1).copy(), 4)).save(tmp_path / "a_LR.png")
    with pytest.warns(ImageNote):
        (image,) = matched_images([tmp_path], 4)
    low, high = read_pair(image.path, image.low, 4)
    assert (low.shape, high.shape) == ((20, 12, 3), (80, 48, 3))


def test_what_looks_like_the_shrunk_form_of_another_is_told(tmp_path):
    for number in range(2):
        write_pair(tmp_path / f"p{number}.png", tmp_path / f"q{number}.png", at=40 * number)
    write_png(tmp_path / "other.png", sample_image("chelsea")[:, 100:116, 200:216])
    with pytest.warns(ImageWarning, match=r"2 images look.*q0\.png of p0\.png"):
        assert len(matched_images([tmp_path], 4)) == 5


def test_pairs_of_two_pictures_are_told_and_poor_ones_of_one_are_not(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(("coffee", "chelsea")):
        image = sample_image(name)[:, 60:188, 100:228]
        low = from_uint8(downscale(to_uint8(image), 4))
        write_png(tmp_path / f"{number}_HR.png", image)
        write_png(tmp_path / f"{number}_LR.png", 0.6 * low + 0.1 + 0.1 * torch.randn(low.shape, generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageWarning)
        with pytest.warns(ImageNote):
            matched_images([tmp_path], 4)
    (tmp_path / "0_LR.png").write_bytes((tmp_path / "1_LR.png").read_bytes())
    with pytest.warns(ImageNote), pytest.warns(ImageWarning, match=r"1 of 2 pairs .*0_LR\.png and 0_HR\.png"):
        matched_images([tmp_path], 4)


def test_other_images_of_fitting_sizes_are_not_suspected(tmp_path):
    for name, at in (("astronaut", 0), ("coffee", 60), ("chelsea", 100)):
        image = sample_image(name)[:, at : at + 128, 100:228]
        write_png(tmp_path / f"{name}.png", image)
        write_png(tmp_path / f"{name}-detail.png", image[:, :32, :32])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(matched_images([tmp_path], 4)) == 6


def test_marks_of_folders_count_where_a_file_says_nothing():
    assert marks_of_file(Path("LR/X4/a.png")).role == "low"
    assert marks_of_file(Path("Set5_HR/a.png")).role == "high"
    assert marks_of_file(Path("HR/a_LR.png")).role == "low"
    assert [marks_of_file(Path(name)).rest for name in ("HR/a_b.png", "x/flower.png", "x/hr.png")] == [
        "a_b",
        "flower",
        "x",
    ]


@pytest.mark.parametrize("high_resolution", [True, False])
@pytest.mark.parametrize("crop", [0, 32])
def test_a_study_uses_both_as_they_are(high_resolution, crop, tmp_path):
    low, high = write_pair(tmp_path / "HR/a.png", tmp_path / "LR/ax4.png")
    side = crop // 4 if high_resolution else crop
    study = Grid(
        name="own", models=("bicubic",), attacks=(AttackTable("fgsm"),), epsilons=(4,), images=(str(tmp_path),),
        high_resolution=high_resolution, crop=crop,
    )  # fmt: skip
    with pytest.warns(ImageNote):
        (subject,) = study.subjects()
    with pytest.warns(ImageNote):
        (record,) = run(study, tmp_path / "out")
    with pytest.warns(ImageNote):
        facts = study.facts(study.cells())
    start = (16 - side) // 2 if side and side < 16 else 0
    part = slice(start, start + side if side else None)
    assert torch.equal(subject.low[0], low[:, part, part])
    assert torch.equal(subject.truth[0], high[:, 4 * start : 4 * (start + side) if side else None][:, :, 4 * start :][
        :, :, : subject.truth.shape[-1]
    ])  # fmt: skip
    assert record.clean_psnr_y is not None
    assert "1 of 1 images" in facts["low-resolution images"]


def test_a_check_takes_the_low_resolution_files(tmp_path):
    low, _ = write_pair(tmp_path / "a_HR.png", tmp_path / "a_LR.png")
    with pytest.warns(ImageNote):
        (cell,) = Check(models=("bicubic",), images=(str(tmp_path),)).cells()
    assert torch.equal(cell.low[0], low)


def test_hardening_trains_and_judges_on_pairs_as_they_are(tmp_path):
    low, high = write_pair(tmp_path / "a_HR.png", tmp_path / "a_LR.png")
    with pytest.warns(ImageNote):
        (judged,) = photographs([tmp_path], 4, 5)
    with pytest.warns(ImageNote):
        ((small, large),) = Patches([tmp_path], 4, 8).training
    for one, other in ((judged.low, low), (judged.high, high), (small, low), (large, high)):
        assert torch.equal(from_uint8(one), other)


def test_one_broken_file_is_named_or_left_out_and_counted(tmp_path):
    for number in range(3):
        write_png(tmp_path / f"{number}.png", photo(48, number))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    study = Check(models=("bicubic",), images=(str(tmp_path),))
    with pytest.raises(BrokenImageError, match=r"1\.png.*--skip-broken"):
        study.cells()
    with pytest.warns(ImageWarning, match=r"1 of 3 images left out.*1\.png"):
        assert len(Check(models=("bicubic",), images=(str(tmp_path),), skip_broken=True).cells()) == 2


def test_a_broken_half_of_a_pair_is_named(tmp_path):
    write_pair(tmp_path / "a_HR.png", tmp_path / "a_LR.png")
    (tmp_path / "a_LR.png").write_bytes(b"nothing")
    with pytest.warns(ImageNote):
        (image,) = matched_images([tmp_path], 4)
    with pytest.raises(BrokenImageError, match=r"a_LR\.png"):
        read_image(image.low)


def test_two_pictures_of_one_name_are_no_pair(tmp_path):
    for folder, name, side in (("one", "coffee", 128), ("other", "chelsea", 32)):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "1.png", sample_image(name)[:, 100 : 100 + side, 100 : 100 + side])
    assert [image.low for image in matched_images([tmp_path / "one", tmp_path / "other"], 4)] == [None, None]
