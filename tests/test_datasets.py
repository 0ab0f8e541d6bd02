"""vision.datasets and CSVDataset: small files written here are read right, and bad ones are refused by name."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.utils.data import CSVDataset, DataLoader
from tilewright.vision import datasets, transforms

RNG = np.random.default_rng(0)
CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx(values):
    head = bytes([0, 0, CODES[str(values.dtype)], values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, dtype, zipped):
    values = RNG.integers(0, 100, (3, 4, 2)).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(values)) if zipped else idx(values))
    found = datasets.read_idx(path)
    assert str(found.dtype).endswith(dtype) and (found.numpy() == values).all()


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize("data, words", [
    (b"", "must begin with 0, 0"), (b"\x01" + GOOD[1:], "must begin with 0, 0"),
    (GOOD[:2] + b"\x07" + GOOD[3:], "must begin"),
    (GOOD[:-1], r"must have 18 bytes for shape \(2, 3\), got 17"), (GOOD + b"x", "must have 18 bytes"),
    (GOOD[:9], "must have"), (gzip.compress(GOOD)[:-9], "must be a whole gzip file"),
    (gzip.compress(GOOD)[:-8] + bytes(8), "must be a whole gzip file"),
])  # fmt: skip
def test_idx_refusals(tmp_path, data, words):
    path = tmp_path / "train-images"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"read_idx: {path} {words}"):
        datasets.read_idx(path)


def write_mnist(folder, count=20, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    pictures = RNG.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8) if labels is None else labels
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    return pictures, labels


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist(tmp_path, name, monkeypatch):
    pytest.importorskip("PIL")
    cls = getattr(datasets, name)
    pictures, labels = write_mnist(tmp_path / name / "raw")
    data = cls(tmp_path, transform=transforms.ToTensor(), target_transform=lambda y: y + 1, download=True, verify=False)
    x, y = data[7]
    assert len(data) == 20 and y == 8 and data.data.shape == (20, 28, 28) and data.targets.tolist() == labels.tolist()
    np.testing.assert_array_equal(x.numpy(), pictures[7:8] / np.float32(255))
    assert len(data.classes) == 10 and data.class_to_idx[data.classes[3]] == 3
    assert next(iter(DataLoader(data, 4)))[0].shape == (4, 1, 28, 28)
    assert cls(tmp_path, verify=False)[0][0].mode == "L"
    path = tmp_path / name / "raw" / "train-images-idx3-ubyte.gz"
    with pytest.raises(ValueError, match=rf"{name}: {path} must have the published MD5 \w+, got .*verify=False"):
        cls(tmp_path)
    right = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cls, "checksums", (right, *cls.checksums[1:]))
    with pytest.raises(ValueError, match=r"images must be 60000 x 28 x 28 bytes .* got \(20, 28, 28\)"):
        cls(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing is downloaded; t10k-images-idx3-ubyte.gz or t10k-images"):
        cls(tmp_path, train=False)


def test_mnist_refusals(tmp_path):
    write_mnist(tmp_path, labels=np.zeros(19, np.uint8))
    with pytest.raises(ValueError, match=r"as many labels, got \(20, 28, 28\) and \(19,\)"):
        datasets.MNIST(tmp_path, verify=False)
    write_mnist(tmp_path, labels=np.full(20, 10, np.uint8))
    with pytest.raises(ValueError, match="labels must be below 10, got 10"):
        datasets.MNIST(tmp_path, verify=False)


def write_cifar(folder, kind, classes, protocol=2, count=4):
    folder.mkdir(parents=True)
    names = {10: [f"data_batch_{i}" for i in range(1, 6)], 100: ["train"]}[classes]
    pictures, labels = [], []
    for name in names:
        x, y = RNG.integers(0, 256, (count, 3072)).astype(np.uint8), RNG.integers(0, classes, count)
        pictures.append(x)
        labels += y.tolist()
        if kind == "binary":
            rows = [np.full((count, 1), 5), y[:, None], x] if classes == 100 else [y[:, None], x]
            (folder / f"{name}.bin").write_bytes(np.concatenate(rows, 1).astype(np.uint8).tobytes())
        else:
            key = "fine_labels" if classes == 100 else "labels"
            batch = {"batch_label": "b", key: y.tolist(), "data": x, "filenames": ["a.png"] * count}
            (folder / name).write_bytes(pickle.dumps({k.encode(): v for k, v in batch.items()}, protocol))
    return np.concatenate(pictures).reshape(-1, 3, 32, 32), labels


@pytest.mark.parametrize("kind, protocol", [("binary", 0), ("python", 2), ("python", 4)])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar(tmp_path, kind, protocol, classes):
    pytest.importorskip("PIL")
    cls = datasets.CIFAR10 if classes == 10 else datasets.CIFAR100
    folder = tmp_path / cls.folders[kind == "binary"]
    pictures, labels = write_cifar(folder, kind, classes, protocol)
    if classes == 100:
        names = [f"name{i}" for i in range(100)]
        if kind == "binary":
            (folder / "fine_label_names.txt").write_text("\n".join(names) + "\n")
        else:
            (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, 2))
    data = cls(tmp_path, transform=transforms.PILToTensor(), verify=False)
    assert len(data) == len(labels) and data.targets == labels
    assert all((data[i][0].numpy() == pictures[i]).all() and data[i][1] == labels[i] for i in range(len(labels)))
    assert len(data.classes) == classes and data.classes[3] == ("cat" if classes == 10 else "name3")
    with pytest.raises(ValueError, match="10,000 or 50,000" if kind == "binary" else "published MD5"):
        cls(tmp_path)


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/owned",)


@pytest.mark.parametrize("data, words", [
    (pickle.dumps({"labels": [0], "data": Runs()}, 2), r"it names posix\.system"),
    (pickle.dumps({"labels": [0, 1], "data": np.zeros((1, 3072), np.uint8)}, 2), r"2 labels of uint8 \(1, 3072\)"),
    (pickle.dumps({"labels": [0], "data": np.zeros((1, 3072), np.int32)}, 2), "1 labels of int32"),
    (pickle.dumps({"labels": [0]}, 2), "'data'"), (pickle.dumps([1], 2), "has no attribute 'items'"),
    (pickle.dumps({"labels": [0], "data": np.zeros((1, 3072), np.uint8)}, 2)[:500], "not enough|expected"),
    (b"", "got"),
])
def test_cifar_refusals(tmp_path, data, words):
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}").write_bytes(data)
    with pytest.raises(ValueError, match=rf"CIFAR10: {tmp_path}/data_batch_1 must be a batch .*({words})"):
        datasets.CIFAR10(tmp_path, verify=False)
    assert not os.path.exists("/tmp/owned")
    (tmp_path / "test_batch.bin").write_bytes(bytes(3072))
    with pytest.raises(ValueError, match=r"test_batch.bin must have 3073 bytes for each .* got 3072"):
        datasets.CIFAR10(tmp_path, train=False, verify=False)


def test_image_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pictures = {"dog/b.png": (9, 0, 0), "cat/2/x.PNG": (0, 9, 0), "dog/a.jpg": (0, 0, 9), "cat/1.bmp": 7}
    for name, colour in pictures.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB" if isinstance(colour, tuple) else "L", (4, 3), colour).save(path)
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    data = datasets.ImageFolder(tmp_path, transforms.ToTensor())
    assert data.classes == ["cat", "dog"] and data.class_to_idx == {"cat": 0, "dog": 1} and data.targets == [0, 0, 1, 1]
    assert [os.path.relpath(path, tmp_path) for path, _ in data.samples] == ["cat/1.bmp", "cat/2/x.PNG", "dog/a.jpg",
                                                                             "dog/b.png"]
    x, y = data[3]
    assert x.shape == (3, 3, 4) and y == 1 and (x[0] * 255).round().unique().tolist() == [9]
    assert data[0][0].shape == (3, 3, 4)
    whole = (tmp_path / "dog" / "b.png").read_bytes()
    for bad in (whole[:40], b"text", b""):
        (tmp_path / "dog" / "b.png").write_bytes(bad)
        with pytest.raises(ValueError, match=rf"ImageFolder: {tmp_path}/dog/b.png must be a whole picture"):
            data[3]
    texts = datasets.DatasetFolder(tmp_path, lambda path: Path(path).read_text(), ".txt", allow_empty=True)
    assert len(texts) == 1 and texts[0] == ("no picture", 1)
    by_name = datasets.DatasetFolder(tmp_path, os.path.basename, is_valid_file=lambda path: not path.endswith(".txt"))
    assert [name for name, _ in by_name] == ["1.bmp", "x.PNG", "a.jpg", "b.png"]
    with pytest.raises(FileNotFoundError, match="class 'cat' has no valid files"):
        datasets.DatasetFolder(tmp_path, str, ".txt")
    with pytest.raises(FileNotFoundError, match="must have a folder for each class"):
        datasets.ImageFolder(tmp_path / "dog")
    with pytest.raises(ValueError, match="either extensions or is_valid_file"):
        datasets.DatasetFolder(tmp_path, str)


def test_transforms_of_both(tmp_path):
    class Pairs(datasets.VisionDataset):
        def __getitem__(self, index):
            return self.transformed(tw.full((1, 4, 4), float(index)), tw.full((1, 4, 4), index))

    image, mask = Pairs(None, transforms.Compose([transforms.RandomCrop(2)]))[3]
    assert image.shape == mask.shape == (1, 2, 2) and mask.dtype == tw.int64
    with pytest.raises(ValueError, match="either transforms or transform"):
        Pairs(None, abs, abs)


# --- tables ----------------------------------------------------------------------------------------------------------
def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_csv(tmp_path):
    path = table(tmp_path, "\ufeffa, b,kind,n\n1,2.5,x,3\n-1e3,\"4\",\"y, z\",4\n\n7,8,x,5\n")
    data = CSVDataset(path, target="kind", columns=["b", "a"])
    assert data.classes == ["x", "y, z"] and data.columns == ["b", "a"] and len(data) == 3
    assert data.tensors[0].tolist() == [[2.5, 1], [4, -1000], [8, 7]] and data.tensors[1].tolist() == [0, 1, 0]
    assert data.tensors[0].dtype == tw.float32 and data.tensors[0].is_contiguous()
    whole, fraction = CSVDataset(path, "n", ["a"]), CSVDataset(path, "b", ["a"], dtype=tw.float64)
    assert whole.tensors[1].dtype == tw.int64 and whole.classes is None and whole[2][1].item() == 5
    assert fraction.tensors[1].tolist() == [2.5, 4, 8] and fraction.tensors[0].dtype == tw.float64
    assert len(CSVDataset(path, columns=["a"])[0]) == 1
    x, y = next(iter(DataLoader(data, batch_size=2)))
    assert x.tolist() == [[2.5, 1], [4, -1000]] and y.tolist() == [0, 1]
    semicolons = CSVDataset(table(tmp_path, "a;b\n1;2\n"), delimiter=";")
    assert semicolons.tensors[0].tolist() == [[1, 2]]


@pytest.mark.parametrize("text, words", [
    ("a,b\n1,2\n3\n", "line 3 must have 2 values, got 1"),
    ("a,b\n1,2\n3,?\n", "line 3, column 'b': must be a finite number"),
    ("a,b\n1,\n", "line 2, column 'b'"), ("a,b\n1,nan\n", "line 2, column 'b'"), ("a,b\n", "must have rows"),
    ("", "must have rows"), ("a,a\n1,2\n", "once each"), ('a,b\n1,"2\n', "must be a table"),
    ("a,b\n1,2\n3,4,5\n", "line 3 must have 2 values, got 3"),
])  # fmt: skip
def test_csv_refusals(tmp_path, text, words):
    path = table(tmp_path, text)
    with pytest.raises(ValueError, match=rf"CSVDataset: {path} .*{words}"):
        CSVDataset(path)
    with pytest.raises(ValueError, match="columns"):
        CSVDataset(table(tmp_path, "a\n1\n"), target="b")


# --- volumes ---------------------------------------------------------------------------------------------------------
def test_missing_packages_are_named(tmp_path, monkeypatch):
    import importlib

    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    for read, package in ((datasets.read_nifti, "nibabel"), (datasets.read_dicom_series, "pydicom")):
        with pytest.raises(RuntimeError, match=rf"needs {package}, which is not installed; pip install {package}"):
            read(tmp_path)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 2)])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nifti(tmp_path, shape, name):
    nibabel = pytest.importorskip("nibabel")
    values = RNG.integers(-500, 500, shape).astype(np.int16)
    affine = np.diag([-2.0, 2.5, 3.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / name)
    found = datasets.read_nifti(tmp_path / name)
    assert found.values.shape == (shape[3] if len(shape) == 4 else 1, 6, 5, 4) and found.spacing == (3.0, 2.5, 2.0)
    np.testing.assert_array_equal(found.values.numpy(), values.reshape(4, 5, 6, -1).T)
    np.testing.assert_allclose(found.affine, affine)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match=rf"read_nifti: {tmp_path}/{name} must be a whole NIfTI file"):
        datasets.read_nifti(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        datasets.read_nifti(tmp_path / "other.nii")


def write_slice(pydicom, path, values, position, uid="1.2.3", orientation=(1, 0, 0, 0, 1, 0)):
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    s = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    s.SOPClassUID, s.SOPInstanceUID, s.SeriesInstanceUID = (meta.MediaStorageSOPClassUID,
                                                            meta.MediaStorageSOPInstanceUID, uid)
    s.ImagePositionPatient, s.ImageOrientationPatient, s.PixelSpacing = list(position), list(orientation), [0.5, 0.75]
    s.Rows, s.Columns = values.shape
    s.SamplesPerPixel, s.PhotometricInterpretation = 1, "MONOCHROME2"
    s.BitsAllocated = s.BitsStored = 16
    s.HighBit, s.PixelRepresentation, s.RescaleSlope, s.RescaleIntercept = 15, 1, 2, -1000
    s.PixelData = values.tobytes()
    s.save_as(path, enforce_file_format=True)


def test_dicom_series(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    slices = RNG.integers(0, 1000, (4, 3, 5)).astype(np.int16)
    for name, i in zip("dbca", range(4), strict=True):
        write_slice(pydicom, tmp_path / f"{name}.dcm", slices[i], (10, 20, -30 + 2.5 * i))
    (tmp_path / "notes.txt").write_text("no slice")
    found = datasets.read_dicom_series(tmp_path)
    np.testing.assert_array_equal(found.values.numpy()[0], 2.0 * slices - 1000)
    assert found.spacing == (2.5, 0.5, 0.75)
    want = np.diag([-0.75, -0.5, 2.5, 1])
    want[:3, 3] = [-10, -20, -30]
    np.testing.assert_allclose(found.affine, want)

    write_slice(pydicom, tmp_path / "other.dcm", slices[0], (0, 0, 0), uid="9.9")
    with pytest.raises(ValueError, match=r"must hold one series, or series_uid name one of .*9\.9"):
        datasets.read_dicom_series(tmp_path)
    assert datasets.read_dicom_series(tmp_path, "9.9").values.shape == (1, 1, 3, 5)
    with pytest.raises(FileNotFoundError, match="no slices of series 5"):
        datasets.read_dicom_series(tmp_path, "5")
    (tmp_path / "other.dcm").unlink()

    (tmp_path / "c.dcm").rename(tmp_path / "c.away")
    (tmp_path / "c.away").write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"must be 2.5 mm apart, got 5 between \S*b.dcm and \S*a.dcm|apart, got"):
        datasets.read_dicom_series(tmp_path)
    write_slice(pydicom, tmp_path / "c.dcm", slices[2][:2], (10, 20, -25))
    with pytest.raises(ValueError, match=r"c.dcm must have the series' size"):
        datasets.read_dicom_series(tmp_path)
    write_slice(pydicom, tmp_path / "c.dcm", slices[2], (10, 20, -25))
    whole = (tmp_path / "c.dcm").read_bytes()
    (tmp_path / "c.dcm").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"c.dcm must (hold whole pixel data|be a whole DICOM file)"):
        datasets.read_dicom_series(tmp_path)
    (tmp_path / "c.dcm").write_bytes(b"not DICOM")
    with pytest.raises(ValueError, match=r"c.dcm must be a DICOM file"):
        datasets.read_dicom_series(tmp_path)
