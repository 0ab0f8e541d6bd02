"""tilewright.models: against references in NumPy, published counts, and what each must keep."""

import numpy as np
import pytest

import tilewright as tw
from tilewright import models, nn


def count(model):
    return sum(p.numel() for p in model.parameters())


# --- GPT -------------------------------------------------------------------------------------------------------------
def small_gpt(**options):
    tw.manual_seed(0)
    model = models.GPT(models.GPTConfig(vocab_size=31, n_positions=16, n_embd=24, n_layer=3, n_head=3, **options))
    with tw.no_grad():  # far from the start, where all logits are nearly equal
        for p in model.parameters():
            p.add_(0.2 * tw.randn_like(p))
    return model.eval()


def gpt_reference(state, ids, heads):
    """GPT-2 in float64, written from the paper and the shapes of its weights."""
    w = {k.removeprefix("transformer."): v.numpy().astype(np.float64) for k, v in state.items()}
    b, t = ids.shape

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    def affine(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][:t]
    for i in range(3):
        y = affine(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        q, k, v = (a.reshape(b, t, heads, -1).transpose(0, 2, 1, 3) for a in np.split(y, 3, -1))
        s = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        s = np.where(np.tril(np.ones((t, t), bool)), s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        y = (p / p.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(b, t, -1)
        x = x + affine(y, f"h.{i}.attn.c_proj")
        y = affine(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + affine(y, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


def test_gpt_equals_its_reference():
    model, ids = small_gpt(), np.random.default_rng(0).integers(0, 31, (2, 16))
    expected = gpt_reference(model.state_dict(), ids, 3)
    np.testing.assert_allclose(model(tw.tensor(ids)).detach().numpy(), expected, rtol=2e-4, atol=2e-4)


def test_gpt_of_124_million():
    model = models.GPT(models.GPTConfig())
    assert count(model) == 124_439_808
    state = model.state_dict()
    assert tuple(state["transformer.h.11.attn.c_attn.weight"].shape) == (768, 2304)
    assert tuple(state["transformer.h.0.mlp.c_proj.weight"].shape) == (3072, 768)


def test_gpt_reads_public_files(tmp_path):
    """Without the prefix, with stored masks and without the tied head, as GPT-2's published file has it."""
    model = small_gpt()
    public = {k.removeprefix("transformer."): v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    public |= {f"h.{i}.attn.bias": tw.ones(1, 1, 16, 16).tril() for i in range(3)}
    tw.save(public, tmp_path / "gpt2.safetensors")
    read = models.GPT.from_file(tmp_path / "gpt2.safetensors", n_head=3)
    ids = tw.randint(0, 31, (2, 9))
    assert tw.equal(read(ids), model(ids)) and read.config.n_layer == 3


def test_gpt_with_a_cache_says_the_same():
    model, ids = small_gpt(), tw.randint(0, 31, (2, 9))
    cache, parts = None, []
    for part in ids.split([4, 3, 1, 1], 1):
        x, cache = model.features(part, cache)
        parts.append(x)
    assert tw.allclose(model.lm_head(tw.cat(parts, 1)), model(ids), rtol=1e-4, atol=1e-4)
    expected = ids
    for _ in range(7):
        expected = tw.cat([expected, model(expected)[:, -1].argmax(-1, keepdim=True)], 1)
    assert tw.equal(model.generate(ids, 7, temperature=0), expected)
    assert model.generate(ids, 20, temperature=0).shape == (2, 29)  # past n_positions
    tw.manual_seed(3)
    drawn = model.generate(ids, 5, top_k=1)
    assert tw.equal(drawn, model.generate(ids, 5, temperature=0))
    with pytest.raises(ValueError, match="at most 16 tokens, got 17"):
        model(tw.zeros(1, 17, dtype=tw.int64))


# --- BERT ------------------------------------------------------------------------------------------------------------
def test_bert():
    assert count(models.BERT(models.BERTConfig())) == 110_106_428
    model = models.BERT(models.BERTConfig(50, 32, 2, 4, 64, 16)).eval()
    ids = tw.randint(1, 50, (2, 9))
    longer = tw.cat([ids, tw.zeros(2, 3, dtype=tw.int64)], 1)
    a, b = model(ids), model(longer, longer != 0)
    assert tw.allclose(a.logits, b.logits[:, :9], atol=1e-5) and tw.allclose(a.pooled, b.pooled, atol=1e-5)
    assert not tw.allclose(a.logits, model(longer).logits[:, :9], atol=1e-5)


def test_masked_words():
    tw.manual_seed(0)
    ids = tw.randint(5, 1000, (200, 100))
    special = tw.zeros_like(ids).bool()
    special[:, 0] = True
    changed, targets = models.mask_tokens(ids, 4, 1000, special)
    chosen = targets >= 0
    assert 0.14 < chosen.float().mean().item() < 0.16 and not chosen[:, 0].any()
    assert tw.equal(targets[chosen], ids[chosen]) and tw.equal(changed[~chosen], ids[~chosen])
    masked = (changed == 4)[chosen].float().mean().item()
    same = (changed == ids)[chosen].float().mean().item()
    assert 0.77 < masked < 0.83 and 0.08 < same < 0.12


# --- others ----------------------------------------------------------------------------------------------------------
def test_perceptron_and_delta_rule():
    x, y = tw.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), tw.tensor([0, 0, 0, 1])
    model = models.Perceptron(2)
    assert model.fit(x, y)[-1] == 0 and tw.equal(model(x), y)
    assert min(models.Perceptron(2).fit(x, tw.tensor([0, 1, 1, 0]), epochs=500)) > 0
    errors = (line := models.Adaline(2)).fit(x, y, epochs=500)
    assert errors == sorted(errors, reverse=True) and tw.equal(line(x), y)
    exact = np.linalg.lstsq(np.c_[x.numpy(), np.ones(4)], 2 * y.numpy() - 1, rcond=None)[0]
    np.testing.assert_allclose([*line.weight.tolist(), line.bias.item()], exact, atol=1e-2)
    with pytest.raises(ValueError, match=r"Perceptron: expects \(N, 2\)"):
        model.fit(x[:, :1], y)


def test_a_radial_basis_network_interpolates():
    tw.manual_seed(0)
    x = tw.linspace(-3, 3, 40).unsqueeze(1)
    model = models.RBFNetwork(1, 10, 1).centre(x)
    assert len(model.centres.unique()) == 10
    assert tw.equal(model.bases(model.centres.detach()).diagonal(), tw.ones(10))
    optimizer = tw.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(400):
        loss = nn.functional.mse_loss(model(x), tw.sin(2 * x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 3e-3
    single = models.RBFNetwork(1, 1, 1).centre(x)  # no other centre says how wide: the data does
    width = (x - single.centres).square().mean().sqrt()
    assert single.log_width.exp().item() == pytest.approx(width.item(), rel=1e-6)


def test_pretraining_goes_down_a_layer_at_a_time():
    tw.manual_seed(0)
    x = tw.randn(300, 3) @ tw.randn(3, 12)
    model = models.Autoencoder([12, 8, 3], nn.Tanh)
    before = nn.functional.mse_loss(model(x), x).item()
    errors = model.pretrain(x, epochs=40, rate=5e-3)
    assert len(errors) == 2 and nn.functional.mse_loss(model(x), x).item() < 0.5 * before


def test_pretrained_layers_fit_together():
    """A layer's target is what its neighbour's activation made, and the decoder ends each layer by that activation."""
    tw.manual_seed(0)
    x = tw.randn(300, 3) @ tw.randn(3, 12)
    model = models.Autoencoder([12, 16, 8], nn.Sigmoid, code=nn.Sigmoid)
    model.pretrain(x, epochs=100, rate=1e-2)
    assert nn.functional.mse_loss(model(x), x).item() < 0.15 * x.var().item()
    assert model.encoder(x).min().item() > 0 and model.encoder(x).max().item() < 1


def test_a_convolutional_code_is_linear():
    tw.manual_seed(0)
    model = models.ConvAutoencoder(1, (8, 4))
    assert model.encoder(tw.randn(2, 1, 16, 16)).min().item() < 0 and model(tw.randn(2, 1, 16, 16)).min().item() < 0


def test_vae_loss_is_the_bound():
    """The divergence against a sum over a fine grid, for one latent number."""
    mean, log_var = 0.7, -0.6
    z = np.linspace(-12, 12, 200001)
    q = np.exp(-(z - mean) ** 2 / (2 * np.exp(log_var))) / np.sqrt(2 * np.pi * np.exp(log_var))
    p = np.exp(-z**2 / 2) / np.sqrt(2 * np.pi)
    kl = np.sum(q * np.log((q + 1e-300) / (p + 1e-300))) * (z[1] - z[0])
    output = models.VAEOutput(tw.zeros(1, 4), tw.tensor([[mean]]), tw.tensor([[log_var]]))
    assert models.vae_loss(output, tw.full((1, 4), 0.5)).item() == pytest.approx(4 * np.log(2) + kl, rel=1e-4)


def test_vae_weights_give_the_evidence():
    """log p(x) by a sum over a fine grid of one latent number; the mean of the weights is vae_loss at the same e."""
    tw.manual_seed(0)
    model, x = models.VAE(5, 8, 1), (tw.rand(3, 5) > 0.5).float()
    z = tw.linspace(-8, 8, 4001)
    surprise = nn.functional.binary_cross_entropy_with_logits(
        model.decoder(z[:, None])[:, None].expand(-1, 3, -1), x.expand(4001, -1, -1), reduction="none").sum(-1)
    density = (-0.5 * z.square()).exp() / np.sqrt(2 * np.pi)
    evidence = ((-surprise).exp() * density[:, None]).sum(0).log() + np.log(16 / 4000)
    weights = model.log_weights(x, 40000)
    assert weights.shape == (40000, 3)
    np.testing.assert_allclose((weights.logsumexp(0) - np.log(40000)).numpy(), evidence.detach().numpy(), atol=0.01)
    bound = weights.mean().item()
    assert bound < evidence.mean().item()
    losses = [models.vae_loss(model(x.repeat(2000, 1)), x.repeat(2000, 1)).item() for _ in range(5)]
    assert bound == pytest.approx(-np.mean(losses), abs=0.01)


@pytest.mark.parametrize("size, start, hidden", [(8, 4, [8]), (8, 2, [16, 8]), (32, 4, [32, 16, 8]), (12, 3, [16, 8])])
def test_dcgan_doubles_and_halves(size, start, hidden):
    generator = models.DCGenerator(5, 3, size, 8, start)
    judge = models.DCDiscriminator(3, size, 8, start=start)
    x = generator(tw.randn(4, 5))
    assert x.shape == (4, 3, size, size) and x.abs().max() < 1 and judge(x).shape == (4,)
    assert [m.num_features for m in generator.body if isinstance(m, nn.BatchNorm2d)] == hidden
    assert [m.num_features for m in judge.body if isinstance(m, nn.BatchNorm2d)] == hidden[-2::-1]  # the first has none
    judge(x).sum().backward()
    assert all(p.grad is not None for p in [*generator.parameters(), *judge.parameters()])


@pytest.mark.parametrize("size, start", [(8, 3), (4, 4), (8, 0), (24, 4)])
def test_dcgan_tells_which_sizes_it_makes(size, start):
    for make in (models.DCGenerator, models.DCDiscriminator):
        with pytest.raises(ValueError, match=f"start times a power of two.*got size {size} and start {start}"):
            make(size=size, start=start)


def test_gradient_penalty_of_a_line():
    """The gradient of w . x has the norm |w| everywhere."""
    w = tw.tensor([3.0, 4.0], requires_grad=True)
    penalty = models.gradient_penalty(lambda x: x @ w, tw.randn(5, 2), tw.randn(5, 2))
    penalty.backward()
    assert penalty.item() == pytest.approx(16.0, rel=1e-4)
    np.testing.assert_allclose(w.grad.numpy(), 2 * 4 * np.array([0.6, 0.8]), rtol=1e-4)


def test_word2vec_counts_pairs():
    tw.manual_seed(0)
    model = models.Word2Vec([10, 10, 10, 10], width=6, negatives=2)
    assert model(tw.tensor([0, 1]), tw.tensor([2, 3])).item() == pytest.approx(3 * np.log(2), rel=1e-5)  # all scores 0
    centres, contexts = models.windows(np.arange(4), 1)
    assert contexts.tolist() == [[-1, 1], [0, 2], [1, 3], [2, -1]] and centres.tolist() == [0, 1, 2, 3]
    with tw.no_grad():
        model.centre.weight.copy_(tw.eye(6)[:4])
        model.centre.weight[3] = tw.tensor([1.0, 0.2, 0, 0, 0, 0])
    assert model.nearest(model.centre.weight[0], 1, leave_out=[0])[0][0] == 3


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_padding_does_not_change_a_sequence(kind):
    tw.manual_seed(0)
    model = models.RecurrentNet(kind, 3, 8, 2, layers=2, bidirectional=True)
    x = tw.randn(2, 6, 3)
    both = model(x, tw.tensor([6, 4]))
    assert tw.allclose(both[1:], model(x[1:, :4]), atol=1e-6) and tw.allclose(both[:1], model(x[:1]), atol=1e-6)


def test_decoders_look_only_where_there_is_something():
    tw.manual_seed(0)
    source = tw.tensor([[5, 6, 7, 0, 0], [3, 4, 5, 6, 7]])
    for model in (models.Seq2Seq(9, 9, 8, 16), models.SequenceTransformer(9, 9, 8, 2).eval()):
        tokens = tw.tensor([[1, 3, 4], [1, 5, 6]])
        if isinstance(model, models.Seq2Seq):
            logits, looked = model(source, tokens)
        else:
            logits, looked = model(source, tokens), model.looked(source, tokens)[-1]
        assert logits.shape == (2, 3, 9) and looked.shape == (2, 3, 5)
        assert looked[0, :, 3:].abs().max().item() == 0
        assert tw.allclose(looked.sum(2), tw.ones(2, 3), atol=1e-5)


def test_a_decoder_knows_no_future():
    """Changing a later token changes no earlier logits."""
    tw.manual_seed(0)
    model, source = models.SequenceTransformer(9, 9, 8, 2).eval(), tw.tensor([[3, 4, 5]])
    a, b = (model(source, tw.tensor([t])) for t in ([1, 3, 4, 5], [1, 3, 4, 8]))
    assert tw.equal(a[:, :3], b[:, :3]) and not tw.equal(a[:, 3], b[:, 3])


def test_reports_end_when_they_say_so():
    tw.manual_seed(0)
    model = models.ReportWriter(12, 6, 8, 16)
    memory = tw.randn(3, 4, 6)
    with tw.no_grad():
        model.last.bias.fill_(100.0)
    assert [len(text) for text in model.write(memory, 5, 4)] == [1, 1, 1]
    with tw.no_grad():
        model.last.bias.fill_(-100.0)
    texts = model.write(memory, 5, 4)
    assert [len(text) for text in texts] == [5, 5, 5] and all(2 not in s for text in texts for s in text)


def test_records_read_no_later_visit():
    tw.manual_seed(0)
    model = models.RecordsNet(20, labs=3)
    codes = tw.randint(1, 20, (2, 4, 5))
    changed = codes.clone()
    changed[:, 2:] = tw.randint(1, 20, (2, 2, 5))
    a, b = model(codes, tw.tensor([2, 2])), model(changed, tw.tensor([2, 2]))
    assert tw.equal(a.risk, b.risk) and a.labs.shape == (2, 4, 3)
