"""Medical volumes from local files: DICOM series through pydicom, NIfTI through nibabel; both are optional."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tilewright as tw
from tilewright.tensor import Tensor


class Volume(NamedTuple):
    """values (C, D, H, W) in float32; spacing of (D, H, W) in mm; affine (4, 4) from (x, y, z) to NIfTI's mm (RAS)."""

    values: Tensor
    spacing: tuple[float, float, float]
    affine: np.ndarray


def _need(reader: str, package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise RuntimeError(f"{reader}: needs {package}, which is not installed; pip install {package}") from None


def read_nifti(path: str | os.PathLike) -> Volume:
    """The volume of a NIfTI file (.nii, .nii.gz, or a pair); its fourth dimension, if any, becomes channels.

    Raises:
        RuntimeError: nibabel is not installed. ValueError: no NIfTI file, or cut short, with its name.
    """
    nibabel = _need("read_nifti", "nibabel")
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_nifti: no file {path}")
    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj).astype(np.float32)
    except Exception as error:  # nibabel's, gzip's and zlib's kinds
        raise ValueError(f"read_nifti: {path} must be a whole NIfTI file, got {error}") from None
    if values.ndim not in (3, 4):
        raise ValueError(f"read_nifti: {path} must have 3 or 4 dimensions, got {values.shape}")
    values = values[..., None] if values.ndim == 3 else values
    x, y, z = (float(v) for v in image.header.get_zooms()[:3])
    return Volume(tw.tensor(np.ascontiguousarray(values.T)), (z, y, x), np.asarray(image.affine, dtype=np.float64))


def read_dicom_series(folder: str | os.PathLike, series_uid: str | None = None) -> Volume:
    """The slices of one DICOM series in a folder, sorted along their normal, in the units of their rescale slope.

    Raises:
        RuntimeError: pydicom is not installed. FileNotFoundError: no slices. ValueError: several series and no
        series_uid, a slice that is broken, of another size, missing or there twice; with its name.
    """
    pydicom = _need("read_dicom_series", "pydicom")
    slices = []
    for path in sorted(p for p in Path(folder).iterdir() if p.is_file()):
        try:
            slices.append((path, pydicom.dcmread(path)))
        except pydicom.errors.InvalidDicomError:
            if path.suffix.lower() in (".dcm", ".ima"):
                raise ValueError(f"read_dicom_series: {path} must be a DICOM file, got another") from None
        except Exception as error:
            raise ValueError(f"read_dicom_series: {path} must be a whole DICOM file, got {error}") from None
    slices = [(path, s) for path, s in slices if "PixelData" in s and "ImagePositionPatient" in s]
    series = Counter(str(s.SeriesInstanceUID) for _, s in slices)
    if series_uid is None and len(series) > 1:
        raise ValueError(f"read_dicom_series: {folder} must hold one series, or series_uid name one of {dict(series)}")
    slices = [(path, s) for path, s in slices if series_uid in (None, str(s.SeriesInstanceUID))]
    if not slices:
        raise FileNotFoundError(f"read_dicom_series: no slices{f' of series {series_uid}' if series_uid else ''} in "
                                f"{folder}")
    first = slices[0][1]
    along_row, along_column = np.asarray(first.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    placed = sorted(((float(normal @ np.asarray(s.ImagePositionPatient, dtype=np.float64)), path, s)
                     for path, s in slices), key=lambda item: item[0])
    pictures = []
    for _, path, s in placed:
        same = (s.Rows, s.Columns, list(s.PixelSpacing), list(s.ImageOrientationPatient)) == (
            first.Rows, first.Columns, list(first.PixelSpacing), list(first.ImageOrientationPatient))
        if not same:
            raise ValueError(f"read_dicom_series: {path} must have the series' size, spacing and orientation")
        try:
            values = s.pixel_array.astype(np.float32)
        except Exception as error:
            raise ValueError(f"read_dicom_series: {path} must hold whole pixel data, got {error}") from None
        pictures.append(values * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0)))
    at = np.array([place for place, _, _ in placed])
    steps = np.diff(at)
    step = float(np.median(steps)) if len(steps) else float(first.get("SliceThickness", 1) or 1)
    for i, found in enumerate(steps):
        if abs(found - step) > 0.01 * max(step, 1e-3):
            raise ValueError(f"read_dicom_series: slices must be {step:g} mm apart, got {found:g} between "
                             f"{placed[i][1]} and {placed[i + 1][1]}")
    dy, dx = (float(v) for v in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = along_row * dx, along_column * dy, normal * step
    affine[:3, 3] = np.asarray(placed[0][2].ImagePositionPatient, dtype=np.float64)
    affine[:2] *= -1  # DICOM's x and y run to the left and back, NIfTI's to the right and front
    return Volume(tw.tensor(np.stack(pictures)[None]), (step, dy, dx), affine)
