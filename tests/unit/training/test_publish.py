from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from mini_data import sft_config
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.contracts.prompt import CONTROL_TOKENS, render
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from training import sft
from training.card import SOURCES as CARD_SOURCES
from training.card import model_card
from training.cli_train import run_sft
from training.config import RunConfig, read_config
from training.mixture import SOURCES
from training.publish import publish
from training.run_sft import run_facts
from training.sft import train


@pytest.fixture(scope="module")
def config_file(mini_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "mini.toml"
    path.write_text(sft_config(mini_data))
    return path


def test_train_sft_makes_a_checkpoint_that_loads_here_and_in_transformers(
    config_file: Path, tmp_path: Path
) -> None:
    from argparse import Namespace  # noqa: PLC0415 - only here

    out = tmp_path / "checkpoint"
    assert run_sft(Namespace(config=config_file, run_dir=tmp_path / "run", out=out)) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.id == "mini"
    assert (tmp_path / "run" / "reliability.png").exists()

    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ours = Tokenizer.from_file(str(out / "tokenizer.json"))
    for golden in checkpoint.manifest.golden:
        ids = tokenizer(golden.prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        assert ids[0].tolist() == ours.encode(golden.prompt).ids
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert tuple(written[0, ids.shape[1] :].tolist()) == golden.token_ids


def test_an_unusable_config_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from argparse import Namespace  # noqa: PLC0415 - only here

    assert run_sft(Namespace(config=tmp_path / "none.toml", run_dir=tmp_path, out=None)) == 2
    assert "none.toml: no such file" in capsys.readouterr().err


def test_a_failed_publication_leaves_the_old_checkpoint(mini_config: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "old").write_text("old")
    model, tokenizer = train(mini_config, tmp_path / "run")
    with pytest.raises(ValueError, match="needs right and wrong"):
        publish(
            model,
            tokenizer,
            folder,
            checkpoint_id="mini",
            max_tokens=256,
            training={},
            card=partial(model_card, mini_config, facts={}),
            probes=[],
        )
    assert (folder / "old").read_text() == "old"


def test_the_default_checkpoint_answers_its_golden_prompts_in_transformers() -> None:
    checkpoint = load_checkpoint(DEFAULT_CHECKPOINT)
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_CHECKPOINT, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_CHECKPOINT)
    assert tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)) == list(range(len(CONTROL_TOKENS)))
    assert render("rn icu nights") in {golden.prompt for golden in checkpoint.manifest.golden}
    for golden in checkpoint.manifest.golden:
        ids = tokenizer(golden.prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert tuple(written[0, ids.shape[1] :].tolist()) == golden.token_ids


def test_a_run_tells_what_it_cost_and_a_finished_one_trains_no_more(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file.write_text(config_file.read_text().replace("steps = 150", "steps = 2"))
    config = read_config(config_file, RunConfig)
    trained, _ = train(config, tmp_path / "run")
    assert list(run_facts(config, tmp_path / "run")) == [config.name]
    assert run_facts(config, tmp_path / "run")[config.name].startswith("2 steps, ")
    monkeypatch.setattr(sft, "Mixture", None)  # its data, minutes of work, are not even read
    again, _ = train(config, tmp_path / "run")
    assert torch.equal(trained.lm_head.weight, again.lm_head.weight)


def test_the_card_knows_every_source_and_its_terms() -> None:
    assert set(CARD_SOURCES) == set(SOURCES)
