"""Every family: checkpoints, Auto classes, classifiers, adapters and offload, and files that are tables."""

import copy
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from oracles import logit_weights
from oracles_mamba2 import oracle_of
from random_models import padded_batch, random_model
from small import KINDS, word_tokenizer
from transformers import AutoModelForSequenceClassification, pipeline

import hf_mambalrp
from hf_mambalrp import AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, families, make_explainable
from hf_mambalrp.errors import CheckpointError, MissingHeadError, UnknownArchitectureError
from hf_mambalrp.families import FAMILIES
from hf_mambalrp.families.base import Family, Head, branch
from hf_mambalrp.families.falcon_mamba import parameter_norms
from hf_mambalrp.families.parts import SSD, RMSNorm, Selective, Tokens

PREFIX = {"mamba": "Mamba", "falcon_mamba": "FalconMamba", "mamba2": "Mamba2"}
IDS, MASK = padded_batch([7, 4])
every_family = pytest.mark.parametrize("model_type", PREFIX)


def classes(model_type):
    """The four classes: stock and explainable language model, plain and explainable classifier."""
    prefix = PREFIX[model_type]
    return (
        getattr(transformers, f"{prefix}ForCausalLM"),
        getattr(hf_mambalrp, f"{prefix}LRPForCausalLM"),
        getattr(hf_mambalrp, f"{prefix}ForSequenceClassification"),
        getattr(hf_mambalrp, f"{prefix}LRPForSequenceClassification"),
    )


def language_model(model_type, **options):
    return random_model(model_type=model_type, **{"dtype": torch.float32, **options})


def classifier(model_type, **options):
    """With the random backbone of ``language_model`` and three classes."""
    model = language_model(model_type)
    config = copy.deepcopy(model.config)
    config.num_labels = 3
    for name, value in options.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    found = classes(model_type)[2](config).eval()
    found.backbone.load_state_dict(model.backbone.state_dict())
    return found


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS, attention_mask=MASK).logits


@every_family
@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_goes_through_files_in_both_directions(tmp_path, model_type, tied):
    stock_class, our_class, *_ = classes(model_type)
    stock = language_model(model_type, tie_word_embeddings=tied)
    if tied and not stock._tied_weights_keys:
        pytest.skip("this transformers cannot save its own Mamba-2 with tied weights")
    stock.save_pretrained(tmp_path / "stock")
    for loader in (our_class, AutoMambaLRPForCausalLM):
        ours = loader.from_pretrained(tmp_path / "stock")
        assert type(ours) is our_class
        assert torch.equal(logits(ours), logits(stock))
    ours.explain(IDS, attention_mask=MASK)
    ours.save_pretrained(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [stock_class.__name__]
    again, info = stock_class.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(logits(again), logits(stock))


@every_family
def test_a_classifier_goes_through_files_auto_model_and_pipeline(tmp_path, model_type):
    _, _, plain_class, our_class = classes(model_type)
    model = classifier(model_type)
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is plain_class
    ours = AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path)
    assert type(ours) is our_class
    assert torch.equal(logits(ours), logits(model))
    (answer,) = pipeline("text-classification", model=str(tmp_path), device="cpu")("a b c")
    explanation = ours.explain("a b c")
    assert explanation.target_text == [answer["label"]]
    assert float(explanation.probability[0]) == pytest.approx(answer["score"], abs=1e-5)


@every_family
def test_a_classifier_pools_each_rows_last_token_and_is_explained_there(model_type):
    model = classifier(model_type)
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        hidden = model.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    torch.testing.assert_close(model(ids, attention_mask=mask).logits, hidden[[0, 1], [3, 1]] @ model.score.weight.T)
    expected = oracle_of(model, input_ids=ids, attention_mask=mask, weights=logit_weights([2, 1], 3))
    found = make_explainable(model).explain(ids, attention_mask=mask, target=[2, 1])
    assert float((found.relevance - expected.relevance).norm() / expected.relevance.norm()) < 1e-5
    torch.testing.assert_close(found.conservation.biases.double(), expected.biases, rtol=1e-4, atol=1e-5)


@every_family
def test_a_classifier_trains(model_type):
    model = classifier(model_type).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    labels = torch.tensor([2, 0])
    losses = []
    for _ in range(8):
        loss = model(IDS, attention_mask=MASK, labels=labels).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


@every_family
def test_a_checkpoint_without_a_head_is_an_error(tmp_path, model_type):
    language_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(MissingHeadError, match=rf"score\.weight.*{PREFIX[model_type]}ForSequenceClassification"):
        AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path)


@every_family
def test_a_classifiers_checkpoint_is_no_language_model(tmp_path, model_type):
    """With a tied head nothing is missing in it, and nothing was trained to predict tokens."""
    classifier(model_type, tie_word_embeddings=True).save_pretrained(tmp_path)
    for loader in (classes(model_type)[1], AutoMambaLRPForCausalLM):
        with pytest.raises(MissingHeadError, match=rf"{PREFIX[model_type]}LRPForSequenceClassification"):
            loader.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": None}))
    with pytest.raises(MissingHeadError, match=f"{PREFIX[model_type]}LRPForSequenceClassification"):
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path)  # its weights tell


@every_family
def test_a_checkpoint_of_another_family_names_the_right_class(tmp_path, model_type):
    language_model(model_type).save_pretrained(tmp_path / "language-model")
    classifier(model_type).save_pretrained(tmp_path / "classifier")
    for other in PREFIX.keys() - {model_type}:
        _, language, _, our_classifier = classes(other)
        with pytest.raises(UnknownArchitectureError, match=rf"with {PREFIX[model_type]}LRPForCausalLM or Auto"):
            language.from_pretrained(tmp_path / "language-model")
        with pytest.raises(UnknownArchitectureError, match=rf"with {PREFIX[model_type]}LRPForSequenceClassification"):
            our_classifier.from_pretrained(tmp_path / "classifier")


@every_family
def test_a_model_without_weights_says_so(model_type):
    model = make_explainable(language_model(model_type)).to("meta")
    for call in (model.explain, model.hidden_attention, model.explain_generation):
        with pytest.raises(CheckpointError, match=r"meta device.*from_pretrained"):
            call(IDS)


@every_family
def test_generation_is_explained_token_by_token(model_type):
    model = make_explainable(language_model(model_type))
    found = model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=3, eos_token_id=None)
    length = found.prompt_length
    for step in range(3):
        ids, mask = found.input_ids[:, : length + step], found.attention_mask[:, : length + step]
        target = found.input_ids[:, length + step]
        expected = oracle_of(
            model, input_ids=ids, attention_mask=mask, weights=logit_weights(target.tolist(), model.config.vocab_size)
        ).relevance
        relevance = found.relevance[:, step, : length + step]
        assert float((relevance - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("model_type", ["falcon_mamba", "mamba2"])
@pytest.mark.parametrize("training", [False, True])
def test_an_adapter_peft_puts_in_is_part_of_what_is_explained(model_type, training):
    import peft

    stock = language_model(model_type)
    config = peft.LoraConfig(r=2, lora_dropout=0.5, target_modules=["in_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    model = make_explainable(peft.get_peft_model(copy.deepcopy(stock), config)).train(training)
    found = model.explain(IDS, attention_mask=MASK, target=3)
    merged = make_explainable(copy.deepcopy(model).merge_and_unload())
    expected = merged.explain(IDS, attention_mask=MASK, target=3)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-5)
    plain = make_explainable(stock).explain(IDS, attention_mask=MASK, target=3)
    assert not torch.allclose(found.relevance, plain.relevance, atol=1e-3)


@every_family
def test_a_classifier_is_trained_and_explained_with_adapters(model_type):
    import peft

    config = peft.LoraConfig(target_modules=["in_proj"], task_type="SEQ_CLS", init_lora_weights=False)
    torch.manual_seed(1)
    model = peft.get_peft_model(classifier(model_type), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loss = model.train()(input_ids=IDS, attention_mask=MASK, labels=torch.tensor([2, 0])).loss
    loss.backward()
    optimizer.step()
    again = model(input_ids=IDS, attention_mask=MASK, labels=torch.tensor([2, 0])).loss
    assert again < loss
    found = make_explainable(model.eval()).explain(IDS, attention_mask=MASK, target=1)
    merged = make_explainable(copy.deepcopy(model).merge_and_unload())
    expected = merged.explain(IDS, attention_mask=MASK, target=1)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.score, logits(merged)[:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["falcon_mamba", "mamba2"])
def test_an_offloaded_model_gives_the_same_relevance(model_type):
    from accelerate import cpu_offload

    stock = language_model(model_type)
    expected = make_explainable(copy.deepcopy(stock)).explain(IDS, attention_mask=MASK)
    model = make_explainable(cpu_offload(stock, execution_device="cpu"))
    assert model.backbone.layers[1].mixer.A_log.is_meta
    found = model.explain(IDS, attention_mask=MASK)
    assert model.backbone.layers[1].mixer.A_log.is_meta
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_called_as_a_module_gives_what_its_weights_give(kind):
    """A hook makes a plain layer one that is called: the path of LoRA and quantised layers."""
    model = make_explainable(random_model(**KINDS[kind], use_bias=True, dtype=torch.float32))
    expected = model.explain(IDS, attention_mask=MASK, target=3)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: None)
    found = model.explain(IDS, attention_mask=MASK, target=3)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.conservation.biases, expected.conservation.biases, rtol=1e-4, atol=1e-5)


def test_the_error_for_an_unknown_family_lists_the_known_ones():
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(UnknownArchitectureError, match=r"GPT2LMHeadModel.*'bamba', .*'mamba', 'mamba2'.*'zamba2'"):
        make_explainable(GPT2LMHeadModel(GPT2Config(vocab_size=19, n_embd=8, n_layer=1, n_head=1)))


def test_a_family_file_is_a_table():
    folder = Path(families.__file__).parent
    files = {path.stem: path.read_text().splitlines() for path in folder.glob("*.py")}
    others = ("__init__", "base", "lookup", "modules", "network", "padding", "recordings")
    tables = {name: lines for name, lines in files.items() if name not in others}
    alike = {"qwen3_5_text", "qwen3_5_moe_text", "lfm2_moe"}  # the table of another
    assert {{"granite": "granitemoehybrid"}.get(name, name) for name in tables} | alike == set(FAMILIES)
    for name, lines in tables.items():
        assert len(lines) <= 30, name


class OtherBlock(torch.nn.Module):
    """A block of a stock model under other names."""

    def __init__(self, block):
        super().__init__()
        self.before, self.mixing = block.norm, block.mixer

    def forward(self, hidden, mask):
        return hidden + self.mixing(self.before(hidden), attention_mask=mask)


class OtherModel(torch.nn.Module):
    """A stock language model whose every part that a family's table names has another name, with its own forward."""

    def __init__(self, stock):
        super().__init__()
        self.config = copy.deepcopy(stock.config)
        self.config.model_type = "other"
        self.trunk = torch.nn.Module()
        self.trunk.vectors, self.trunk.last = stock.backbone.embeddings, stock.backbone.norm_f
        self.trunk.stack = torch.nn.ModuleList(map(OtherBlock, stock.backbone.layers))
        self.lm_head = stock.lm_head

    def forward(self, input_ids, attention_mask=None, **_):
        streams = [self.trunk.vectors(input_ids)]
        for block in self.trunk.stack:
            streams.append(block(streams[-1], attention_mask))
        streams[-1] = self.trunk.last(streams[-1])
        # As these families have it: what leaves each block, the last one normed.
        return SimpleNamespace(hidden_states=tuple(streams[1:]), logits=self.lm_head(streams[-1]))


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "mamba2"])
def test_a_family_of_known_parts_is_one_table(kind, monkeypatch):
    """What the README's "Contributing" promises: a model that names its parts otherwise, and a table that says so."""
    stock = random_model(**KINDS[kind], dtype=torch.float32).eval()
    expected = make_explainable(copy.deepcopy(stock)).explain(IDS, attention_mask=MASK, target=3)
    other = OtherModel(stock)
    with pytest.raises(UnknownArchitectureError, match="other"):
        make_explainable(other)
    falcon = partial(Selective, parameter_norms=parameter_norms)
    part = {"mamba": Selective, "falcon_mamba": falcon, "mamba2": SSD}[kind]
    table = Family(
        "other",
        stem=lambda model: Tokens(model.trunk.vectors),
        layers=lambda model: [(branch(RMSNorm(b.before), part(b.mixing)),) for b in model.trunk.stack],
        head=lambda model, linear: Head(RMSNorm(model.trunk.last), linear),
    )
    monkeypatch.setitem(FAMILIES, "other", table)
    found = make_explainable(other).explain(IDS, attention_mask=MASK, target=3)
    assert torch.equal(found.relevance, expected.relevance)
    assert torch.equal(found.score, expected.score)
    wrong = table._replace(
        layers=lambda model: [(branch(RMSNorm(b.mixing), part(b.before)),) for b in model.trunk.stack]
    )
    monkeypatch.setitem(FAMILIES, "other", wrong)
    with pytest.raises(UnknownArchitectureError, match=r"trunk\.stack\.0\.mixing.*without \['weight'"):
        make_explainable(other)
    monkeypatch.setitem(FAMILIES, "other", FAMILIES[stock.config.model_type])
    with pytest.raises(UnknownArchitectureError, match=r"OtherModel is said .* has no 'backbone'"):
        make_explainable(other)
