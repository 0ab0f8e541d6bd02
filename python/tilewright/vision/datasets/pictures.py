"""MNIST and its kin in IDX files, CIFAR in its binary and its Python files."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import tilewright as tw
from tilewright import torch_files
from tilewright.tensor import Tensor
from tilewright.utils.data import Dataset
from tilewright.vision.transforms.functional import to_pil_image

_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


def read_idx(path: str | os.PathLike) -> Tensor:
    """The array of an IDX file, gzipped or not: 0, 0, dtype code, dimensions, big-endian sizes, big-endian values.

    Raises:
        ValueError: no IDX file, cut short, damaged, or longer than its header says; with its name.

    Format: http://yann.lecun.com/exdb/mnist
    """
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"read_idx: {path} must be a whole gzip file, got {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES or data[3] > 8:
        raise ValueError(f"read_idx: {path} must begin with 0, 0, a dtype and a count of dimensions, got "
                         f"{list(data[:4])}")
    dtype, start = np.dtype(">" + _IDX_DTYPES[data[2]]), 4 + 4 * data[3]
    shape = [int.from_bytes(data[i:i + 4], "big") for i in range(4, start, 4)]
    if len(data) != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"read_idx: {path} must have {start + math.prod(shape) * dtype.itemsize} bytes for shape "
                         f"{tuple(shape)}, got {len(data)}")
    return tw.tensor(np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("=")))


def check_file(owner: str, path: Path, md5: str | None) -> Path:
    """The path, when the file's published checksum, if it has one, is right."""
    if md5 is not None:
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"{owner}: {path} must have the published MD5 {md5}, got {found}; fetch it again, or give "
                             "verify=False for a file of your own")
    return path


def find(owner: str, root: Any, folders: tuple[str, ...], names: tuple[str, ...]) -> Path:
    """The first of root/folder/name that is there."""
    for folder in folders:
        for name in names:
            path = Path(root, folder, name)
            if path.is_file():
                return path
    raise FileNotFoundError(f"{owner}: nothing is downloaded; {' or '.join(names)} must be in {root} or its folder "
                            f"{' or '.join(f for f in folders if f)}")


class VisionDataset(Dataset):
    """Pictures with targets: `transform` is of the picture, `target_transform` of the target, `transforms` of both."""

    def __init__(self, root: Any, transforms: Callable | None = None, transform: Callable | None = None,
                 target_transform: Callable | None = None) -> None:
        if transforms is not None and (transform is not None or target_transform is not None):
            raise ValueError(f"{type(self).__name__}: give either transforms or transform and target_transform")
        self.root, self.transforms = root, transforms
        self.transform, self.target_transform = transform, target_transform

    def transformed(self, picture: Any, target: Any) -> tuple[Any, Any]:
        """The picture and target after the transforms."""
        if self.transforms is not None:
            return self.transforms(picture, target)
        return (picture if self.transform is None else self.transform(picture),
                target if self.target_transform is None else self.target_transform(target))


class _Local(VisionDataset):
    """A published data set in a local folder."""

    classes: list[str]
    data: Any
    targets: Any

    def __init__(self, root: Any, train: bool = True, transform: Callable | None = None,
                 target_transform: Callable | None = None, download: bool = False, *, verify: bool = True) -> None:
        super().__init__(root, None, transform, target_transform)
        self.train, self.verify = train, verify  # download: files that are there are not fetched again, in PyTorch too
        self.read()
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}

    def read(self) -> None:
        """Fills data and targets from the files."""
        raise NotImplementedError

    def picture(self, index: int) -> Any:
        """The picture at an index, as a PIL image."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.transformed(self.picture(index), int(self.targets[index]))

    def __len__(self) -> int:
        return len(self.data)


class MNIST(_Local):
    """Handwritten digits 28 x 28 from `root`, or root/MNIST/raw: items are (PIL image, digit).

    Files are as published, `train-images-idx3-ubyte` and so on, gzipped or not. With `verify`, gzipped ones must have
    the published checksum and all must hold 60,000 or 10,000 pictures; their form is checked in any case. `download` is
    accepted and does nothing.

    Raises:
        FileNotFoundError: a file that is not there. ValueError: one that is not as it should be, with its name.

    LeCun et al., Gradient-based learning applied to document recognition, 1998.
    """

    classes: ClassVar[list[str]] = ["0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six",  # type: ignore[misc]
                                    "7 - seven", "8 - eight", "9 - nine"]
    checksums: ClassVar[tuple[str, ...]] = ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                                            "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c")

    def read(self) -> None:
        owner, part = type(self).__name__, "train" if self.train else "t10k"
        parts = []
        for kind, md5 in zip(("images-idx3", "labels-idx1"), self.checksums[0 if self.train else 2:], strict=False):
            name = f"{part}-{kind}-ubyte"
            path = find(owner, self.root, ("", f"{owner}/raw", "raw", owner), (f"{name}.gz", name))
            parts.append(read_idx(check_file(owner, path, md5 if self.verify and path.suffix == ".gz" else None)))
        self.data, labels = parts
        count = 60_000 if self.train else 10_000
        if (self.data.dtype != tw.uint8 or self.data.ndim != 3 or labels.shape != self.data.shape[:1]
                or (self.verify and self.data.shape != (count, 28, 28))):
            raise ValueError(f"{owner}: images must be {count if self.verify else 'n'} x 28 x 28 bytes with as many "
                             f"labels, got {tuple(self.data.shape)} and {tuple(labels.shape)}")
        self.targets = labels.long()
        if len(labels) and int(self.targets.max().item()) >= len(self.classes):
            raise ValueError(f"{owner}: labels must be below {len(self.classes)}, got {int(self.targets.max().item())}")

    def picture(self, index: int) -> Any:
        return to_pil_image(self.data[index], "L")


class FashionMNIST(MNIST):
    """Articles of clothing 28 x 28, in MNIST's format, from `root` or root/FashionMNIST/raw. arXiv:1708.07747."""

    classes: ClassVar[list[str]] = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",  # type: ignore[misc]
                                    "Bag", "Ankle boot"]
    checksums = ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                 "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310")


class KMNIST(MNIST):
    """Handwritten hiragana 28 x 28, in MNIST's format, from `root` or root/KMNIST/raw. arXiv:1812.01718."""

    classes: ClassVar[list[str]] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]  # type: ignore[misc]
    checksums = ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
                 "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134")


class CIFAR10(_Local):
    """Colour pictures 32 x 32 of ten classes from `root`, or its folder as unpacked: items are (PIL image, class).

    Either the Python files (cifar-10-batches-py; read with no unpickling, so that no code can run) or the binary ones
    (cifar-10-batches-bin). With `verify`, Python files must have the published checksum, binary ones their size.

    Raises:
        FileNotFoundError: a file that is not there. ValueError: one that is not as it should be, with its name.

    Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    folders: ClassVar[tuple[str, str]] = ("cifar-10-batches-py", "cifar-10-batches-bin")
    files: ClassVar[dict[bool, dict[str, str]]] = {
        True: {"data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
               "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
               "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb"},
        False: {"test_batch": "40351d587109b95175f43aff81a1287e"}}
    labels_key, label_bytes = "labels", 1
    classes: list[str] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",  # noqa: RUF012
                          "truck"]

    def read(self) -> None:
        owner, parts = type(self).__name__, []
        for name, md5 in self.files[self.train].items():
            path = find(owner, self.root, ("", *self.folders), (name, f"{name}.bin"))
            if path.suffix == ".bin":
                parts.append(self._binary(owner, path))
            else:
                parts.append(self._python(owner, check_file(owner, path, md5 if self.verify else None)))
        self.data = np.concatenate([pictures for pictures, _ in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        self.data = np.ascontiguousarray(self.data)
        self.targets = [label for _, labels in parts for label in labels]
        if self.targets and not 0 <= min(self.targets) <= max(self.targets) < len(self.classes):
            raise ValueError(f"{owner}: labels must be below {len(self.classes)}, got {max(self.targets)}")

    def _binary(self, owner: str, path: Path) -> tuple[np.ndarray, list[int]]:
        data, row = path.read_bytes(), self.label_bytes + 3072
        count = len(data) // row
        if len(data) % row or (self.verify and count not in (10_000, 50_000)):
            raise ValueError(f"{owner}: {path} must have {row} bytes for each of its pictures, 10,000 or 50,000, got "
                             f"{len(data)}")
        rows = np.frombuffer(data, np.uint8).reshape(-1, row)
        return rows[:, self.label_bytes:], rows[:, self.label_bytes - 1].tolist()

    def _python(self, owner: str, path: Path) -> tuple[np.ndarray, list[int]]:
        def no_tensor(pid: Any) -> Any:
            raise ValueError("a persistent id")

        try:
            found = torch_files.unpickle(io.BytesIO(path.read_bytes()), no_tensor)
            batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in found.items()}
            pictures, labels = batch["data"], batch[self.labels_key]
            if pictures.dtype != np.uint8 or pictures.shape != (len(labels), 3072):
                raise ValueError(f"{len(labels)} labels of {pictures.dtype} {pictures.shape}")
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{owner}: {path} must be a batch of (n, 3072) bytes and n {self.labels_key}, got {error}"
                             ) from None
        return pictures, [int(label) for label in labels]

    def picture(self, index: int) -> Any:
        return to_pil_image(self.data[index])


class CIFAR100(CIFAR10):
    """Colour pictures 32 x 32 of a hundred classes (fine labels), in CIFAR10's formats; see there."""

    folders = ("cifar-100-python", "cifar-100-binary")
    files: ClassVar[dict[bool, dict[str, str]]] = {True: {"train": "16019d7e3df5f24257cddd939b257f8d"},
                                                   False: {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}}
    labels_key, label_bytes = "fine_labels", 2

    def read(self) -> None:
        self.classes = [str(i) for i in range(100)]  # until their names are found
        super().read()
        for folder in ("", *self.folders):
            names, meta = Path(self.root, folder, "fine_label_names.txt"), Path(self.root, folder, "meta")
            if names.is_file():
                self.classes = names.read_text().split()
            elif meta.is_file():
                self.classes = list(torch_files.unpickle(io.BytesIO(meta.read_bytes()), str)["fine_label_names"])
