"""Datasets, samplers and DataLoader under PyTorch's names."""

from tilewright.utils.data.collate import default_collate, default_convert
from tilewright.utils.data.dataloader import DataLoader
from tilewright.utils.data.dataset import (
    ChainDataset,
    ConcatDataset,
    CSVDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from tilewright.utils.data.distributed import DistributedSampler
from tilewright.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from tilewright.utils.data.worker import get_worker_info

__all__ = [
    "BatchSampler", "CSVDataset", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler",
    "IterableDataset", "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset", "SubsetRandomSampler",
    "TensorDataset", "WeightedRandomSampler", "default_collate", "default_convert", "get_worker_info", "random_split",
]
