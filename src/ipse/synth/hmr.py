"""A small body regressor in the manner of HMR: a picture to joints and body, by a head that corrects itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ipse.errors import TrainingError
from ipse.synth.bedlam import LEFT_HIP, RIGHT_HIP
from ipse.world.body import COCO

JOINTS = len(COCO)
BODY = ("stature_m", "weight", "gender")
"""What is said of the body: meters, and the phenotype's 0 to 1."""

# The joint that each becomes in a mirror.
_MIRROR = [COCO.index(n.replace("left", "#").replace("right", "left").replace("#", "right")) for n in COCO]


class Regressor(nn.Module):
    """Picture to root-relative joints and body (Kanazawa et al. 2018, section 3.2, with joints in place of SMPL).

    As in HMR the head does not answer at once: from the mean of the training it is asked three times for a correction,
    seeing the picture's features and its own answer so far.

    Parameters
    ----------
    width
        Channels of the first stage; the others have two, four and eight times as many. 16 gives 0.6 million
        parameters.
    rounds
        Corrections.
    """

    def __init__(self, width: int = 16, rounds: int = 3) -> None:
        super().__init__()
        self.rounds = rounds
        w = width
        plan = [(3, w, 2), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2), (8 * w, 8 * w, 1)]
        layers: list[nn.Module] = []
        for inside, outside, stride in plan:
            layers += [
                nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
            ]
        # Where things are matters to a pose, so the map is narrowed and not averaged.
        layers += [nn.Conv2d(8 * w, 2 * w, 1), nn.ReLU(inplace=True), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        size = 3 * JOINTS + len(BODY)
        self.correct = nn.Sequential(nn.Linear(2 * w * 8 * 4 + size, 256), nn.ReLU(inplace=True), nn.Linear(256, size))
        nn.init.zeros_(self.correct[-1].weight)
        nn.init.zeros_(self.correct[-1].bias)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 128, 64) RGB from 0 to 1 → (N, 54): joints (17, 3) in meters, then `BODY`, in units of the training.

        The unit of each number is its standard deviation in the training and its zero the mean there; `predict` gives
        meters.
        """
        seen = self.features(images - 0.5)
        answer = images.new_zeros(len(images), len(self.mean))
        for _ in range(self.rounds):
            answer = answer + self.correct(torch.cat([seen, answer], 1))
        return answer


def train_regressor(
    images: npt.NDArray[np.uint8],
    joints: npt.NDArray[np.floating],
    body: npt.NDArray[np.floating],
    *,
    seed: int = 0,
    steps: int = 800,
    batch: int = 64,
    rate: float = 2e-3,
    width: int = 16,
    told: Callable[[int, float], None] = lambda step, loss: None,
) -> Regressor:
    """Train a regressor on pictures and their labels.

    Half of the pictures are seen in a mirror; nothing else is augmented, so that what varies is what was rendered.

    Parameters
    ----------
    images
        (N, 128, 64, 3) uint8.
    joints
        (N, 17, 3) meters from the middle of the hips, in the camera's axes; `BodyRecord.camera_joints`.
    body
        (N, 3): `BODY`.
    seed
        Of the weights and of the order.
    steps, batch, rate
        Updates, pictures in each, and the highest learning rate of AdamW, which rises and falls by a cosine.
    width
        As in `Regressor`.
    told
        Called after each step with its number and loss.

    Raises
    ------
    TrainingError
        If the arrays do not fit each other.
    """
    count = len(images)
    if images.shape != (count, 128, 64, 3) or joints.shape != (count, JOINTS, 3) or body.shape != (count, len(BODY)):
        raise TrainingError(
            f"Pictures {images.shape}, joints {joints.shape} and bodies {body.shape} do not fit together.",
            f"Give (N, 128, 64, 3), (N, {JOINTS}, 3) and (N, {len(BODY)}) of the same N.",
        )
    if count < batch:
        raise TrainingError(
            f"{count} pictures do not fill a batch of {batch}.", "Render more, or choose a smaller one."
        )
    # The first weights are drawn from torch's own generator, which is given back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Regressor(width)
    order = torch.Generator().manual_seed(seed)
    pictures = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    truth = torch.from_numpy(np.concatenate([joints.reshape(count, -1), body], 1).astype(np.float32))
    mirrored = joints[:, _MIRROR] * np.array([-1, 1, 1])
    other = torch.from_numpy(np.concatenate([mirrored.reshape(count, -1), body], 1).astype(np.float32))
    both = torch.cat([truth, other])
    model.mean.copy_(both.mean(0))
    # The hips' middle is the root and hardly moves; its own deviation would blow its errors up.
    model.scale.copy_(both.std(0).clamp(min=0.02))
    targets = [(t - model.mean) / model.scale for t in (truth, other)]
    # Joints count by their distance, as they are judged; the body with a tenth of their weight.
    weight = torch.cat([model.scale[: 3 * JOINTS] / model.scale[: 3 * JOINTS].mean(), torch.full((len(BODY),), 0.1)])
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    waiting = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=order)])
        chosen, waiting = waiting[:batch], waiting[batch:]
        turned = torch.rand(batch, generator=order) < 0.5
        x = pictures[chosen].float() / 255
        x = torch.where(turned[:, None, None, None], x.flip(3), x)
        y = torch.where(turned[:, None], targets[1][chosen], targets[0][chosen])
        loss = ((model(x) - y).abs() * weight).mean()
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss of step {step} is {loss.item()}.", "Choose a lower learning rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        told(step, loss.item())
    return model.eval()


@torch.no_grad()
def predict(
    model: Regressor, images: npt.NDArray[np.uint8], batch: int = 256
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Joints (N, 17, 3) in meters from the middle of the hips, and bodies (N, 3), of pictures (N, 128, 64, 3)."""
    answers = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(np.ascontiguousarray(images[start : start + batch].transpose(0, 3, 1, 2))).float() / 255
        answers.append(model(x) * model.scale + model.mean)
    out = torch.cat(answers).numpy()
    joints = out[:, : 3 * JOINTS].reshape(-1, JOINTS, 3)
    return joints - joints[:, [LEFT_HIP, RIGHT_HIP]].mean(1, keepdims=True), out[:, 3 * JOINTS :]
