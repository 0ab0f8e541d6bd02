"""Recurrent nets, sequence to sequence, captions, reports, records over time."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from systems import System, flipped
from tilewright import models, nn
from tilewright.models import seq2seq


# --- recurrent nets --------------------------------------------------------------------------------------------------
def adding_problem() -> float:
    from recurrent import add

    tw.manual_seed(0)
    return -add("gru", 40, 5, n=6400, progress=False)["errors"][-1]


def without_gates(patch) -> None:
    """A plain RNN in the GRU's place."""
    patch.setitem(seq2seq.KINDS, "gru", nn.RNN)


def characters() -> float:
    """The last letter of each word is its first one; many words lie across two parts of the text."""
    from characters import Stream, Surprise, train

    tw.manual_seed(0)
    words = np.random.default_rng(0).integers(0, 4, 2500)
    ids = np.concatenate([[k, 4, 5, 6, 7, k] for k in words])
    model = seq2seq.RecurrentNet("lstm", 8, 32, 8, every=True, vocabulary=8)
    streams = (Stream(part, rows=8, steps=8) for part in (ids[:12000], ids[12000:]))
    return -float(np.exp(train(model, Surprise(), *streams, epochs=8, rate=1e-2, progress=False)[-1]))


def forgotten(patch) -> None:
    """Each part of a text begins with an empty state."""
    carry = seq2seq.RecurrentNet.carry
    patch.setattr(seq2seq.RecurrentNet, "carry", lambda self, x, state=None: carry(self, x, None))


def variable_lengths() -> float:
    from recurrent import diagnose

    tw.manual_seed(0)
    return diagnose("both", 1200, 8, progress=False)


def first_slice(patch) -> None:
    """Sequences are packed as if each ended after its first step."""
    pack = seq2seq.pack_padded_sequence
    patch.setattr(seq2seq, "pack_padded_sequence", lambda x, lengths, **more: pack(x, tw.ones_like(lengths), **more))


# --- from sequences and pictures to sequences ------------------------------------------------------------------------
def dates() -> float:
    from seq2seq import learn

    tw.manual_seed(0)
    return learn(True, 800, 10, rate=8e-3, progress=False)["exact"]


def blind(patch) -> None:
    """Every place is looked at alike."""
    def mean(self, query, memory, mask=None, keys=None):
        weights = tw.ones_like(memory[..., 0]) if mask is None else mask.to(memory.dtype)
        weights = weights / weights.sum(1, keepdim=True)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights

    patch.setattr(seq2seq.AdditiveAttention, "forward", mean)


def shifted(patch) -> None:
    """The decoder is told the token that it is to say, where it should know the one before."""
    forward = seq2seq.AttentionDecoder.forward

    def told(self, memory, tokens, *rest, **more):
        return forward(self, memory, tw.cat([tokens[:, 1:], tokens[:, -1:]], 1), *rest, **more)

    patch.setattr(seq2seq.AttentionDecoder, "forward", told)


def captions() -> float:
    from captions import caption

    tw.manual_seed(0)
    return caption(2000, 5, rate=1e-2, test=200, progress=False)["exact"]


def reports() -> float:
    from captions import report

    tw.manual_seed(0)
    return report(1000, 6, rate=1e-2, test=150, progress=False)["writer"]["F1"]


def unending(patch) -> None:
    """The sentence that ends a report is never said to be the last."""
    write = seq2seq.ReportWriter.write

    def on(self, *rest):
        with tw.no_grad():
            self.last.bias.fill_(-100)
        return write(self, *rest)

    patch.setattr(seq2seq.ReportWriter, "write", on)


# --- records ---------------------------------------------------------------------------------------------------------
def records() -> float:
    from records import learn

    return float(np.mean([learn(200, 4.0, seed, epochs=20)["auc"][-1] for seed in (0, 1)]))


def auxiliary_gain() -> float:
    from records import learn

    with_labs, without = (np.mean([learn(300, weight, seed, epochs=20)["auc"][-1] for seed in (0, 1)])
                          for weight in (4.0, 0.0))
    return float(with_labs - without)


def first_visit(patch) -> None:
    """Records end after their first visit."""
    pack = models.records.pack_padded_sequence
    patch.setattr(models.records, "pack_padded_sequence", lambda x, n, **more: pack(x, tw.ones_like(n), **more))


def others_labs(patch) -> None:
    """The laboratory values are those of other patients."""
    import records as example

    loss = example.next_labs
    patch.setattr(example, "next_labs", lambda said, labs, visits: loss(said, labs.flip(0), visits))


SYSTEMS = [
    System("GRU on the adding problem", adding_problem, -0.05, "error 0.001; always saying 1: 0.167", {
        "gradients flipped": flipped, "gates taken away": without_gates}),
    System("LSTM on characters", characters, -1.36, "perplexity 1.28, at best 4 ** (1 / 6) = 1.26; of the parts alone "
           "1.46", {"gradients flipped": flipped, "state not carried": forgotten}),
    System("bidirectional GRU on studies", variable_lengths, 0.8, "accuracy 0.99; by chance 0.5", {
        "gradients flipped": flipped, "first slice only": first_slice}),
    System("dates with attention", dates, 0.6, "exact 0.88; without attention 0.3", {
        "gradients flipped": flipped, "attention off": blind, "teacher's tokens shifted": shifted}),
    System("captions", captions, 0.3, "exact 0.38 to 0.48; the most similar picture's 0.28", {
        "gradients flipped": flipped, "teacher's tokens shifted": shifted}),
    System("reports in two levels", reports, 0.58, "F1 of sentences 0.73; with no last one 0.43", {
        "gradients flipped": flipped, "no last sentence": unending}),
    System("records over time", records, 0.7, "AUC 0.78; by chance 0.5", {
        "gradients flipped": flipped, "first visit only": first_visit}),
    System("records with auxiliary labs", auxiliary_gain, 0.008, "AUC 0.02 higher than without", {
        "labs of others": others_labs}),
]
