"""Word vectors, Transformer, BERT, GPT, vision transformer."""

from __future__ import annotations

import tilewright as tw
from systems import System, flipped, frozen
from tilewright import models, nn
from tilewright.nn import functional as F


def word_vectors(kind: str) -> float:
    """Of 40 words in 20 pairs that stand in the same places: the cosine of twins, less the mean of all cosines."""
    from word2vec import np, train

    tw.manual_seed(0)
    draw = np.random.default_rng(0)
    kinds = np.cumsum(draw.integers(1, 4, 8000)) % 20  # each word is followed by one of the next three kinds
    ids = 2 * kinds + draw.integers(0, 2, len(kinds))  # either twin serves
    unit = F.normalize(train(kind, ids, epochs=12, width=16, progress=False).centre.weight.detach(), dim=1)
    near, twins = unit @ unit.T, tw.arange(40) ^ 1
    return (near[tw.arange(40), twins].mean() - near.mean()).item()


def no_negatives(patch) -> None:
    """No random word is told apart from the true one."""
    make = models.Word2Vec.__init__
    patch.setattr(models.Word2Vec, "__init__", lambda self, counts, width, negatives: make(self, counts, width, 0))


def answers(task: str) -> float:
    """Of 500 new rows of six symbols, the share whose answers a small Transformer writes without a fault."""
    import transformer

    tw.manual_seed(0)
    return transformer.learn("Transformer", 6, 6400, 2, progress=False)[1][task]


def masked_words() -> float:
    """The masked words of rows that count upwards, guessed from their neighbours: the share guessed right."""
    from bert import FIRST, held_out, learn

    tw.manual_seed(0)
    rows = (tw.randint(40, (800, 1)) + tw.arange(12)) % 40 + FIRST
    return learn(40 + FIRST, rows[:700], held_out(rows[700:], 50), 12, width=32, progress=False)[1][-1]["val_first"]


def next_letter() -> float:
    """Minus the loss of the letter after held-out windows, of which a mask that is off shows nothing."""
    from gpt import Windows, learn, letters

    tw.manual_seed(0)
    alphabet, train, test = letters()
    model, _ = learn(len(alphabet), Windows(train, 16, 24, 300), None, 16, 1, 48, 1, rate=1e-2, progress=False)
    rows = test[:17 * 1500].view(-1, 17)
    with tw.no_grad():
        return -F.cross_entropy(model.eval()(rows[:, :-1])[:, -1], rows[:, -1]).item()


def digits_by_patches() -> float:
    from vit import digits, learn

    tw.manual_seed(0)
    (x, y), test = digits()
    return learn(x, y, [test], 12, width=32, layers=2, patch=4, progress=False)[1][-1]["val_right"]


def mask_off(patch) -> None:
    """Each place of a decoder sees what it is to say."""
    attend, look = nn.MultiheadAttention.forward, F.scaled_dot_product_attention
    patch.setattr(nn.MultiheadAttention, "forward",
                  lambda self, *given, **more: attend(self, *given, **more | {"attn_mask": None}))
    patch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, mask, p, is_causal=False: look(q, k, v, mask, p))


def no_positions(patch) -> None:
    """Every place is marked alike: a row is a bag of tokens."""
    patch.setattr(models.transformer, "sinusoids", lambda length, width: tw.zeros(length, width))


def not_shifted(patch) -> None:
    """Each letter is its own target."""
    import gpt

    draw = gpt.Windows.__iter__
    patch.setattr(gpt.Windows, "__iter__", lambda self: ((given, given) for given, _ in draw(self)))


def nothing_masked(patch) -> None:
    """The words to guess are left to be read."""
    import bert

    patch.setattr(bert, "mask_tokens", lambda ids, *rest: (ids, ids))


SYSTEMS = [
    System("skip-gram", lambda: word_vectors("skip-gram"), 0.3, "0.52; below 0.1 where all lie together", {
        "gradients flipped": flipped, "no negatives": no_negatives}),
    System("CBOW", lambda: word_vectors("CBOW"), 0.35, "0.65; below 0.1 where all come to lie together", {
        "gradients flipped": flipped, "no negatives": no_negatives}),
    System("Transformer reverses", lambda: answers("reverse"), 0.6, "0.98; of symbols without order 0.1", {
        "gradients flipped": flipped, "no positions": no_positions, "mask off": mask_off}),
    System("Transformer sorts", lambda: answers("sort"), 0.6, "0.99; 0 of what writes without having learned to", {
        "gradients flipped": flipped, "mask off": mask_off}),
    System("BERT's masked words", masked_words, 0.4, "0.74; a guess of 40 words 0.025", {
        "gradients flipped": flipped, "nothing masked": nothing_masked}),
    System("GPT's letters", next_letter, -2.3, "2.06 nats; pairs counted 2.29; who was shown the answers 2.56", {
        "gradients flipped": flipped, "mask off": mask_off, "targets not shifted": not_shifted}),
    System("vision transformer on digits", digits_by_patches, 0.85, "0.97; a linear layer on random ones 0.61", {
        "gradients flipped": flipped, "layers frozen": frozen("encoder|conv_proj|class_token")}),
]
