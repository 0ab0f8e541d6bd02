"""A Wasserstein GAN with gradient penalty on a ring of points: a gradient of a gradient."""
import numpy as np
import torch
import torch.autograd as autograd
import torch.nn as nn

rng = np.random.RandomState(5)


def randn(*shape):
    return torch.from_numpy(rng.standard_normal(shape).astype("float32"))


def mlp(*sizes):
    layers = []
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:])):
        layer = nn.Linear(a, b)
        layer.weight.data = randn(b, a) * (2 / a) ** 0.5
        layer.bias.data.zero_()
        layers += [layer] + ([nn.Softplus()] if i < len(sizes) - 2 else [])
    return nn.Sequential(*layers)


def compute_gradient_penalty(D, real_samples, fake_samples):
    alpha = torch.from_numpy(rng.random_sample((real_samples.size(0), 1))).float()
    interpolates = (alpha * real_samples + ((1 - alpha) * fake_samples)).requires_grad_(True)
    d_interpolates = D(interpolates)
    fake = torch.ones(real_samples.shape[0], 1)
    gradients = autograd.grad(
        outputs=d_interpolates,
        inputs=interpolates,
        grad_outputs=fake,
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )[0]
    gradients = gradients.view(gradients.size(0), -1)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


generator, critic = mlp(2, 16, 2), mlp(2, 16, 16, 1)
opt_g = torch.optim.RMSprop(generator.parameters(), lr=1e-3)
opt_c = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
lambda_gp, n_critic = 10, 3
for step in range(10):
    for p in critic.parameters():
        p.requires_grad = True
    for _ in range(n_critic):
        angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, 32)).float()
        real = torch.stack([angle.cos(), angle.sin()], dim=1)
        fake = generator(randn(32, 2)).detach()
        opt_c.zero_grad(set_to_none=True)
        gp = compute_gradient_penalty(critic, real, fake)
        loss_c = -torch.mean(critic(real)) + torch.mean(critic(fake)) + lambda_gp * gp
        loss_c.backward()
        opt_c.step()
    for p in critic.parameters():
        p.requires_grad = False
    opt_g.zero_grad()
    loss_g = -critic(generator(randn(32, 2))).mean()
    loss_g.backward()
    opt_g.step()
    print(f"[{step}] critic {loss_c.item():.5f} generator {loss_g.item():.5f} penalty {gp.item():.5f}")
