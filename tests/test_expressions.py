"""Expressions in the forms that scripts write, evaluated by both libraries: values, dtypes, shapes, or both refuse."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw

x = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
i = np.random.default_rng(0).integers(0, 3, (3, 4))
v = x[0]

# `lib` is the library, T(a) its tensor of an array, x and v floats of (3, 4) and (4), i indices of (3, 4).
EXPRESSIONS = [
    "lib.zeros(2,3).size(-1)", "lib.ones((2,3)).stride()", "T(x).max(dim=1,keepdim=True)",
    "T(x).sort(descending=True,dim=0)", "T(x).topk(2,largest=False)", "T(x).sum(axis=0,keepdims=True)",
    "T(x).mean((0,1))", "T(x).std(unbiased=False)", "T(x).std(0,False)", "T(x).var(dim=1,unbiased=False)",
    "T(x).norm(p=1,dim=0)", "T(x).norm(2)", "T(x).norm()", "T(x).split([1,2],0)", "T(x).chunk(2,1)",
    "T(x).clamp(0.1)", "T(x).clamp(max=T(v))", "T(x).clamp(min=T(v),max=T(v)+1)", "T(x).masked_fill(T(x)>0,-1e9)",
    "T(x).masked_fill(T(x)>0,float('-inf'))", "T(i).float().mean()", "T(x).argmax()", "T(x).argmax(axis=-1)",
    "T(x).any(1)", "T(x).all()", "T(x).repeat(2,1)", "T(x).repeat((2,1))", "T(x).expand(2,-1,-1)", "T(x).unbind(1)",
    "T(x).flip(0)", "T(x).flip([0,1])", "T(x).flip(dims=(0,))", "T(x).roll(1,0)",
    "lib.roll(T(x),shifts=(1,2),dims=(0,1))", "T(x).cumsum(dim=1)", "T(x).gather(dim=1,index=T(i))",
    "lib.zeros(3,4).scatter_(1,T(i),T(x))", "lib.zeros(3,4).scatter_(dim=1,index=T(i),value=1.0)",
    "lib.zeros(3,4).scatter_(1,T(i),1.0)", "lib.zeros(3,4).scatter_(1,T(i),2.0,reduce='add')",
    "lib.ones(3,4).scatter_(1,T(i),2.0,reduce='multiply')", "T(x).index_select(0,T(i[0]))",
    "T(x).nonzero(as_tuple=True)", "T(x).unique().shape", "T(i).unique(return_counts=True)",
    "T(i).unique(return_inverse=True)", "T(x).new([1,2])", "T(x).new(2,3).shape", "T(x).new_tensor([1.5])",
    "T(i).new_ones((2,))", "T(x).view(-1).dot(T(x).view(-1))", "T(x).t().mm(T(x))",
    "lib.addmm(T(v),T(x),T(x).t()@T(x),beta=.5)", "T(x).addcmul_(T(x),T(x),value=2)",
    "T(x).addcdiv_(T(x),T(x),value=2)", "T(x).add_(1,alpha=2)", "T(x).add(T(x),alpha=3)", "T(x).sub_(T(x),alpha=.5)",
    "T(x).pow(2).sum(1).sqrt()", "2**T(x)", "T(x)**2", "1/T(x)", "T(i)/2", "T(i)//2", "T(i)%2", "-T(i)", "~(T(x)>0)",
    "T(i)&1", "T(i)|1", "T(i)^1", "T(i)<<1", "T(x)//0.5", "T(x)%0.5", "3-T(x)", "abs(T(x))", "T(x)==T(x)",
    "(T(x)>0)+(T(x)<0)", "(T(x)>0)*T(x)", "True+T(x)", "T(i)*1.5", "T(i)+T(x)", "T(i).byte()*T(i).char()",
    "T(x).half()+T(x)", "T(x).double()*T(x)", "T(i).int()+T(i)", "T(i).float()+1", "(T(x)>0).sum()",
    "(T(x)>0).float().mean()", "(T(x)>0).long().cumsum(0)", "(T(x)>0).mean()", "T(x).bool()",
    "T(x).round(decimals=1)", "T(x).trunc()", "lib.where(T(x)>0,T(x),0.)", "lib.where(T(x)>0)",
    "lib.where(T(x)>0,1,0)", "lib.where(T(x)>0,T(x),T(x).double())", "lib.cat((T(x),T(i)))", "lib.cat([T(x)],-1)",
    "lib.stack([T(x),T(x)],dim=-1)", "lib.einsum('ij,ij->i',T(x),T(x))", "lib.einsum('ij,kj->ik',[T(x),T(x)])",
    "lib.meshgrid(T(v),T(v))", "lib.meshgrid(T(v),T(v),indexing='xy')", "lib.linspace(0,1,5)",
    "lib.linspace(0,1,steps=3)", "lib.arange(5.)", "lib.arange(1,10,3)", "lib.arange(0,1,.25)", "lib.eye(3)",
    "lib.full((2,),7)", "lib.full((2,),7.)", "lib.full_like(T(i),2)", "lib.ones_like(T(i),dtype=lib.float32)",
    "lib.tensor([[1,2],[3,4]])", "lib.tensor([1,2.5])", "lib.tensor(True)", "lib.tensor([True,False])",
    "lib.tensor(np.float64(3))", "lib.tensor(np.array([1,2],dtype='int32'))", "lib.tensor([np.float32(1)])",
    "lib.tensor([lib.tensor(1.),lib.tensor(2.)])", "lib.tensor([])", "lib.as_tensor([1,2])", "lib.from_numpy(x)",
    "lib.multinomial(lib.tensor([0.,1.]),num_samples=1)", "lib.bincount(T(i[0]),minlength=5)", "lib.cdist(T(x),T(x))",
    "lib.diag(T(v))", "lib.diag(T(x),1)", "lib.trace(T(x))", "lib.tril(T(x),-1)", "lib.triu(T(x),diagonal=1)",
    "lib.outer(T(v),T(v))", "lib.allclose(T(x),T(x),atol=1e-3)", "lib.equal(T(x),T(x))", "lib.isnan(T(x)).any()",
    "lib.is_tensor(3)", "lib.numel(T(x))", "lib.sum(T(x),dim=(0,1))", "lib.max(T(x),T(x)*2)", "lib.max(T(x),1)[1]",
    "lib.min(T(x))", "lib.prod(T(x),1)", "lib.sigmoid(T(i))", "lib.exp(T(i))", "lib.sqrt(T(i))",
    "lib.softmax(T(x),dim=1)", "lib.logsumexp(T(x),dim=1,keepdim=True)", "lib.flatten(T(x),start_dim=0)",
    "lib.squeeze(T(x)[None],0)", "T(x)[None].squeeze(dim=0)", "T(x).unsqueeze(dim=1)",
    "T(x).transpose(0,1).contiguous().view(-1)", "T(x).permute(1,0)", "T(x).permute((1,0))",
    "lib.permute(T(x),(1,0))", "T(x).reshape(2,-1)", "T(x).reshape((2,-1))", "T(x).view((4,3))",
    "T(x).view(T(x).size())", "T(x).view(*T(x).size())", "T(x).view_as(T(x))", "T(x).expand_as(lib.zeros(2,3,4))",
    "T(x).type_as(T(i))", "T(x).long().tolist()", "T(x)[0,0].item()", "T(x).numpy()", "len(T(x))", "T(x).dim()",
    "T(x).ndim", "T(x).nelement()", "T(x).numel()", "list(T(x).shape)", "T(x).element_size()", "T(x).get_device()",
    "float(T(x)[0,0])", "int(T(i)[0,0])", "bool(T(x)[0,0]>-9)", "[1,2,3][T(i)[0,0]]", "T(x)[:,[0,2]]", "T(x)[T(x)>0]",
    "T(x)[T(i)[:,0],T(i)[:,0]]", "T(x)[...,None].shape", "T(x)[-1]", "T(x)[1:,::2]", "np.asarray(T(x))",
    "np.mean(T(x).numpy())", "f'{T(x)[0,0]:.3f}'", "'%.3f'%T(x)[0,0]", "max(T(v))", "sorted(T(v).tolist())",
    "sum(T(v))", "min(T(x)[0],key=lambda q:q)", "3.0 in T(v)", "T(x).is_contiguous()", "T(x).t().is_contiguous()",
    "T(x).is_floating_point()", "T(x).requires_grad", "T(x).is_leaf", "T(x).grad", "T(x).device",
    "lib.device('cpu').type", "T(x).shape==(3,4)", "T(x).size()==lib.Size([3,4])", "T(x).shape[1:]",
    "T(x).shape+(1,)", "lib.finfo(lib.float32).eps", "lib.iinfo(lib.int32).max", "T(x).fill_(2)", "T(x).zero_()",
    "T(x).copy_(T(v))", "T(x).squeeze_()", "T(x).t_()", "T(x).abs_().log_().exp_()", "T(x).clamp_(0,1)",
    "T(x).mul_(T(v))", "T(x).div_(2)", "T(x).neg_()", "T(x).sqrt().mean()", "T(x).median()", "T(x).median(1)",
    "T(x).median(dim=0,keepdim=True)", "T(i).mode(0)", "T(i).mode()", "T(x).trace()", "T(x).dist(T(x)*2)",
    "T(x).flatten(1)", "T(x).ravel()", "T(x).tile(2)", "T(x).tile((2,1))", "T(x).narrow(1,1,2)", "T(x).unfold(1,2,1)",
    "T(x).diag()", "T(x).masked_select(T(x)>0)", "T(x).index_add_(0,T(i[0,:3]),T(x))",
    "T(x).index_fill_(0,T(i[0,:2]),9)", "T(x).lt(0)", "T(x).eq(T(x)).sum().item()", "T(x).ne(0)",
    "T(x).repeat_interleave(2,dim=0)", "lib.repeat_interleave(T(v),repeats=2)", "lib.nonzero(T(x)>0).shape",
    "lib.argsort(T(x),dim=1,descending=True)", "lib.randperm(5).sort()[0]", "lib.randn(2,3).shape",
    "lib.rand((2,3)).shape", "lib.randint(0,5,(2,)).dtype", "lib.normal(lib.zeros(3),lib.ones(3)).shape",
    "lib.bernoulli(lib.zeros(3))", "lib.is_grad_enabled()", "lib.tensor(3).item()+lib.tensor(2)",
    "lib.tensor([1,2,3]).float().mean()", "lib.tensor(5)>3", "lib.tensor([1.,2.]).mean(dtype=lib.float64)",
    "lib.ones(2,dtype=lib.long)", "lib.zeros(2,dtype=lib.bool)", "lib.Tensor([1,2])", "lib.Tensor(2,3).shape",
    "lib.FloatTensor([1.])", "lib.LongTensor([1,2])", "lib.IntTensor(3).shape", "lib.ByteTensor([1])",
    "lib.sum(T(x)>0)", "lib.div(T(i),2,rounding_mode='floor')", "lib.fmod(T(x),1)", "lib.remainder(T(x),1)",
    "lib.maximum(T(x),T(v))", "lib.clamp(T(x),min=0)", "lib.clip(T(x),0,1)", "lib.round(T(x))", "lib.sign(T(x))",
    "lib.square(T(i))", "lib.atan2(T(x),T(x))", "lib.log1p(T(x).abs())", "lib.rsqrt(T(x).abs())",
    "lib.cumprod(T(x),dim=0)", "lib.std(T(x),dim=0)", "lib.var(T(x),dim=0,keepdim=True)", "lib.count_nonzero(T(i))",
    "lib.take_along_dim(T(x),T(i),dim=1)", "lib.vstack((T(v),T(v)))", "lib.hstack([T(v),T(v)])",
    "lib.broadcast_to(T(v),(3,4))", "lib.tensordot(T(x),T(x),dims=([1],[1]))", "lib.bmm(T(x)[None],T(x).t()[None])",
    "lib.baddbmm(lib.zeros(1),T(x)[None],T(x).t()[None])", "lib.matmul(T(x),T(v))", "T(x)@T(v)", "lib.mv(T(x),T(v))",
    "lib.dot(T(v),T(v))", "T(x).scatter(1,T(i),T(x))", "T(x)[:,None]-T(x)[None]", "T(x).mT.shape",
    "T(x).logical_not()", "T(x).isfinite().all()", "lib.stack(lib.unbind(T(x)))", "lib.cat(lib.split(T(x),2))",
    "T(x).amax((0,1))", "lib.aminmax(T(x),dim=1)", "lib.std_mean(T(x),dim=1)",
    "lib.searchsorted(T(v).sort()[0],T(x))", "lib.logaddexp(T(x),T(x))", "lib.diff(T(x))", "lib.quantile(T(x),.5)",
    "lib.linalg.norm(T(x))", "lib.linalg.inv(T(x)@T(x).t()+lib.eye(3))", "lib.norm(T(x),dim=1,keepdim=True)",
    "lib.norm(T(x),p=1)", "lib.clamp(T(i),0,1)", "T(i).max()", "T(i).sum(0)", "T(i).prod()",
    "T(i).cumsum(1).dtype==lib.int64", "T(i).float().std()", "T(i)@T(i).t()", "T(i).bool()|T(i).bool()", "T(i)>T(x)",
    "T(x).gt(0).type(lib.float64)", "T(x).to(T(x).double())", "T(x).to(lib.int32)", "T(x).new_full((2,),3)",
    "T(x).half().float()", "T(x).bfloat16()", "T(x).fmod_(0.5)", "T(x).ceil_()", "T(x).floor_()", "T(x).round_()",
    "T(x).sign_()", "T(x).clip_(0,1)", "T(x).masked_fill_(T(x)>0,0)", "T(x).index_copy_(0,T(i[0,:1]),T(x[:1]))",
    "T(x).triu_()", "T(x).tril_(-1)", "T(x).fill_diagonal_(0)", "T(x).exp_()", "T(x).sigmoid_()", "T(x).tanh_()",
    "T(x).relu_()", "T(x).pow_(2)", "T(x).add_(T(i))", "T(i).add_(T(x))", "T(i).div_(2)", "T(x).resize_(2,2)",
    "T(x).swapaxes(0,1)", "lib.rot90(T(x))", "lib.nan_to_num(T(x)/0)", "lib.heaviside(T(x),T(x))",
    "lib.isin(T(i),T(i[0]))", "lib.bucketize(T(x),T(v).sort()[0])", "lib.tril_indices(3,3)", "lib.combinations(T(v))",
    "lib.cartesian_prod(T(v),T(v))", "lib.kron(T(x),T(x))", "lib.cov(T(x))", "lib.trapz(T(x))",
    "lib.unique_consecutive(T(i))", "lib.special.expit(T(x))", "lib.erf(T(x))+lib.erfc(T(x))",
    "lib.lgamma(T(x).abs())", "lib.block_diag(T(x),T(x))", "lib.atleast_2d(T(v))", "lib.column_stack((T(v),T(v)))",
    "lib.tensor_split(T(x),2,dim=1)", "lib.promote_types(lib.int32,lib.float16)", "lib.result_type(T(i),1.5)",
    "lib.can_cast(lib.float32,lib.int64)", "lib.broadcast_tensors(T(v),T(x))", "lib.swapdims(T(x),0,1)",
]  # fmt: skip


def plain(value):
    """What can be compared: dtype, shape and values of tensors, text of the rest."""
    if isinstance(value, tw.Tensor) or (type(value).__module__.startswith("torch") and hasattr(value, "detach")):
        values = value.detach()
        dtype = str(value.dtype).rpartition(".")[2]
        return dtype, tuple(value.shape), (values.float() if dtype == "bfloat16" else values).numpy().tolist()
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    return str(value).replace("tilewright", "torch")


def close(a, b) -> bool:
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= 1e-5 * max(1, abs(b)) or (a != a and b != b)
    return a == b


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.filterwarnings("ignore")
def test_same_as_pytorch(expression):
    torch = pytest.importorskip("torch")
    found = []
    for lib in (tw, torch):
        names = {"lib": lib, "T": lambda a, lib=lib: lib.tensor(np.array(a)), "x": x, "i": i, "v": v, "np": np}
        try:
            found.append(plain(eval(expression, names)))
        except Exception as error:
            found.append(error)
    ours, theirs = found
    if isinstance(ours, Exception) or isinstance(theirs, Exception):
        assert isinstance(ours, Exception) and isinstance(theirs, Exception), f"ours {ours!r}, PyTorch {theirs!r}"
    else:
        assert close(ours, theirs), f"ours {ours}, PyTorch {theirs}"
