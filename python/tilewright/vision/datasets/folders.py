"""Pictures in folders, one a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.vision.datasets.pictures import VisionDataset
from tilewright.vision.transforms.functional import _pillow

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def default_loader(path: str) -> Any:
    """The picture as a PIL image in RGB.

    Raises:
        ValueError: a file that is no picture, or cut short, with its name.
    """
    image = _pillow("ImageFolder")
    try:
        with image.open(path) as img:
            return img.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"ImageFolder: {path} must be a whole picture, got {error}") from None


class DatasetFolder(VisionDataset):
    """Files root/class/.../name, read by `loader`: items are (loaded, class number), in the order of sorted paths.

    Classes are the sorted names of root's folders. Files count by their extensions, or by is_valid_file(path).

    Raises:
        FileNotFoundError: no folders, or a class without files (unless allow_empty).
    """

    def __init__(self, root: Any, loader: Callable[[str], Any], extensions: Sequence[str] | str | None = None,
                 transform: Callable | None = None, target_transform: Callable | None = None,
                 is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False) -> None:
        super().__init__(root, None, transform, target_transform)
        owner = type(self).__name__
        if (extensions is None) == (is_valid_file is None):
            raise ValueError(f"{owner}: give either extensions or is_valid_file")
        kinds = (extensions,) if isinstance(extensions, str) else tuple(extensions or ())
        valid = is_valid_file or (lambda path: path.lower().endswith(kinds))
        self.loader, self.extensions = loader, extensions
        self.classes, self.class_to_idx = self.find_classes(root)
        self.samples: list[tuple[str, int]] = []
        for name, number in sorted(self.class_to_idx.items()):
            before = len(self.samples)
            for folder, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True)):
                self.samples += [(path, number) for file in sorted(files) if valid(path := os.path.join(folder, file))]
            if len(self.samples) == before and not allow_empty:
                raise FileNotFoundError(f"{owner}: class {name!r} has no valid files in {root}" + (
                    f"; their names must end with {', '.join(kinds)}" if kinds else ""))
        self.targets, self.imgs = [number for _, number in self.samples], self.samples

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        """The classes' names, and their numbers."""
        classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        if not classes:
            raise FileNotFoundError(f"{type(self).__name__}: {directory} must have a folder for each class, got none")
        return classes, {name: i for i, name in enumerate(classes)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self.transformed(self.loader(path), target)

    def __len__(self) -> int:
        return len(self.samples)


class ImageFolder(DatasetFolder):
    """Pictures root/class/.../name.png: items are (PIL image in RGB, class number); see DatasetFolder."""

    def __init__(self, root: Any, transform: Callable | None = None, target_transform: Callable | None = None,
                 loader: Callable[[str], Any] = default_loader, is_valid_file: Callable[[str], bool] | None = None,
                 allow_empty: bool = False) -> None:
        super().__init__(root, loader, IMG_EXTENSIONS if is_valid_file is None else None, transform, target_transform,
                         is_valid_file, allow_empty)
