"""A classifier whose score is known by construction: how many good words less how many bad ones the text has.

Mamba with one layer whose state is a sum: channel 0 counts good words, channel 1 bad ones, channel 2 is constant and
makes dt, B, C and the gate constant, A is almost 0. All embeddings have one length, so what a word weighs does not
depend on its neighbours; the head reads the counts alone, so a neutral word weighs nothing.
"""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import MambaConfig, PreTrainedTokenizerFast

from hf_mambalrp import MambaForSequenceClassification, make_explainable

GOOD, BAD = ["good", "great"], ["bad", "awful"]
NEUTRAL = ["the", "film", "is", "he", "she", "his", "her", "plot", "cast", "song", "via", "mobile", "end", ".", ","]
WORDS = ["<unk>", *GOOD, *BAD, *NEUTRAL]
CONSTANT, FOR, AGAINST, NEITHER, SUM = range(5)


def tokenizer():
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<unk>")


def counting_model(good=GOOD, bad=BAD, weight=1.0, labels=("negative", "positive")):
    """Class 1 has the logit of the sum, class 0 its negative; further classes have 0."""
    config = MambaConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        state_size=1,
        expand=1,
        conv_kernel=2,
        time_step_rank=1,
        use_conv_bias=False,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        pad_token_id=0,
    )
    model = MambaForSequenceClassification(config)
    weights = dict(model.named_parameters())

    def the(end):
        (found,) = (value for name, value in weights.items() if name.endswith(end))
        return found

    with torch.no_grad():
        for name, value in weights.items():
            value.fill_(1.0 if "norm" in name else 0.0)
        embeddings = the("embeddings.weight")
        embeddings[:, CONSTANT] = 1
        for i, word in enumerate(WORDS):
            embeddings[i, FOR if word in good else AGAINST if word in bad else NEITHER] = 1
        the("in_proj.weight")[[0, 1, 2], [FOR, AGAINST, CONSTANT]] = 1
        the("in_proj.weight")[8:10, CONSTANT] = 1  # the gate of the two counts
        the("conv1d.weight")[:, 0, -1] = 1
        the("x_proj.weight")[1:3, 2] = 1  # B and C
        the("dt_proj.bias").fill_(0.1)
        the("A_log").fill_(-30)
        the("out_proj.weight")[SUM, :2] = torch.tensor([0.1, -0.1])
        head = the("score.weight")
        head[:2, SUM] = torch.tensor([-weight, weight])
    return make_explainable(model.eval())
