"""The diffusion model: network, schedule, reconstruction, training."""

import copy
import resource

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError, StorageError
from sigad.models.autoencoder import Autoencoder
from sigad.models.diffusion.pretrained import PiecewiseLinearUNet
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.schedule import TIMES, cumulative_alphas, schedule
from sigad.models.diffusion.training import train
from sigad.models.diffusion.unet import UNet
from sigad.models.saved import restore
from tests.localization.small_detectors import small_unet


def ddim():
    """diffusers' scheduler with the paper's betas, cut where a fifth of its times is the paper's step of 115."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler = DDIMScheduler(
        num_train_timesteps=575, trained_betas=betas[:575].numpy(), clip_sample=False, set_alpha_to_one=True
    )
    scheduler.alphas_cumprod = torch.cumprod(1 - betas[:575], 0)  # in double precision
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(5)
    return scheduler


def test_constants():
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    assert torch.equal(cumulative_alphas(), torch.cumprod(1 - scheduler.betas.double(), 0))


@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
def test_steps_are_those_of_diffusers(eta):
    generator = torch.Generator().manual_seed(0)
    x, predicted, fresh = torch.randn(3, 2, 1, 4, 4, generator=generator, dtype=torch.float64)
    scheduler = ddim()
    assert list(scheduler.timesteps) == list(TIMES)
    for step in schedule(eta=eta).steps:
        expected = scheduler.step(predicted, step.time, x, eta=eta, variance_noise=fresh).prev_sample
        ours = step.image * x + step.noise * predicted + step.fresh * fresh
        torch.testing.assert_close(ours, expected, rtol=2e-6, atol=2e-6)  # betas of diffusers are rounded to single
    assert schedule(eta=eta).steps[-1].fresh == 0
    assert all(bool(step.fresh) == (eta > 0) for step in schedule(eta=eta).steps[:-1])


@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_reconstruction_is_the_loop_of_diffusers(eta):
    unet, scheduler = small_unet(), ddim()
    noises = draw_noises(np.random.default_rng(0), (1, 8, 8))
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = scheduler.add_noise(x, noises[:1], torch.tensor([460]))
        for i, time in enumerate(TIMES, start=1):
            fresh = noises[i % len(TIMES)].expand_as(y)  # the last step has no noise
            y = scheduler.step(unet(y, time), time, y, eta=eta, variance_noise=fresh).prev_sample
        reconstruct = Reconstruction(unet, noises, eta=eta)
        torch.testing.assert_close(reconstruct(x), y, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(reconstruct(x[:1]), reconstruct(x)[:1], rtol=1e-12, atol=1e-12)
        assert torch.equal(reconstruct(x), reconstruct(x))  # deterministic


@pytest.mark.parametrize("arguments", [{"times": (0, 5)}, {"times": (1000, 0)}, {"times": ()}, {"eta": 1.5}])
def test_wrong_schedules(arguments):
    with pytest.raises(InvalidInputError):
        schedule(**arguments)


def test_wrong_noises_and_activations():
    with pytest.raises(InvalidInputError, match=r"\(5, C, H, W\)"):
        Reconstruction(small_unet(), torch.zeros(4, 1, 8, 8))
    with pytest.raises(InvalidInputError, match="must be a torch"):
        Reconstruction(lambda x, time: x, torch.zeros(5, 1, 8, 8))
    with pytest.raises(InvalidInputError, match="default_rng"):
        draw_noises(0, (1, 8, 8))
    with pytest.raises(ConfigurationError, match="relu, silu"):
        UNet(activation="sine")
    with pytest.raises(ConfigurationError, match="widths"):
        UNet(widths=(8,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(4, 1, 9, 9)}, "divisible by 2, not 9 x 9"),
        ({"seed": -1}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_trainings_that_cannot_be(change, message):
    given = {"seed": 0, "epochs": 1, "widths": (4, 8)} | change
    with pytest.raises(InvalidInputError, match=message):
        train(given.pop("images", torch.zeros(4, 1, 8, 8)), **given)


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "state.pt").write_text("junk", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no checkpoint"):
        train(torch.zeros(4, 1, 8, 8), seed=0, epochs=1, widths=(4, 8), checkpoint=tmp_path / "state.pt")


def test_saved_and_loaded(tmp_path):
    unet = copy.deepcopy(small_unet()).float()
    unet.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").is_file() and list(tmp_path.glob("*.safetensors"))
    again = PiecewiseLinearUNet.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(again(x, 115), unet(x, 115), rtol=1e-5, atol=1e-5)
    for name, value in unet.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert again.config.widths == [8, 12, 16, 24] and not again.training


def test_it_is_read_without_diffusers(tmp_path):
    unet = copy.deepcopy(small_unet(activation="silu")).float()
    unet.save_pretrained(tmp_path)
    again = restore(UNet, tmp_path)
    assert type(again) is UNet and again.activation == "silu" and not again.training
    assert all(torch.equal(value, unet.state_dict()[name]) for name, value in again.state_dict().items())
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again(x, 115), unet(x, 115))


def test_what_is_no_network_is_not_read(tmp_path):
    with pytest.raises(MissingDataError, match="no network"):
        restore(UNet, tmp_path)
    small_unet().save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match="no network of the class Autoencoder"):
        restore(Autoencoder, tmp_path)
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InvalidInputError, match="no network of the class UNet"):
        restore(UNet, tmp_path)


def test_time_enters():
    unet, x = small_unet(), torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        at_both = unet(x, torch.tensor([0, 460]))
        assert not torch.allclose(at_both[0], at_both[1])
        torch.testing.assert_close(at_both[1:], unet(x[:1], 460), rtol=1e-12, atol=1e-12)


def test_training_resumes_to_the_last_bit(tmp_path):
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    settings = {"seed": 4, "widths": (4, 4, 4, 8), "batch_size": 16}
    state = torch.get_rng_state()
    whole, curve = train(images, epochs=4, **settings)
    assert torch.equal(state, torch.get_rng_state())  # no global randomness
    checkpoint = tmp_path / "kept" / "state.pt"
    train(images, epochs=2, checkpoint=checkpoint, **settings)
    resumed, again = train(images, epochs=4, checkpoint=checkpoint, **settings)
    assert [e[:2] for e in again] == [e[:2] for e in curve] and len(curve) == 4
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    # Another setting does not resume from it.
    _, other = train(images, epochs=1, checkpoint=checkpoint, **{**settings, "seed": 5})
    assert len(other) == 1 and other[0].loss != curve[0].loss


def test_a_checkpoint_that_cannot_be_written_says_why_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))  # as if the disk were full
    try:
        with pytest.raises(StorageError, match=r"state\.pt could not be written \(File too large\): make room"):
            train(
                torch.zeros(8, 1, 8, 8),
                seed=0,
                epochs=1,
                widths=(4, 4, 4, 8),
                checkpoint=tmp_path / "kept" / "state.pt",
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "kept").iterdir()) == []


def test_training_tells_how_far_it_is(monkeypatch, caplog):
    """Where there is no terminal for a bar, on a cluster, the log says it."""
    monkeypatch.setattr("sigad.models.fitting.TELL_EVERY", 0.0)
    with caplog.at_level("INFO", logger="sigad.models.fitting"):
        train(torch.zeros(8, 1, 8, 8), seed=0, epochs=2, widths=(4, 4, 4, 8))
    assert [record.message[:12] for record in caplog.records] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert "loss" in caplog.text and caplog.records[-1].message.endswith("about 0 min to go")


def test_training_learns():
    _, curve = train(torch.zeros(64, 1, 8, 8), seed=0, epochs=12, learning_rate=3e-3, widths=(4, 4, 4, 8))
    assert curve[-1].loss < 0.7 * curve[0].loss
    with pytest.raises(InvalidInputError, match=r"\(N, C, H, W\)"):
        train(torch.zeros(8, 8), seed=0, epochs=1)
