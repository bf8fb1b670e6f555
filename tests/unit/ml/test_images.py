"""Grey levels per encoding, against the formulas of PS3.3 C.11 written out, and against DCMTK where installed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from clinic_ai.errors import InputError
from clinic_ai.ml import dicom_pixels
from clinic_ai.ml.greys import average_blocks
from clinic_ai.ml.images import load_grey

RAMP = np.arange(64 * 48, dtype=np.int32).reshape(64, 48)


def dicom(path, stored, *, bits=16, syntax=ExplicitVRLittleEndian, photometric="MONOCHROME2", **attributes):
    """Write ``stored`` (rows, columns[, 3]) as a DICOM file with ``attributes`` and return its path."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    signed = np.issubdtype(stored.dtype, np.signedinteger)
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if photometric == "RGB" else stored.shape[-2:]
    dataset.SamplesPerPixel = 3 if photometric == "RGB" else 1
    if photometric == "RGB":
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = stored.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def linear(x, centre, width):
    """C.11.2.1.2.1, as the standard writes it, for one value and outputs 0..1."""
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (centre - 0.5)) / (width - 1) + 0.5


def expected(stored, function):
    return np.vectorize(function, otypes=[np.float64])(stored)


def test_window_after_rescale_of_signed_values(tmp_path):
    stored = (RAMP - 1500).astype(np.int16)
    path = dicom(tmp_path / "a", stored, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=40, WindowWidth=400)
    want = expected(stored * 2.0 - 100, lambda x: linear(x, 40, 400))
    np.testing.assert_allclose(load_grey(path).pixels, want, atol=1e-5)


def test_the_first_of_several_windows_counts(tmp_path):
    path = dicom(tmp_path / "a", RAMP.astype(np.uint16), WindowCenter=[1000, 50], WindowWidth=[500, 10])
    np.testing.assert_allclose(load_grey(path).pixels, expected(RAMP, lambda x: linear(x, 1000, 500)), atol=1e-5)


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        ("LINEAR_EXACT", lambda x: min(1.0, max(0.0, (x - 1000) / 500 + 0.5))),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 1000) / 500))),
    ],
)
def test_other_window_functions(tmp_path, function, formula):
    path = dicom(tmp_path / "a", RAMP.astype(np.uint16), WindowCenter=1000, WindowWidth=500, VOILUTFunction=function)
    np.testing.assert_allclose(load_grey(path).pixels, expected(RAMP, formula), atol=1e-5)


def test_monochrome1_shows_the_same_as_its_inverse_in_monochrome2(tmp_path):
    white = 4095
    two = dicom(tmp_path / "two", RAMP.astype(np.uint16), bits=12, WindowCenter=2048, WindowWidth=4096)
    one = dicom(
        tmp_path / "one",
        (white - RAMP).astype(np.uint16),
        bits=12,
        photometric="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        WindowCenter=2048,
        WindowWidth=4096,
    )
    np.testing.assert_allclose(load_grey(one).pixels, load_grey(two).pixels, atol=1e-6)
    assert load_grey(one).remarks == ()


def test_disagreeing_polarity_is_remarked(tmp_path):
    path = dicom(tmp_path / "a", RAMP.astype(np.uint16), photometric="MONOCHROME1", PresentationLUTShape="IDENTITY")
    assert any("disagree" in remark for remark in load_grey(path).remarks)


@pytest.mark.parametrize("monochrome", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("factor", [1, 4])
def test_padding_is_black_and_does_not_move_the_range(tmp_path, monochrome, factor):
    stored = (1000 + RAMP % 200).astype(np.int16)
    clean = dicom(tmp_path / "clean", stored, photometric=monochrome)
    padded = stored.copy()
    padded[:16] = -2000
    path = dicom(tmp_path / "padded", padded, photometric=monochrome, PixelPaddingValue=-2000)
    size = None if factor == 1 else (64 // factor // 2, 48 // factor // 2)
    got, want = load_grey(path, size=size).pixels, load_grey(clean, size=size).pixels
    rows = got.shape[0]
    assert got[: rows // 4 - 1].max() == 0.0
    # The same pixels in the same grey: percentiles over three quarters of the image move by a level at most.
    np.testing.assert_allclose(got[rows // 4 + 1 :], want[rows // 4 + 1 :], atol=0.02)


def test_padding_range_written_as_unsigned_in_a_signed_image(tmp_path):
    stored = (RAMP % 100).astype(np.int16)
    stored[:8] = -30
    stored[8:16] = -32
    path = dicom(
        tmp_path / "a",
        stored,
        syntax=ImplicitVRLittleEndian,
        PixelPaddingValue=-32,
        PixelPaddingRangeLimit=-30,
        WindowCenter=0,
        WindowWidth=200,
    )
    pixels = load_grey(path).pixels
    assert pixels[:16].max() == 0.0
    assert pixels[16:].min() > 0.4


def test_lookup_tables(tmp_path):
    stored = RAMP.astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor = [256, 100, 8]
    item.LUTData = np.arange(255, -1, -1, dtype=np.uint16).tobytes()
    path = dicom(tmp_path / "voi", stored, VOILUTSequence=Sequence([item]), WindowCenter=5, WindowWidth=2)
    want = expected(stored, lambda x: (255 - min(255, max(0, x - 100))) / 255)
    np.testing.assert_allclose(load_grey(path).pixels, want, atol=1e-6)
    modality = dicom(
        tmp_path / "modality",
        stored,
        ModalityLUTSequence=Sequence([item]),
        RescaleSlope=9,
        WindowCenter=128,
        WindowWidth=256,
    )
    want = expected(stored, lambda x: linear(255 - min(255, max(0, x - 100)), 128, 256))
    np.testing.assert_allclose(load_grey(modality).pixels, want, atol=1e-5)


def test_without_a_window_the_extremes_are_left_out(tmp_path):
    stored = (1000 + RAMP % 500).astype(np.uint16)
    stored[0, 0] = 65535
    image = load_grey(dicom(tmp_path / "a", stored))
    assert image.pixels[1:].min() == 0.0
    assert image.pixels[1:].max() == 1.0
    assert 0.4 < np.median(image.pixels) < 0.6
    assert "names no window" in image.remarks[0]


def test_eight_bits_without_a_window_are_shown_as_they_are(tmp_path):
    stored = (RAMP % 256).astype(np.uint8)
    image = load_grey(dicom(tmp_path / "a", stored, bits=8))
    np.testing.assert_allclose(image.pixels, stored / 255, atol=1e-6)
    assert image.remarks == ()


def test_frames_of_a_multi_frame_object_and_their_own_windows(tmp_path):
    stored = np.stack([RAMP, RAMP]).astype(np.uint16)
    groups = []
    for centre in (500, 2000):
        group, window = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 300
        group.FrameVOILUTSequence = Sequence([window])
        groups.append(group)
    path = dicom(tmp_path / "a", stored, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=Sequence(groups))
    for frame, centre in enumerate((500, 2000)):
        want = expected(RAMP, lambda x, centre=centre: linear(x, centre, 300))
        np.testing.assert_allclose(load_grey(path, frame=frame).pixels, want, atol=1e-5)
    with pytest.raises(InputError, match="Frame 3") as caught:
        load_grey(path, frame=2)
    assert caught.value.code == "no_such_frame"


def test_colour_becomes_luminance_and_says_how_colourful_it_was(tmp_path):
    stored = np.zeros((32, 32, 3), dtype=np.uint8)
    stored[:16] = (200, 0, 0)
    stored[16:] = (80, 80, 80)
    image = load_grey(dicom(tmp_path / "a", stored, bits=8, photometric="RGB"))
    assert image.pixels[0, 0] == pytest.approx(0.299 * 200 / 255, abs=1e-4)
    assert image.pixels[-1, 0] == pytest.approx(80 / 255, abs=1e-4)
    assert image.colour == pytest.approx(100 / 255, abs=0.01)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_pixels_equal_the_plain_ones(tmp_path, syntax):
    import pydicom

    plain = dicom(tmp_path / "plain", RAMP.astype(np.uint16), bits=12, WindowCenter=1500, WindowWidth=3000)
    dataset = pydicom.dcmread(plain)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "packed")
    np.testing.assert_array_equal(load_grey(tmp_path / "packed").pixels, load_grey(plain).pixels)


@pytest.mark.parametrize(("offset", "value"), [(6, 255), (10, 0)])  # of the frame header: rows beyond, no component
def test_a_damaged_jpeg_ls_stream_is_refused_and_ends_no_process(tmp_path, offset, value):
    import pydicom

    dataset = pydicom.dcmread(dicom(tmp_path / "plain", RAMP.astype(np.uint16), bits=12))
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "packed")
    content = bytearray((tmp_path / "packed").read_bytes())
    content[content.index(b"\xff\xd8\xff") + offset] = value
    (tmp_path / "damaged").write_bytes(content)
    script = (
        "import sys\nfrom clinic_ai.errors import InputError\nfrom clinic_ai.ml.images import load_grey\n"
        "try:\n    load_grey(sys.argv[1])\nexcept InputError as error:\n    print(error.code)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "damaged")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "cannot_decode"), done.stderr


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_the_chosen_decoder_gives_the_pixels_of_the_others(tmp_path, monkeypatch, syntax, bits, signed):
    import pydicom

    low = -(1 << (bits - 1)) if signed else 0
    kind = {(8, False): np.uint8, (8, True): np.int8}.get((bits, signed), np.int16 if signed else np.uint16)
    stored = (low + RAMP * 5 % (1 << bits)).astype(kind)
    plain = dicom(tmp_path / "plain", stored, bits=bits, WindowCenter=low + (1 << (bits - 1)), WindowWidth=1 << bits)
    dataset = pydicom.dcmread(plain)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "packed")
    chosen = load_grey(tmp_path / "packed").pixels
    np.testing.assert_array_equal(chosen, load_grey(plain).pixels)
    monkeypatch.setattr(dicom_pixels, "_DECODERS", {})
    np.testing.assert_array_equal(load_grey(tmp_path / "packed").pixels, chosen)


def test_deflated_files_are_read(tmp_path):
    path = dicom(
        tmp_path / "a", RAMP.astype(np.uint16), syntax=DeflatedExplicitVRLittleEndian, WindowCenter=9, WindowWidth=9
    )
    assert load_grey(path).pixels.max() == 1.0


def test_reduction_averages_and_scales_the_spacing(tmp_path):
    generator = np.random.default_rng(3)
    stored = generator.integers(0, 4096, (640, 480)).astype(np.uint16)
    path = dicom(tmp_path / "a", stored, PixelSpacing=[0.2, 0.1], WindowCenter=2048, WindowWidth=4096)
    image = load_grey(path, max_side=64)
    assert image.pixels.shape == (64, 48)
    assert image.source_shape == (640, 480)
    assert image.pixel_spacing_mm == pytest.approx((2.0, 1.0))
    assert image.pixels.mean() == pytest.approx(stored.mean() / 4095, abs=0.002)
    assert image.pixels.std() < 0.06  # noise averages out; picking single pixels would leave 0.29


def test_average_blocks_is_the_mean_of_each_block():
    values = np.arange(7 * 9, dtype=np.uint16).reshape(7, 9)
    want = [[values[r : r + 2, c : c + 2].mean() for c in range(0, 8, 2)] for r in range(0, 6, 2)]
    np.testing.assert_allclose(average_blocks(values, 2), want)


# ---------------------------------------------------------------- PNG and JPEG


def test_png_of_8_and_16_bits(tmp_path):
    eight = (RAMP % 256).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "8.png")
    np.testing.assert_allclose(load_grey(tmp_path / "8.png").pixels, eight / 255, atol=1e-6)
    sixteen = (RAMP * 21).astype(np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "16.png")
    np.testing.assert_allclose(load_grey(tmp_path / "16.png").pixels, sixteen / 65535, atol=1e-6)


def test_twelve_bit_data_in_a_16_bit_png_are_stretched(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "a.png")
    image = load_grey(tmp_path / "a.png")
    assert image.pixels.max() == 1.0
    assert image.remarks


def test_a_jpeg_is_decoded_small_and_turned_upright(tmp_path):
    picture = Image.new("L", (800, 400), 30)
    picture.paste(220, (0, 0, 400, 400))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise: the bright left half comes up
    picture.save(tmp_path / "a.jpg", exif=exif)
    image = load_grey(tmp_path / "a.jpg", max_side=80)
    assert image.source_shape == (800, 400)
    assert image.pixels.shape == (80, 40)
    assert image.pixels[:36].min() > 0.8
    assert image.pixels[44:].max() < 0.2


def test_transparency_is_laid_over_black(tmp_path):
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert load_grey(tmp_path / "a.png").pixels.max() == 0.0


# ---------------------------------------------------------------- refused


def test_what_cannot_be_decoded_is_refused_in_words(tmp_path):
    Image.fromarray((RAMP % 256).astype(np.uint8)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text").write_bytes(b"no image at all, though long enough to look at" * 9)
    whole = dicom(tmp_path / "whole", RAMP.astype(np.uint16)).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1000])
    codes = {}
    for name in ("cut.png", "text", "cut", "absent"):
        with pytest.raises(InputError) as caught:
            load_grey(tmp_path / name)
        codes[name] = caught.value.code
    assert codes == {
        "cut.png": "cannot_decode",
        "text": "no_pixels",
        "cut": "cannot_decode",
        "absent": "unreadable_file",
    }


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_pixels_that_are_not_numbers_are_refused(tmp_path, value):
    stored = RAMP.astype(np.float32)
    stored[5, 7] = value
    path = dicom(tmp_path / "a", RAMP.astype(np.uint32), bits=32, FloatPixelData=stored.tobytes())
    scan = pydicom.dcmread(path)
    del scan.PixelData
    scan.save_as(path)
    for size in (None, (16, 12)):  # as it is, and as a mean over blocks
        with pytest.raises(InputError, match="infinite or not numbers") as caught:
            load_grey(path, size=size)
        assert caught.value.code == "not_a_number"


def test_a_rescale_out_of_all_bounds_is_refused(tmp_path):
    path = dicom(tmp_path / "a", RAMP.astype(np.uint16), RescaleSlope="1e300", RescaleIntercept="0")
    with pytest.raises(InputError, match="infinite or not numbers"):
        load_grey(path)


def test_twelve_bit_jpeg_extended_names_the_remedy(tmp_path):
    import pydicom
    from pydicom.encaps import encapsulate

    path = dicom(tmp_path / "a", RAMP.astype(np.uint16), bits=12)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x40\x00\x30\x01\x01\x11\x00\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    dataset.save_as(path)
    with pytest.raises(InputError) as caught:
        load_grey(path)
    assert caught.value.code == "jpeg_extended_12_bit"
    assert "JPEG 2000" in caught.value.remedy


def test_a_frame_that_is_too_large_is_refused_before_decoding(tmp_path):
    path = dicom(tmp_path / "a", RAMP.astype(np.uint16), Rows=65000, Columns=65000)
    with pytest.raises(InputError) as caught:
        load_grey(path)
    assert caught.value.code == "image_too_large"


# ---------------------------------------------------------------- an independent reader


@pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="DCMTK's dcm2pnm is not installed")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
def test_dcmtk_shows_the_same(tmp_path, photometric, function):
    path = dicom(
        tmp_path / "a.dcm",
        (RAMP - 900).astype(np.int16),
        photometric=photometric,
        RescaleSlope=1.5,
        RescaleIntercept=12,
        WindowCenter=[900, 1],
        WindowWidth=[1800, 2],
        VOILUTFunction=function,
    )
    subprocess.run(["dcm2pnm", "+Wi", "1", "+op", path, tmp_path / "a.pgm"], check=True, capture_output=True)
    theirs = np.asarray(Image.open(tmp_path / "a.pgm"), dtype=np.float64) / 255
    assert np.abs(load_grey(path).pixels - theirs).max() < 2.5 / 255
