"""Recurrent networks from sequences to labels, values and sequences: attention of Bahdanau et al. (arXiv:1409.0473),
captions of images after Vinyals et al. (arXiv:1411.4555) and Xu et al. (arXiv:1502.03044), and reports of sentences of
words after Krause et al. (arXiv:1611.06607)."""

from __future__ import annotations

from typing import Any, NamedTuple

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F
from tilewright.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from tilewright.tensor import Tensor

__all__ = ["AdditiveAttention", "AttentionDecoder", "Captioner", "RecurrentNet", "Report", "ReportWriter", "Seq2Seq"]

KINDS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def _recur(rnn: Any, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Any]:
    """rnn(x), neither direction of which reads beyond a sequence's length; 0 there."""
    if lengths is None:
        return rnn(x)
    every, state = rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(every, batch_first=True, total_length=x.shape[1])[0], state


class RecurrentNet(nn.Module):
    """Sequences (N, T, in_features) through an RNN, LSTM or GRU to (N, out_features), or with every=True (N, T, out).

    lengths (N,): where each sequence ends; without, all are T long. The last state, of both directions where there are
    two, goes to a linear layer. vocabulary > 0: the input is token numbers (N, T), embedded in in_features.

    Raises:
        ValueError: kind is not rnn, lstm or gru.
    """

    def __init__(self, kind: str, in_features: int, hidden: int, out_features: int, layers: int = 1,
                 bidirectional: bool = False, every: bool = False, vocabulary: int = 0, dropout: float = 0.0):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"RecurrentNet: kind must be of {', '.join(KINDS)}, got {kind!r}")
        self.every = every
        self.embed = nn.Embedding(vocabulary, in_features) if vocabulary else None
        self.rnn = KINDS[kind](in_features, hidden, layers, batch_first=True, bidirectional=bidirectional,
                               dropout=dropout)
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), out_features)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            x = self.embed(x)
        out, state = _recur(self.rnn, x, lengths)
        if self.every:
            return self.head(out)
        h = state[0] if isinstance(state, tuple) else state
        last = h[-2:] if self.rnn.bidirectional else h[-1:]
        return self.head(last.transpose(0, 1).flatten(1))

    def carry(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What is said at every step (N, T, out_features), and the state from which the next part of a long sequence
        goes on: detached, so that backpropagation through time stops at the part's beginning (Williams and Peng)."""
        out, state = self.rnn(x if self.embed is None else self.embed(x), state)
        return self.head(out), tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


class AdditiveAttention(nn.Module):
    """Weights softmax_t(v . tanh(W q + U m_t)) of a query (N, Q) over a memory (N, T, M); gives that mean (N, M), them.

    mask (N, T) is False where the memory is padding. keys: `u(memory)`, where many queries share it.
    """

    def __init__(self, query: int, memory: int, hidden: int):
        super().__init__()
        self.w, self.u = nn.Linear(query, hidden, bias=False), nn.Linear(memory, hidden)
        self.v = nn.Linear(hidden, 1, bias=False)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None,
                keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        keys = self.u(memory) if keys is None else keys
        score = self.v(tw.tanh(self.w(query).unsqueeze(1) + keys)).squeeze(2)
        if mask is not None:
            score = score.masked_fill(~mask, float("-inf"))
        weights = F.softmax(score, 1)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights


class AttentionDecoder(nn.Module):
    """Tokens one by one, by a GRU cell that looks at a memory (N, T, M) before each.

    `forward(memory, tokens)` is told the tokens before (N, L), which begin with `start`, and returns logits (N, L,
    vocabulary) and the weights (N, L, T); `write(memory, n)` takes its own likeliest, until `stop`.
    """

    def __init__(self, vocabulary: int, width: int, memory: int, hidden: int, start: int = 1, stop: int = 2):
        super().__init__()
        self.start, self.stop = start, stop
        self.embed, self.cell = nn.Embedding(vocabulary, width), nn.GRUCell(width + memory, hidden)
        self.attention = AdditiveAttention(hidden, memory, hidden)
        self.first, self.head = nn.Linear(memory, hidden), nn.Linear(hidden + memory, vocabulary)

    def begin(self, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """The state before the first token, from the memory's mean."""
        if mask is None:
            return tw.tanh(self.first(memory.mean(1)))
        there = mask.unsqueeze(2).to(memory.dtype)
        return tw.tanh(self.first((memory * there).sum(1) / there.sum(1).clamp(min=1)))

    def step(self, token: Tensor, state: Tensor, memory: Tensor, mask: Tensor | None,
             keys: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, vocabulary) of what follows `token` (N,), the new state and the weights."""
        seen, weights = self.attention(state, memory, mask, keys)
        state = self.cell(tw.cat([self.embed(token), seen], 1), state)
        return self.head(tw.cat([state, seen], 1)), state, weights

    def forward(self, memory: Tensor, tokens: Tensor, mask: Tensor | None = None,
                state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = self.begin(memory, mask) if state is None else state
        keys, logits, looked = self.attention.u(memory), [], []
        for token in tokens.unbind(1):
            y, state, weights = self.step(token, state, memory, mask, keys)
            logits.append(y)
            looked.append(weights)
        return tw.stack(logits, 1), tw.stack(looked, 1)

    @tw.no_grad()
    def write(self, memory: Tensor, most: int, mask: Tensor | None = None,
              state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, L) tokens with L at most `most`, `stop` from each text's end on, and the weights (N, L, T)."""
        state = self.begin(memory, mask) if state is None else state
        token = tw.full((len(memory),), self.start, dtype=tw.int64, device=memory.device)
        keys, done, tokens, looked = self.attention.u(memory), tw.zeros_like(token).bool(), [], []
        for _ in range(most):
            logits, state, weights = self.step(token, state, memory, mask, keys)
            token = tw.where(done, self.stop, logits.argmax(1))
            done = done | (token == self.stop)
            tokens.append(token)
            looked.append(weights)
            if bool(done.all()):
                break
        return tw.stack(tokens, 1), tw.stack(looked, 1)


class Seq2Seq(nn.Module):
    """Token numbers (N, T), 0 as padding, read by a bidirectional GRU and written anew by an `AttentionDecoder`."""

    def __init__(self, source: int, target: int, width: int = 64, hidden: int = 128, start: int = 1, stop: int = 2):
        super().__init__()
        self.embed = nn.Embedding(source, width, padding_idx=0)
        self.encoder = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.decoder = AttentionDecoder(target, width, 2 * hidden, hidden, start, stop)

    def memory(self, source: Tensor) -> Tensor:
        """What the encoder says of each token: (N, T, 2 hidden), 0 for padding, which it does not read."""
        return _recur(self.encoder, self.embed(source), (source != 0).sum(1).clamp(min=1))[0]

    def forward(self, source: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of what follows each of `tokens` (N, L), and where the decoder looked (N, L, T)."""
        return self.decoder(self.memory(source), tokens, source != 0)

    def translate(self, source: Tensor, most: int = 50) -> tuple[Tensor, Tensor]:
        """The decoder's `write` for (N, T)."""
        with tw.no_grad():
            return self.decoder.write(self.memory(source), most, source != 0)


class Captioner(nn.Module):
    """Images (N, C, H, W) by a convolutional encoder to (N, channels, h, w), whose places a decoder looks at."""

    def __init__(self, encoder: nn.Module, channels: int, vocabulary: int, width: int = 64, hidden: int = 128,
                 start: int = 1, stop: int = 2):
        super().__init__()
        self.encoder, self.decoder = encoder, AttentionDecoder(vocabulary, width, channels, hidden, start, stop)

    def places(self, images: Tensor) -> Tensor:
        """(N, h w, channels)."""
        return self.encoder(images).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of what follows each of `tokens` (N, L), and where the decoder looked (N, L, h w)."""
        return self.decoder(self.places(images), tokens)

    def caption(self, images: Tensor, most: int = 20) -> tuple[Tensor, Tensor]:
        """The decoder's `write` for images."""
        with tw.no_grad():
            return self.decoder.write(self.places(images), most)


class Report(NamedTuple):
    logits: Tensor  # (N, S, L, vocabulary) of the words that follow
    stops: Tensor   # (N, S) logits: whether the report ends with this sentence


class ReportWriter(nn.Module):
    """Reports in two levels: a GRU gives each sentence a topic and says whether it is the last; words follow the topic.

    The sentences' GRU looks at the memory (N, T, M) by attention before each topic; a sentence's `AttentionDecoder`
    begins with the topic as its state and looks at the memory too.
    """

    def __init__(self, vocabulary: int, memory: int, width: int = 64, hidden: int = 128, start: int = 1, stop: int = 2):
        super().__init__()
        self.attention, self.sentence = AdditiveAttention(hidden, memory, hidden), nn.GRUCell(memory, hidden)
        self.first, self.last = nn.Linear(memory, hidden), nn.Linear(hidden, 1)
        self.topic = nn.Linear(hidden, hidden)
        self.words = AttentionDecoder(vocabulary, width, memory, hidden, start, stop)

    def _next(self, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = self.sentence(self.attention(state, memory)[0], state)
        return state, tw.tanh(self.topic(state)), self.last(state).squeeze(1)

    def forward(self, memory: Tensor, tokens: Tensor) -> Report:
        """tokens (N, S, L): the words before, of each sentence, begun with `start`."""
        state, topics, stops = tw.tanh(self.first(memory.mean(1))), [], []
        for _ in range(tokens.shape[1]):
            state, topic, stop = self._next(state, memory)
            topics.append(topic)
            stops.append(stop)
        each = memory.repeat_interleave(tokens.shape[1], 0)  # told its words, no sentence waits for another
        logits = self.words(each, tokens.flatten(0, 1), state=tw.stack(topics, 1).flatten(0, 1))[0]
        return Report(logits.unflatten(0, tokens.shape[:2]), tw.stack(stops, 1))

    @tw.no_grad()
    def write(self, memory: Tensor, sentences: int, words: int) -> list[list[list[int]]]:
        """For each of N its sentences of token numbers, without `stop`."""
        state = tw.tanh(self.first(memory.mean(1)))
        texts: list[list[list[int]]] = [[] for _ in range(len(memory))]
        going = [True] * len(memory)
        for _ in range(sentences):
            state, topic, stop = self._next(state, memory)
            tokens = self.words.write(memory, words, state=topic)[0].tolist()
            for i, (sentence, last) in enumerate(zip(tokens, (stop > 0).tolist(), strict=True)):
                if going[i]:
                    end = sentence.index(self.words.stop) if self.words.stop in sentence else len(sentence)
                    texts[i].append(sentence[:end])
                    going[i] = not last
            if not any(going):
                break
        return texts
