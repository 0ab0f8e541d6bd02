"""Tensor: an engine array with a place on the tape. Methods are one-liners; each op lives in `tilewright.ops`."""

from __future__ import annotations

import builtins
import itertools
from typing import Any

from tilewright import _engine, autograd, creation
from tilewright.autograd import wrap
from tilewright.ops import activation as _activation
from tilewright.ops import composed as _composed
from tilewright.ops import elementary as _elementary
from tilewright.ops import elementwise as _elementwise
from tilewright.ops import index as _index
from tilewright.ops import matmul as _matmul
from tilewright.ops import random as _random
from tilewright.ops import reduce as _reduce
from tilewright.ops import scan as _scan
from tilewright.ops import shape as _shape
from tilewright.ops import softmax as _softmax
from tilewright.ops import sort as _sort

_CPU = _engine.device("cpu")
_hook_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook away again."""

    def __init__(self, hooks: dict, key: Any):
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        self._hooks.pop(self._key, None)

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self.remove()


class Tensor(_engine.TensorBase):
    """A strided array of one dtype that can record the ops applied to it.

    `Tensor(2, 3)` is uninitialised float32 of that shape and `Tensor(sequence)` float32 of those values, as in PyTorch;
    `tilewright.tensor` is the usual way to make one.

    >>> import tilewright as tw
    >>> x = tw.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x ** 2).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = ()
    __array_priority__ = 1000  # NumPy leaves `ndarray + tensor` to Tensor.__radd__
    __array_ufunc__ = None

    def __init__(self, *data: Any, dtype: Any = None, device: Any = None) -> None:
        where = creation.check_device("Tensor", device)
        dtype = dtype or _engine.get_default_dtype()
        if len(data) == 1 and not isinstance(data[0], int):
            self.array = _engine.to_device(creation._from_values("Tensor", data[0], dtype, True), where)
        else:
            self.array = _engine.empty(creation._shape("Tensor", data) if data else (0,), dtype, where)

    # --- what it is --------------------------------------------------------------------------------------------------
    @property
    def device(self) -> Any:
        """Where the tensor lives."""
        return _CPU if self.array.on_cpu else self.array.device

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.array.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.numel * self.array.dtype.itemsize

    @property
    def is_cuda(self) -> bool:
        """Whether it lives on a GPU."""
        return not self.array.on_cpu

    @property
    def is_leaf(self) -> bool:
        """Whether it has no history: made by the user, or not recorded."""
        self._refresh()
        return self.node is None

    @property
    def grad_fn(self) -> Any:
        """The recorded op that made it, or None."""
        self._refresh()
        return self.node

    @property
    def _version(self) -> int:
        return self.array.version

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        shape = self.shape
        if dim is None:
            return shape
        if not -len(shape) <= dim < len(shape):
            raise IndexError(f"size: dim must be in [{-len(shape)}, {len(shape) - 1}], got {dim} for shape {shape}")
        return shape[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return self.array.numel

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.array.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """The strides in elements, or one of them."""
        return self.array.strides if dim is None else self.array.strides[dim]

    def storage_offset(self) -> int:
        """Where the view starts in its memory, in elements."""
        return self.array.offset

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self.array.data_ptr

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether the elements lie in row-major order, or in that of `memory_format`."""
        if memory_format in (creation.channels_last, creation.channels_last_3d):
            from tilewright.ops import arrange
            return arrange.is_channels_last(self, memory_format)
        return self.array.is_contiguous

    def is_floating_point(self) -> bool:
        """Whether the dtype is a float."""
        return self.array.is_float

    def get_device(self) -> int:
        """The number of the GPU, -1 on the CPU."""
        return -1 if self.device.type == "cpu" else self.device.index

    is_sparse = is_quantized = is_mps = is_xpu = is_meta = is_nested = is_mkldnn = False
    name, layout = None, creation.strided

    @property
    def is_cpu(self) -> bool:
        """Whether it lives in host memory."""
        return self.array.on_cpu

    @property
    def real(self) -> Tensor:
        """The tensor itself: it is real."""
        return self

    @property
    def imag(self) -> Tensor:
        """Refused: the tensor is real."""
        raise RuntimeError(f"imag: only complex tensors have an imaginary part, got {self.dtype.name}")

    def conj(self) -> Tensor:
        """The tensor itself: it is real."""
        return self

    def is_complex(self) -> bool:
        """False: tensors are real."""
        return False

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return self.array.dtype not in (_engine.bool, _engine.uint8)

    def is_same_size(self, other: Tensor) -> bool:
        """Whether both have one shape."""
        return self.array.shape == other.array.shape

    def is_set_to(self, other: Tensor) -> bool:
        """Whether both are the same view of the same memory."""
        a, b = self.array, other.array
        return (a.storage_id, a.offset, a.shape, a.strides, a.dtype) == (
            b.storage_id, b.offset, b.shape, b.strides, b.dtype)

    def is_shared(self) -> bool:
        """False: memory belongs to its process."""
        return False

    def share_memory_(self) -> Tensor:
        """Refused: memory stays in its process."""
        raise NotImplementedError("share_memory_: a tensor's memory stays in its process; DataLoader's workers hand "
                                  "theirs over, and multiprocessing.shared_memory with tw.from_numpy shares arrays")

    def is_inference(self) -> bool:
        """False: `inference_mode` makes plain tensors."""
        return False

    def storage(self) -> Any:
        """The memory under the tensor and its views, as a flat sequence."""
        from tilewright.legacy import storage_of
        return storage_of(self)

    untyped_storage = storage

    def values(self) -> Tensor:
        """Refused: only sparse tensors have them."""
        raise NotImplementedError("values: only sparse tensors store values apart, and they are not offered; of "
                                  "`max(dim)` or `sort()` the field is `.values`, without a call")

    def to_dense(self, dtype: Any = None, *, masked_grad: Any = True) -> Tensor:
        """The tensor itself: it is dense."""
        return self if dtype is None else self.to(dtype)

    def to_sparse(self, *args: Any) -> Tensor:
        """Refused: tensors are dense."""
        raise NotImplementedError("to_sparse: sparse tensors are not offered; use scipy.sparse, or index_add")

    coalesce = sparse_mask = to_sparse

    def resize(self, *size: Any) -> Tensor:
        """`reshape`, under a name that PyTorch has given up."""
        import warnings
        warnings.warn("resize: use reshape", DeprecationWarning, stacklevel=2)
        return _shape.reshape(self, *size)

    def resize_as(self, other: Tensor) -> Tensor:
        """`reshape` to the other's shape."""
        return self.resize(*other.shape)

    def apply_(self, callable: Any) -> Tensor:
        """Each element replaced by callable(element): slow, for odd cases."""
        values = [callable(v) for v in self.detach().reshape(-1).tolist()]
        return _elementwise.copy_(self, self.new_tensor(values).reshape(self.shape))

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was asked for."""
        return self.node is not None and bool(self.node.hooks) and ("retain", self.slot) in self.node.hooks

    def new(self, *data: Any) -> Any:
        """`Tensor(...)` of this one's dtype and device, as older scripts write it."""
        if len(data) == 1 and not isinstance(data[0], int):
            return self.new_tensor(data[0])
        return self.new_empty(*data) if data else self.new_empty(0)

    def _become_view(self, op: str, view):
        """Makes this tensor itself view(what it was), with its history; no memory moves."""
        self._refresh()
        if self.requires_grad and (self.node is None or not autograd.is_grad_enabled()):
            raise RuntimeError(f"{op}: a tensor that requires grad cannot change its shape in place if it is a leaf, "
                               f"or while nothing is recorded; use the op without the underscore")
        old = wrap(self.array)
        for name in ("node", "slot", "requires_grad", "_base", "_view_version"):
            setattr(old, name, getattr(self, name))
        y = view(old)
        self.array = y.array
        if self.requires_grad or self._base is not None:
            for name in ("node", "slot", "_base", "_view_version"):
                setattr(self, name, getattr(y, name))
        return self

    def transpose_(self, dim0: int, dim1: int) -> Tensor:
        """Swaps two dimensions of this tensor itself; no memory moves."""
        return self._become_view("transpose_", lambda x: x.transpose(dim0, dim1))

    def t_(self) -> Tensor:
        """The transposed matrix, in place."""
        return self._become_view("t_", lambda x: x.t())

    def squeeze_(self, dim: builtins.int | tuple[builtins.int, ...] | list[builtins.int] | None = None) -> Tensor:
        """Drops dimensions of size 1 of this tensor itself."""
        return self._become_view("squeeze_", lambda x: x.squeeze() if dim is None else x.squeeze(dim))

    def unsqueeze_(self, dim: int) -> Tensor:
        """Gives this tensor itself a dimension of size 1."""
        return self._become_view("unsqueeze_", lambda x: x.unsqueeze(dim))

    def swapaxes_(self, axis0: int, axis1: int) -> Tensor:
        """`transpose_`."""
        return self.transpose_(axis0, axis1)

    def swapdims_(self, dim0: int, dim1: int) -> Tensor:
        """`transpose_`."""
        return self.transpose_(dim0, dim1)

    def resize_(self, *size: Any, memory_format: Any = None) -> Tensor:
        """Another shape for this tensor itself: its first values in row-major order stay, more are arbitrary."""
        if memory_format not in (None, creation.contiguous_format, creation.preserve_format):
            raise NotImplementedError(f"resize_: memory_format must be row-major, got {memory_format!r}")
        shape = creation._shape("resize_", size)
        old, new = self.detach().contiguous().flatten(), self.new_empty(shape)
        n = min(old.numel(), new.numel())
        new.flatten()[:n] = old[:n]
        if self.requires_grad or self._base is not None:
            raise RuntimeError("resize_: a tensor that requires grad, or a view, cannot be resized; use reshape")
        self.array = new.array
        return self

    def resize_as_(self, other: Tensor, memory_format: Any = None) -> Tensor:
        """`resize_` to the other's shape."""
        return self.resize_(other.shape, memory_format=memory_format)

    # --- values out --------------------------------------------------------------------------------------------------
    def item(self) -> Any:
        """The one element as a Python number. ValueError when there are more or none."""
        return _engine.item(self.array)

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        a = self.array
        return self.detach().cpu().__array__(_numpy().float32 if a.dtype is _engine.bfloat16 else None).tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """A NumPy array over the same memory, which it keeps alive; with `force` a copy where that is impossible.

        Raises:
            RuntimeError: the tensor requires grad. TypeError: bfloat16, which NumPy lacks.
        """
        if force:
            x = self.detach().cpu()
            return (x.float() if x.dtype is _engine.bfloat16 else x).__array__()
        if self.requires_grad:
            raise RuntimeError("numpy: the tensor requires grad; use tensor.detach().numpy()")
        if self.array.dtype is _engine.bfloat16:
            raise TypeError("numpy: NumPy has no bfloat16; use tensor.float().numpy()")
        return self.__array__()

    def __array__(self, dtype=None, copy=None):
        if not self.array.on_cpu:
            raise TypeError(f"numpy: the tensor is on {self.device}; use tensor.cpu().numpy()")
        a = _engine.cast(self.array, _engine.float32) if self.array.dtype is _engine.bfloat16 else self.array
        made = _numpy().asarray(a)
        if dtype is not None and made.dtype != dtype:
            return made.astype(dtype)
        return made.copy() if copy else made

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """A DLPack capsule over the same memory, which it keeps alive.

        Raises:
            BufferError: the tensor requires grad, or the consumer wants it on another device than the tensor's.
        """
        if self.requires_grad:
            raise BufferError("__dlpack__: the tensor requires grad; export tensor.detach()")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"__dlpack__: the tensor is on {self.device}, asked for device {tuple(dl_device)}")
        array = _engine.clone(self.array) if copy else self.array
        if self.is_cuda and stream != -1:  # the consumer's stream waits for what this thread's has been given
            from tilewright import cuda

            theirs = cuda.Stream(self.device, _handle=stream if stream and stream > 2 else 0)
            theirs.wait_stream(cuda.current_stream(self.device))
        return _engine.to_dlpack(array, max_version is not None and max_version[0] >= 1)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.device.index) if self.is_cuda else (1, 0)

    def __bool__(self) -> bool:
        if self.array.numel != 1:
            raise ValueError(f"bool: a tensor of {self.array.numel} elements has no single truth value, got shape "
                             f"{self.shape}; use .any() or .all()")
        return bool(_engine.item(self.array))

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if self.array.is_float:
            raise TypeError(f"index: only an integer tensor can be an index, got {self.dtype.name} {self.shape}")
        return int(self.item())

    def __len__(self) -> int:
        if not self.array.ndim:
            raise TypeError("len: a 0-d tensor has no length")
        return self.array.shape[0]

    def __iter__(self):
        if not self.array.ndim:
            raise TypeError("iter: a 0-d tensor cannot be iterated over")
        return iter(_shape.unbind(self, 0))

    def __contains__(self, value) -> bool:
        return bool((self == value).any())

    def __repr__(self) -> str:
        from tilewright.printing import tensor_str
        return tensor_str(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.array.ndim and spec else str(self)

    # --- autograd ----------------------------------------------------------------------------------------------------
    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Asks for (or declines) a gradient in `.grad` on backward; floating-point leaves only."""
        if not requires_grad and self.node is not None:
            raise RuntimeError("requires_grad_: only a leaf can stop requiring grad; use .detach()")
        if requires_grad and not self.array.is_float:
            raise TypeError(f"requires_grad_: only floating-point tensors have gradients, got {self.dtype.name}")
        self.requires_grad = bool(requires_grad)
        return self

    def backward(self, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False,
                 inputs: Any = None) -> None:
        """Sums d(self)/d(leaf) into every leaf's `.grad`; see `tilewright.autograd.backward`."""
        autograd.backward(self, gradient, retain_graph, create_graph, inputs)

    def detach(self) -> Tensor:
        """The same memory with no history; changes in place are still seen by version checks."""
        return wrap(self.array)

    def detach_(self) -> Tensor:
        """Forgets the history."""
        self.node, self.requires_grad, self.slot = None, False, 0
        return self

    @property
    def data(self) -> Tensor:
        """The same memory, with no history and outside autograd's view: writes to it are not checked."""
        return wrap(_engine.untracked(self.array))

    @data.setter
    def data(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expects a Tensor, got {type(value).__name__}")
        self.array = value.array

    def register_hook(self, hook: Any) -> RemovableHandle:
        """Calls hook(gradient) when this tensor's gradient is known; what it returns, if anything, replaces it."""
        self._refresh()
        if not self.requires_grad:
            raise RuntimeError("register_hook: the tensor does not require grad")
        key = next(_hook_numbers)
        if self.node is None:
            if self._hooks is None:
                self._hooks = {}
            self._hooks[key] = hook
            return RemovableHandle(self._hooks, key)
        if self.node.hooks is None:
            self.node.hooks = {}
        hooks = self.node.hooks
        hooks[key] = (self.slot, hook)
        retain = hooks.pop(("retain", self.slot), None)
        if retain is not None:
            hooks["retain", self.slot] = retain  # last: it shows what other hooks made of the gradient
        return RemovableHandle(self.node.hooks, key)

    def register_post_accumulate_grad_hook(self, hook: Any) -> RemovableHandle:
        """Calls hook(this leaf) after a backward has summed into its .grad; an optimizer may step there."""
        if not self.requires_grad or self.node is not None:
            raise RuntimeError("register_post_accumulate_grad_hook: the tensor must be a leaf that requires grad")
        if self._hooks is None:
            self._hooks = {}
        key = ("after", next(_hook_numbers))
        self._hooks[key] = hook
        return RemovableHandle(self._hooks, key)

    def retain_grad(self) -> None:
        """Keeps the gradient of a tensor that is not a leaf in `.grad`, too."""
        self._refresh()
        if not self.requires_grad:
            raise RuntimeError("retain_grad: the tensor does not require grad")
        if self.node is None:
            return
        import weakref

        me = weakref.ref(self)

        def keep(g):
            t = me()
            if t is not None:
                t.grad = g.clone() if t.grad is None else t.grad + g

        if self.node.hooks is None:
            self.node.hooks = {}
        self.node.hooks["retain", self.slot] = (self.slot, keep)

    def _refresh(self) -> None:
        """Takes a view's history from its base when that was changed in place since."""
        if self._base is not None and self._view_version != self.array.version:
            autograd.refresh_view(self)

    # --- dtype and device --------------------------------------------------------------------------------------------
    def to(self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: Any = False, copy: Any = False,
           memory_format: Any = None, other: Tensor | builtins.float | None = None) -> Tensor:
        """In another dtype or on another device: `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`; in memory
        with channels last where `memory_format` says so."""
        args = args if other is None else (*args, other)
        for a in args:
            if isinstance(a, _engine.dtype):
                dtype = a
            elif isinstance(a, Tensor):
                dtype, device = a.dtype, a.device
            elif isinstance(a, str | _engine.device) or type(a) is int:
                device = a
            elif isinstance(a, bool):
                non_blocking = a
            elif a is not None:
                raise TypeError(f"to: expects a dtype, a device or a Tensor, got {a!r}")
        t = self
        if device is not None:
            t = _elementwise.to_device(t, creation.check_device("to", device), non_blocking)
        if dtype is not None and dtype is not self.array.dtype:
            t = _elementwise.cast(t, dtype)
        t = _elementwise.clone(t) if copy and t is self else t
        return t if memory_format is None else _elementwise.contiguous(t, memory_format)

    def type(self, dtype: Any = None, non_blocking: Any = False) -> Any:
        """The type's name, such as "torch.FloatTensor"; or the tensor in another dtype, which may also be given as
        a typed tensor class or its name."""
        from tilewright import legacy
        return legacy.type_name(self) if dtype is None else self.to(*legacy.dtype_and_device("type", dtype))

    def type_as(self, other: Tensor) -> Tensor:
        """In the other's dtype and on its device."""
        return self.to(other.device, other.dtype)

    def float(self, memory_format: Any = None) -> Tensor:
        """In float32."""
        return self.to(_engine.float32, memory_format=memory_format)

    def double(self, memory_format: Any = None) -> Tensor:
        """In float64."""
        return self.to(_engine.float64, memory_format=memory_format)

    def half(self, memory_format: Any = None) -> Tensor:
        """In float16."""
        return self.to(_engine.float16, memory_format=memory_format)

    def bfloat16(self, memory_format: Any = None) -> Tensor:
        """In bfloat16."""
        return self.to(_engine.bfloat16, memory_format=memory_format)

    def int(self, memory_format: Any = None) -> Tensor:
        """In int32."""
        return self.to(_engine.int32, memory_format=memory_format)

    def long(self, memory_format: Any = None) -> Tensor:
        """In int64."""
        return self.to(_engine.int64, memory_format=memory_format)

    def short(self, memory_format: Any = None) -> Tensor:
        """In int16."""
        return self.to(_engine.int16, memory_format=memory_format)

    def byte(self, memory_format: Any = None) -> Tensor:
        """In uint8."""
        return self.to(_engine.uint8, memory_format=memory_format)

    def char(self, memory_format: Any = None) -> Tensor:
        """In int8."""
        return self.to(_engine.int8, memory_format=memory_format)

    def bool(self, memory_format: Any = None) -> Tensor:
        """In bool: whether an element is not 0."""
        return self.to(_engine.bool, memory_format=memory_format)

    def cpu(self, memory_format: Any = None) -> Tensor:
        """In host memory."""
        return self.to(_CPU, memory_format=memory_format)

    def cuda(self, device: Any = None, non_blocking: Any = False, memory_format: Any = None) -> Tensor:
        """On a GPU, by default the current one."""
        return self.to(device="cuda" if device is None else device, non_blocking=non_blocking,
                       memory_format=memory_format)

    def pin_memory(self, device: Any = None) -> Tensor:
        """A copy in pinned memory, which a GPU reads and writes while the program goes on."""
        return wrap(_engine.pin_memory(self.array))

    def is_pinned(self, device: Any = None) -> Any:
        """Whether it lies in pinned memory."""
        return _engine.is_pinned(self.array)

    def record_stream(self, stream: Any) -> None:
        """Says that work of that stream uses the tensor too: its memory is given to others only when that is done."""
        _engine.cuda_record_stream(self.array, stream.cuda_stream)

    def new_empty(self, *args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: Any = False,
                  layout: Any = None, pin_memory: Any = False) -> Tensor:
        """Uninitialised, of this tensor's dtype and device unless others are given."""
        return creation.empty(*args, size=size, dtype=dtype or self.dtype, device=device or self.device,
                             requires_grad=requires_grad, layout=layout, pin_memory=pin_memory)

    def new_zeros(self, *args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: Any = False,
                  layout: Any = None, pin_memory: Any = False) -> Tensor:
        """Zeros of this tensor's dtype and device unless others are given."""
        return creation.zeros(*args, size=size, dtype=dtype or self.dtype, device=device or self.device,
                             requires_grad=requires_grad, layout=layout, pin_memory=pin_memory)

    def new_ones(self, *args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: Any = False,
                 layout: Any = None, pin_memory: Any = False) -> Tensor:
        """Ones of this tensor's dtype and device unless others are given."""
        return creation.ones(*args, size=size, dtype=dtype or self.dtype, device=device or self.device,
                            requires_grad=requires_grad, layout=layout, pin_memory=pin_memory)

    def new_full(self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: Any = False,
                 layout: Any = None, pin_memory: Any = False) -> Tensor:
        """One value, in this tensor's dtype and device unless others are given."""
        return creation.full(size, fill_value, dtype=dtype or self.dtype, device=device or self.device,
                            requires_grad=requires_grad, layout=layout, pin_memory=pin_memory)

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: Any = False,
                   layout: Any = None, pin_memory: Any = False) -> Tensor:
        """A copy of the data in this tensor's dtype and device unless others are given."""
        creation._check_layout("new_tensor", layout)
        return creation.tensor(data, dtype=dtype or self.dtype, device=device or self.device,
                               requires_grad=requires_grad, pin_memory=pin_memory)

    # --- copies of the object ----------------------------------------------------------------------------------------
    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        if self.node is not None:
            raise RuntimeError("deepcopy: only leaves can be deep-copied; use .detach() first")
        t = memo[id(self)] = type(self).__new__(type(self))
        _restore(t, _engine.clone(self.array), self.requires_grad, dict(self.__dict__))
        if self.grad is not None:
            t.grad = self.grad.detach().clone()
        return t

    def __copy__(self):
        """Another leaf over the same memory."""
        t = type(self).__new__(type(self))
        return _restore(t, self.array, self.requires_grad, dict(self.__dict__))

    def __reduce_ex__(self, protocol):
        if self.node is not None:
            raise RuntimeError("pickle: only leaves can be pickled; use .detach() first")
        a = _engine.contiguous(_engine.to_device(self.array, _CPU))
        if a.dtype is _engine.bfloat16:
            a = _engine.bitcast(a, _engine.int16)
        state = (_numpy().asarray(a), self.dtype, self.requires_grad, dict(self.__dict__))
        return _rebuild, (type(self), *state)

    # --- operators ---------------------------------------------------------------------------------------------------
    __hash__ = object.__hash__
    __add__ = __radd__ = _elementwise.add
    __sub__ = _elementwise.sub
    __rsub__ = _elementwise.rsub
    __mul__ = __rmul__ = _elementwise.mul
    __truediv__ = _elementwise.div
    __floordiv__ = _elementwise.floor_divide
    __mod__ = _elementwise.remainder
    __pow__ = _elementwise.pow
    __neg__ = _elementary.neg
    __abs__ = _elementary.abs
    __invert__ = _elementwise.bitwise_not
    __matmul__ = _matmul.matmul
    __and__ = __rand__ = _elementwise.bitwise_and
    __or__ = __ror__ = _elementwise.bitwise_or
    __xor__ = __rxor__ = _elementwise.bitwise_xor
    __lshift__ = _elementwise.bitwise_left_shift
    __rshift__ = _elementwise.bitwise_right_shift
    __lt__ = _elementwise.lt
    __le__ = _elementwise.le
    __gt__ = _elementwise.gt
    __ge__ = _elementwise.ge
    __iadd__ = _elementwise.add_
    __isub__ = _elementwise.sub_
    __imul__ = _elementwise.mul_
    __itruediv__ = _elementwise.div_
    __getitem__ = _index.getitem
    __setitem__ = _index.setitem

    def __pos__(self):
        return self

    def __eq__(self, other):
        return NotImplemented if other is None else _elementwise.eq(self, other)

    def __ne__(self, other):
        return NotImplemented if other is None else _elementwise.ne(self, other)

    def __rtruediv__(self, other):
        return _elementwise.div(other, self)

    def __rfloordiv__(self, other):
        return _elementwise.floor_divide(other, self)

    def __rmod__(self, other):
        return _elementwise.remainder(other, self)

    def __rpow__(self, other):
        return _elementwise.pow(other, self)

    def __rmatmul__(self, other):
        return _matmul.matmul(_elementwise.tensor("matmul", other), self)

    # --- ops, by family ----------------------------------------------------------------------------------------------
    @property
    def T(self) -> Tensor:
        """The dimensions in reverse order: a view."""
        return _shape.permute(self, tuple(range(self.array.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The matrices transposed: a view."""
        return _shape.transpose(self, -2, -1)

    H = mH = mT  # the tensors are real

    def where(self, condition: Tensor, other: Any) -> Any:
        """self where the condition holds, other elsewhere."""
        return _elementwise.where(condition, self, other)

    # elementwise
    add = _elementwise.add
    sub = _elementwise.sub
    mul = _elementwise.mul
    div = _elementwise.div
    floor_divide = _elementwise.floor_divide
    remainder = _elementwise.remainder
    fmod = _elementwise.fmod
    pow = _elementwise.pow
    maximum = _elementwise.maximum
    minimum = _elementwise.minimum
    atan2 = _elementwise.atan2
    eq = _elementwise.eq
    ne = _elementwise.ne
    lt = _elementwise.lt
    le = _elementwise.le
    gt = _elementwise.gt
    ge = _elementwise.ge
    logical_and = _elementwise.logical_and
    logical_or = _elementwise.logical_or
    logical_xor = _elementwise.logical_xor
    logical_not = _elementwise.logical_not
    bitwise_and = _elementwise.bitwise_and
    bitwise_or = _elementwise.bitwise_or
    bitwise_xor = _elementwise.bitwise_xor
    bitwise_left_shift = _elementwise.bitwise_left_shift
    bitwise_right_shift = _elementwise.bitwise_right_shift
    bitwise_not = _elementwise.bitwise_not
    isnan = _elementwise.isnan
    isinf = _elementwise.isinf
    isfinite = _elementwise.isfinite
    isclose = _elementwise.isclose
    allclose = _elementwise.allclose
    equal = _elementwise.equal
    clamp = _elementwise.clamp
    neg = _elementary.neg
    abs = _elementary.abs
    sign = _elementary.sign
    floor = _elementary.floor
    ceil = _elementary.ceil
    trunc = _elementary.trunc
    round = _elementary.round
    frac = _elementary.frac
    square = _elementary.square
    reciprocal = _elementary.reciprocal
    sqrt = _elementary.sqrt
    rsqrt = _elementary.rsqrt
    exp = _elementary.exp
    exp2 = _elementary.exp2
    expm1 = _elementary.expm1
    log = _elementary.log
    log2 = _elementary.log2
    log10 = _elementary.log10
    log1p = _elementary.log1p
    sin = _elementary.sin
    cos = _elementary.cos
    tan = _elementary.tan
    sinh = _elementary.sinh
    cosh = _elementary.cosh
    asin = _elementary.asin
    acos = _elementary.acos
    atan = _elementary.atan
    erf = _elementary.erf
    lerp = _elementwise.lerp
    addcmul = _elementwise.addcmul
    addcdiv = _elementwise.addcdiv
    clone = _elementwise.clone
    contiguous = _elementwise.contiguous
    add_ = _elementwise.add_
    sub_ = _elementwise.sub_
    mul_ = _elementwise.mul_
    div_ = _elementwise.div_
    pow_ = _elementwise.pow_
    lerp_ = _elementwise.lerp_
    addcmul_ = _elementwise.addcmul_
    addcdiv_ = _elementwise.addcdiv_
    neg_ = _elementary.neg_
    abs_ = _elementary.abs_
    exp_ = _elementary.exp_
    log_ = _elementary.log_
    sqrt_ = _elementary.sqrt_
    clamp_ = _elementwise.clamp_
    copy_ = _elementwise.copy_
    fill_ = _elementwise.fill_
    zero_ = _elementwise.zero_
    negative, subtract, multiply, divide = neg, sub, mul, div
    absolute, clip = abs, clamp

    # activations
    relu = _activation.relu
    relu_ = _activation.relu_
    sigmoid = _activation.sigmoid
    sigmoid_ = _activation.sigmoid_
    tanh = _activation.tanh
    tanh_ = _activation.tanh_

    # random
    uniform_ = _random.uniform_
    normal_ = _random.normal_
    bernoulli_ = _random.bernoulli_
    random_ = _random.random_
    bernoulli = _random.bernoulli

    # softmax
    softmax = _softmax.softmax
    log_softmax = _softmax.log_softmax

    # products
    matmul = _matmul.matmul
    mm = _matmul.mm
    bmm = _matmul.bmm
    mv = _matmul.mv
    dot = _matmul.dot
    outer = _matmul.outer
    addmm = _matmul.addmm
    baddbmm = _matmul.baddbmm

    # reductions
    sum = _reduce.sum
    mean = _reduce.mean
    prod = _reduce.prod
    max = _reduce.max
    min = _reduce.min
    amax = _reduce.amax
    amin = _reduce.amin
    aminmax = _reduce.aminmax
    argmax = _reduce.argmax
    argmin = _reduce.argmin
    any = _reduce.any
    all = _reduce.all
    var = _reduce.var
    std = _reduce.std
    norm = _reduce.norm
    logsumexp = _reduce.logsumexp
    nansum = _reduce.nansum
    nanmean = _reduce.nanmean
    count_nonzero = _reduce.count_nonzero
    cumsum = _scan.cumsum
    cumprod = _scan.cumprod
    cummax = _scan.cummax
    cummin = _scan.cummin
    logcumsumexp = _scan.logcumsumexp
    sort = _sort.sort
    argsort = _sort.argsort
    msort = _sort.msort
    topk = _sort.topk
    kthvalue = _sort.kthvalue
    median = _sort.median
    nanmedian = _sort.nanmedian
    unique = _sort.unique
    unique_consecutive = _sort.unique_consecutive
    sum_to_size = _reduce.sum_to_size

    # indexing
    index_select = _index.index_select
    gather = _index.gather
    scatter = _index.scatter
    scatter_ = _index.scatter_
    scatter_add = _index.scatter_add
    scatter_add_ = _index.scatter_add_
    take_along_dim = _index.take_along_dim
    masked_fill = _index.masked_fill
    masked_fill_ = _index.masked_fill_
    masked_select = _index.masked_select
    nonzero = _index.nonzero
    argwhere = _index.argwhere
    index_put = _index.index_put
    index_put_ = _index.index_put_
    index_add = _index.index_add
    index_add_ = _index.index_add_
    index_copy = _index.index_copy
    index_copy_ = _index.index_copy_
    index_fill = _index.index_fill
    index_fill_ = _index.index_fill_

    # made of other ops
    trace = _composed.trace
    dist = _composed.dist
    bincount = _composed.bincount
    multinomial = _composed.multinomial

    # shapes and views
    ravel = _shape.flatten
    view = _shape.view
    reshape = _shape.reshape
    view_as = _shape.view_as
    reshape_as = _shape.reshape_as
    flatten = _shape.flatten
    unflatten = _shape.unflatten
    squeeze = _shape.squeeze
    unsqueeze = _shape.unsqueeze
    expand = _shape.expand
    expand_as = _shape.expand_as
    broadcast_to = _shape.broadcast_to
    permute = _shape.permute
    transpose = _shape.transpose
    t = _shape.t
    movedim = _shape.movedim
    as_strided = _shape.as_strided
    select = _shape.select
    narrow = _shape.narrow
    unbind = _shape.unbind
    split = _shape.split
    chunk = _shape.chunk
    diagonal = _shape.diagonal
    diag = _shape.diag
    unfold = _shape.unfold
    flip = _shape.flip
    fliplr = _shape.fliplr
    flipud = _shape.flipud
    roll = _shape.roll
    repeat = _shape.repeat
    tile = _shape.tile
    repeat_interleave = _shape.repeat_interleave
    tril = _shape.tril
    triu = _shape.triu
    tril_ = _shape.tril_
    triu_ = _shape.triu_


def _numpy():
    import numpy
    return numpy


def _of_linalg(name: str):
    """A method that loads `tilewright.linalg`, which needs NumPy, when it is first called."""
    def method(self, *args, **kwargs):
        from tilewright import linalg
        return getattr(linalg, name)(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"`tilewright.linalg.{name}` of this tensor."
    return method


for _name, _function in {"cholesky": "old_cholesky", "cross": "old_cross", "det": "det", "inverse": "inv",
                         "logdet": "logdet", "matrix_power": "matrix_power", "pinverse": "pinverse", "qr": "old_qr",
                         "slogdet": "slogdet", "svd": "old_svd", "vecdot": "vecdot"}.items():
    setattr(Tensor, _name, _of_linalg(_function))


def _restore(t, array, requires_grad, attributes):
    t.array = array
    t.requires_grad = requires_grad
    t.__dict__.update(attributes)
    return t


def _rebuild(cls, values, dtype, requires_grad, attributes):
    """Unpickles a Tensor (or a subclass, such as Parameter)."""
    array = _engine.clone(_engine.from_buffer(values))
    if array.dtype is not dtype:
        array = _engine.bitcast(array, dtype)
    return _restore(cls.__new__(cls), array, requires_grad, attributes)


autograd.Tensor = Tensor  # type: ignore[misc]
from tilewright import methods  # noqa: E402, F401 - Tensor's further methods

_engine.set_tape(Tensor, autograd.Node, autograd.refresh_view)
