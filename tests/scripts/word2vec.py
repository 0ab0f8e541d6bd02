"""Skip-gram with negative sampling on a toy language of two topics."""
from collections import Counter

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

rng = np.random.RandomState(7)
topics = [['king', 'queen', 'crown', 'castle'], ['apple', 'pear', 'plum', 'juice']]
corpus = [rng.choice(topics[rng.randint(2)], 6).tolist() for _ in range(60)]
counts = Counter(word for line in corpus for word in line)
vocab = sorted(counts)
index = {word: i for i, word in enumerate(vocab)}
weights = torch.tensor([counts[w] for w in vocab], dtype=torch.float).pow(0.75)
weights /= weights.sum()


class SkipGramModel(nn.Module):
    def __init__(self, emb_size, emb_dimension):
        super(SkipGramModel, self).__init__()
        self.u_embeddings = nn.Embedding(emb_size, emb_dimension, sparse=False)
        self.v_embeddings = nn.Embedding(emb_size, emb_dimension, sparse=False)
        initrange = 1.0 / emb_dimension
        self.u_embeddings.weight.data = torch.from_numpy(rng.uniform(-initrange, initrange, (emb_size, emb_dimension)))
        self.u_embeddings.weight.data = self.u_embeddings.weight.data.float()
        nn.init.constant_(self.v_embeddings.weight.data, 0)

    def forward(self, pos_u, pos_v, neg_v):
        emb_u = self.u_embeddings(pos_u)
        emb_v = self.v_embeddings(pos_v)
        emb_neg_v = self.v_embeddings(neg_v)
        score = torch.sum(torch.mul(emb_u, emb_v), dim=1)
        score = torch.clamp(score, max=10, min=-10)
        score = -F.logsigmoid(score)
        neg_score = torch.bmm(emb_neg_v, emb_u.unsqueeze(2)).squeeze()
        neg_score = torch.clamp(neg_score, max=10, min=-10)
        neg_score = -torch.sum(F.logsigmoid(-neg_score), dim=1)
        return torch.mean(score + neg_score)


pairs = [(index[a], index[b]) for line in corpus for i, a in enumerate(line)
         for j, b in enumerate(line) if i != j and abs(i - j) <= 2]
pairs = np.array(pairs)[rng.permutation(len(pairs))]
model = SkipGramModel(len(vocab), 6)
optimizer = optim.SGD(model.parameters(), lr=2.0)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
p = weights.double().numpy()
for epoch in range(6):
    running_loss = 0.0
    for start in range(0, len(pairs), 128):
        batch = pairs[start:start + 128]
        negative = rng.choice(len(vocab), (len(batch), 5), p=p / p.sum())
        optimizer.zero_grad()
        loss = model(torch.LongTensor(batch[:, 0]), torch.LongTensor(batch[:, 1]), torch.LongTensor(negative))
        loss.backward()
        optimizer.step()
        running_loss = running_loss * 0.9 + loss.item() * 0.1
    scheduler.step()
    print(epoch, ' Loss: ' + str(running_loss), optimizer.param_groups[0]['lr'])
vectors = F.normalize(model.u_embeddings.weight.detach(), dim=1)
similarity = vectors @ vectors.t()
values, nearest = torch.topk(similarity, 3, dim=1)
for word in ('king', 'apple'):
    print(word, [vocab[int(i)] for i in nearest[index[word]]])
