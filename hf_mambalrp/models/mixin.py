"""What a model class, or a loaded model, gets from this package: explanations and hidden attention."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from hf_mambalrp.attention import Kind, Reduce
from hf_mambalrp.calls.explain import Options, explain_batch
from hf_mambalrp.calls.explain_generation import explain_generated
from hf_mambalrp.calls.hidden_attention import attend
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import OptionError, UnknownArchitectureError
from hf_mambalrp.families import FAMILIES
from hf_mambalrp.hub.model import push_model, write_card
from hf_mambalrp.hub.model_card import Contents
from hf_mambalrp.models.checkpoints import check_loaded, warn_of_random_weights
from hf_mambalrp.models.sharing import card_contents, tokenizer_beside
from hf_mambalrp.models.state_spaces import load
from hf_mambalrp.models.weight_files import HUB_OPTIONS
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.hidden_attention import HiddenAttention

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES_BY_TASK = {
    "CausalLM": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "SequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
}
"""transformers' names of classes by model type, for each of our tasks."""


class MambaLRPMixin:
    """Adds explanations to a transformers model class; no ``__init__``, no weights of its own.

    List it before the model class: ``class MambaLRPForCausalLM(MambaLRPMixin, MambaForCausalLM)``. Checkpoints stay
    interchangeable with the class behind it.

    Example:
        >>> from transformers import MambaConfig, MambaForCausalLM
        >>> from hf_mambalrp import MambaLRPMixin
        >>> class MyMamba(MambaLRPMixin, MambaForCausalLM): pass
        >>> model = MyMamba(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the class where transformers looks up what a class is for: pipelines, ``Trainer``, model cards.

        The key is no model type, so that no Auto class finds it.
        """
        super().__init_subclass__(**kwargs)
        names: Any = NAMES_BY_TASK.get(stock_class(cls).__name__.partition("For")[2])
        if names is not None:
            names[cls.__name__] = cls.__name__

    def explain(
        self,
        inputs: "str | list[str] | Tensor | Mapping[str, Any] | None" = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        tokenizer: Any = None,
        target: Any = None,
        contrast: Any = None,
        position: Any = None,
        method: str = "mambalrp",
        per_layer: bool = False,
        chunk_size: int | str = "auto",
        backend: str = "auto",
        check_forward: bool = True,
        **method_options: Any,
    ) -> Explanation:
        """Explain a prediction: which tokens speak for the target, and which against it.

        Relevance of token i is sum_d e_id * d(score)/d(e_id) over the hidden units d of its embedding e_i, where the
        derivative is the modified gradient of the method's rules. Under MambaLRP (Rezaei Jafari et al. 2024, section 4)
        relevances and what additive biases absorb sum to the score; ``Explanation.conservation`` shows it.

        The call is a pure function of model and arguments: nothing of the model is changed, not even for a moment, in
        whatever mode it is, and other threads may use it (offloaded weights are loaded a layer at a time). Arithmetic
        is float32, also for a half-precision model.

        Args:
            inputs: a text, a list of texts, token ids (B, L), or a tokenizer's output.
            input_ids: (B, L), so that ``model.explain(**tokenizer(texts, return_tensors="pt", padding=True))`` works.
            attention_mask: (B, L), 1 for tokens, 0 for padding on either side; None is all tokens.
            inputs_embeds: (B, L, D) instead of ids.
            tokenizer: read texts and name tokens with it; by default the one in the model's own repository or folder.
            target: what is explained. None, the predicted class or next token; an id; a label's name, or for a language
                model the text by which the input is continued; a list or (B,) tensor with one a row; a function of the
                logits (B, V) -> (B,). A text is put behind the input as it stands, whatever the tokenizer: " Paris" is
                a new word, "Paris" continues the last one. One of several tokens is scored by the sum of its tokens'
                logits, each fed back before the next; fed-back tokens appear in the result behind the input.
            contrast: same forms; the score is then logit(target) - logit(contrast).
            position: for a language model, whose prediction to explain: a column, or one a row, negative from the last
                real token; default the last real token of each row.
            method: "mambalrp", "lrp_ln", "gradient_x_input", "integrated_gradients", "smoothgrad", "occlusion",
                "attention_rollout", "mamba_attribution", "latim" or "random"; :data:`hf_mambalrp.methods.METHODS` has
                all, with their sources.
            per_layer: also return relevance at the embedding and after every block, (num_layers + 1, B, L).
            chunk_size: positions to go by at a time, exact at any value; "auto" keeps short inputs in one piece and the
                memory for long ones bounded, by the size of the device and not by what is free just now. The result's
                ``chunk_size`` says what it was; where memory runs out it is halved, with a ``RuntimeWarning``.
            backend: "auto", the fastest that can run; "reference" or "chunked", plain torch on any device; "compiled",
                numba on the CPU (Mamba-1, Falcon-Mamba); "triton", fused kernels on a GPU; "mamba_ssm", that package's
                forward kernel in them (not Mamba-2). The last three are for ``method="mambalrp"``.
            check_forward: before a model's first explanation, compare this package's forward with the model's own on 16
                tokens (one forward of each), so that no release of transformers can make relevance silently wrong.
            **method_options: options of the method, which its function in :mod:`hf_mambalrp.methods` documents.

        Returns:
            An :class:`Explanation`: ``relevance`` (B, L) float32 on the CPU, exactly 0 on padding.

        Raises:
            InputError: empty input, an all-padding row, shapes that do not fit, ids out of the vocabulary.
            TargetError: a target out of range, unknown, ambiguous, or not one a row.
            OptionError: an unknown method or method option, a chunk size below 1; ``per_layer`` or a contrast for a
                method that has none.
            BackendError: a backend that is unknown or cannot run here.
            MissingTokenizerError: texts without a tokenizer.
            UnknownArchitectureError: a model without rules.
            ForwardMismatchError: this package's forward of the model differs from the model's own.
            DetachedLayerError: a layer's output does not depend on its input through differentiable operations.
            ConservationError: under rules that conserve, relevance and biases miss the score by more than rounding;
                names the layer.
            NonFiniteRelevanceError: NaN or infinity; names the layer.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.", target="negative")
            >>> {word.text: round(word.relevance, 2) for word in ex.words()}
            {'A': 0.1, 'dull': 0.95, 'film': 0.19, '.': 0.68}
        """
        warn_of_random_weights(self)
        return explain_batch(
            subject_of(_module(self)),
            inputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            tokenizer=tokenizer,
            target=target,
            contrast=contrast,
            position=position,
            options=Options(method, per_layer, chunk_size, backend, method_options, check_forward),
        )

    def explain_generation(
        self,
        inputs: "str | list[str] | Tensor | Mapping[str, Any] | None" = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tokenizer: Any = None,
        max_new_tokens: int | None = None,
        method: str = "mambalrp",
        chunk_size: int | str = "auto",
        backend: str = "auto",
        check_forward: bool = True,
        **generate_options: Any,
    ) -> GenerationExplanation:
        """Generate, then explain the logit of every generated token with respect to everything before it.

        One forward over prompt and generated tokens serves all of them; each token costs one backward.

        Args:
            inputs: a text, a list of texts, token ids (B, L), or a tokenizer's output.
            input_ids: (B, L).
            attention_mask: (B, L).
            tokenizer: as for :meth:`explain`.
            max_new_tokens: at most as many tokens a row; None is what ``generation_config`` or the model's own says, 20
                where neither does.
            method: a method that is one modified gradient: "mambalrp", "lrp_ln" or "gradient_x_input".
            chunk_size: as for :meth:`explain`.
            backend: as for :meth:`explain`.
            check_forward: as for :meth:`explain`.
            **generate_options: those of ``generate``, such as ``generation_config`` or ``stop_strings``. What is given
                here wins over ``generation_config``, that over the model's own, as in transformers; greedy where none
                of them says otherwise. Each row gets the tokens that it gets alone: ``generate`` sees no padding, and
                one row at a time where more than end tokens and lengths decide when it ends (so a stopping criterion
                or logits processor of one's own is called with one row).

        Returns:
            A :class:`GenerationExplanation`: ``relevance`` (B, generated, all), prompts padded on the left.

        Raises:
            UnknownArchitectureError: a classifier.
            OptionError: an option that ``generate`` does not know or cannot do with this model; several sequences a
                row; a target or contrast, which belong to :meth:`explain`.
            Errors of :meth:`explain`.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> ex.relevance.shape
            torch.Size([1, 4, 7])
        """
        warn_of_random_weights(self)
        return explain_generated(
            subject_of(_module(self)),
            inputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            options=Options(method, False, chunk_size, backend, {}, check_forward),
            generate_options=generate_options,
        )

    def hidden_attention(
        self,
        inputs: "str | list[str] | Tensor | Mapping[str, Any] | None" = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tokenizer: Any = None,
        layers: int | list[int] | None = None,
        reduce: Reduce = "mean",
        kind: Kind = "raw",
        positions: int | list[int] | slice | None = None,
        check_forward: bool = True,
        **tokenizer_extras: Any,
    ) -> HiddenAttention:
        """Read off how much every position reads of every earlier one, layer by layer, exactly by the formula.

        The scan of channel d is y_i = sum_j alpha_ij u_j with (Ali, Zimerman and Wolf 2025)

            alpha_ij = sum_n C_i[n] (prod_{j < k <= i} exp(dt_k A[n])) dt_j B_j[n],

        signed and 0 for j > i. With ``kind="unified"`` gate, scan, SiLU and convolution are one matrix (Zimerman, Ali
        and Wolf 2025), H = diag(scale) alpha diag(sigmoid(c)) M_conv. With x and c the convolution's input and output
        the mixer's output before out_proj is H x + scale (alpha (sigmoid(c) bias) + D u): the skip D and the
        convolution's bias are terms beside H. ``scale`` is silu(z), for Mamba-2 times the norm's normaliser and weight.

        Nothing of size (E, L, L) is held but for ``reduce="none"``; of a few positions not even (L, L).

        Args:
            inputs: a text, a list of texts, token ids (B, L), or a tokenizer's output.
            input_ids: (B, L).
            attention_mask: (B, L), 1 for tokens, 0 for padding on either side; rows and columns of padding are 0.
            tokenizer: as for :meth:`explain`.
            layers: their numbers from 0, negative from the last; None is all.
            reduce: "mean" over the E channels; "none" for every channel (for raw Mamba-2 every head, whose channels
                share alpha); or a function of a block of query rows (B, E, R, L) -> (B, R, L).
            kind: "raw" or "unified".
            positions: of the queries, negative from the last real token; None is all.
            check_forward: as for :meth:`explain`.
            **tokenizer_extras: what ``**tokenizer(texts)`` may carry besides ids and mask, such as ``token_type_ids``;
                not read.

        Returns:
            A :class:`HiddenAttention`: ``matrix`` (layers, B, R, L), or (layers, B, E, R, L), float32 on the CPU.

        Raises:
            OptionError: layers or positions that are not there, an unknown kind or reduction, a function that returns
                another shape.
            Errors of :meth:`explain` for the input and the model.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.", layers=[0, -1])
            >>> attention.matrix.shape
            torch.Size([2, 1, 4, 4])
        """
        return attend(
            subject_of(_module(self)),
            inputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            tokenizer=tokenizer,
            layers=layers,
            reduce=reduce,
            kind=kind,
            positions=positions,
            check_forward=check_forward,
            extras=tokenizer_extras,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as every transformers model does; weights that are missing or left over are an error.

        A checkpoint in mamba_ssm's own format (``state-spaces/mamba-130m``) is converted as it is loaded. With
        ``ignore_mismatched_sizes=True`` weights of another shape, such as the head of another number of labels, are
        random, with a warning, to be trained; :meth:`explain` before that warns once more.

        Raises:
            MissingHeadError: the checkpoint lacks weights, most often the head: its explanations would be of random
                numbers. Or it is a classifier's, and this class is a language model.
            UnexpectedWeightsError: the checkpoint has weights that this class has no place for, such as a bias of
                ``lm_head`` or more layers of a head: without them another model would be explained.
            UnknownArchitectureError: a checkpoint of another ``model_type``, or in mamba_ssm's format one that
                transformers' class cannot express.
            CheckpointError: a checkpoint in mamba_ssm's format without weights, or with a damaged or unsafe file.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification
            >>> model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.config.id2label
            {0: 'negative', 1: 'positive'}
        """
        wants_info = kwargs.pop("output_loading_info", False)
        saved_by = _check_family(cls, pretrained_model_name_or_path, kwargs)
        loader: Any = super()
        model, info = load(loader.from_pretrained, cls, pretrained_model_name_or_path, *args, **kwargs) or (
            loader.from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        )
        check_loaded(model, stock_class(cls), info, pretrained_model_name_or_path, saved_by)
        subject_of(model).place()
        return (model, info) if wants_info else model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        explanations: Any = None,
        evaluation: Any = None,
        tokenizer: Any = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: "Sequence[str] | None" = None,
        **save_options: Any,
    ) -> Any:
        """Push the model, as transformers writes it, with a card that says how to explain it and shows explanations.

        A card that is there is extended between two markers and by missing keys of its front matter; the rest stays
        byte for byte. It is one commit, or none where nothing is new. Explanations or an evaluation that are not given
        stay as an earlier push left them.

        Args:
            repo_id: "user/name", or "name" for one of your own; created if it is not there.
            explanations: what :meth:`explain` or :meth:`explain_generation` returned, or a list of it; the first 8
                rows become pictures and tables.
            evaluation: what ``evaluate_faithfulness`` returned, or its ``results``: a table, and as ``model-index``
                the figures of the first method. Of this model, as its fingerprint in them says.
            tokenizer: saved with the model; by default, where the repository has none, the one beside the model.
            commit_message: title of the commit.
            commit_description: its text.
            private: visibility of a repository that is created.
            token: by default the one of ``hf auth login`` or ``HF_TOKEN``.
            revision: the branch; created if it is not there.
            create_pr: propose the change instead of making it.
            tags: more tags for the card.
            **save_options: passed to ``save_pretrained``, such as ``max_shard_size``.

        Returns:
            ``CommitInfo`` of huggingface_hub, a str: the address of the commit.

        Raises:
            InputError: explanations or an evaluation of another kind or of another model, a name that no repository
                can have.
            MissingExtraError: explanations without matplotlib.
            NotLoggedInError: no token, or a wrong one.
            RepositoryAccessError: a token that may not write there.
            OfflineError, HubConnectionError, HubError: the Hub cannot be reached or refuses; nothing is half-written.
            CardError: the card that is there cannot be extended.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> model.push_to_hub("me/explained-model", explanations=ex)  # doctest: +SKIP
        """
        return push_model(
            self,
            _contents(self, explanations, evaluation, tags or ()),
            repo_id,
            tokenizer=tokenizer,
            beside=tokenizer_beside(_module(self)),
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            commit_description=commit_description,
            save_options=save_options,
        )

    def save_pretrained(
        self,
        save_directory: Any,
        *args: Any,
        explanations: Any = None,
        evaluation: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Save as the class behind this one: ``architectures`` names that class, and no ``auto_map`` is written.

        With ``explanations`` or ``evaluation`` also the card of :meth:`push_to_hub`, ``README.md``, with its pictures;
        one that is there is extended. The tokenizer is saved too where the folder has none. Other arguments are those
        of transformers.

        Raises:
            OptionError: these together with ``push_to_hub=True``.
            InputError, MissingExtraError, CardError: as for :meth:`push_to_hub`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> model.save_pretrained("out/explained-model", explanations=ex)
            >>> model.from_pretrained("out/explained-model").config.architectures
            ['MambaForSequenceClassification']
        """
        carded = explanations is not None or evaluation is not None
        if carded and kwargs.get("push_to_hub"):
            raise OptionError(
                "save_pretrained(push_to_hub=True) pushes no explanations: call model.push_to_hub(repo_id, "
                "explanations=...)."
            )
        if carded:  # first, because it checks what was given before it writes
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            contents = _contents(self, explanations, evaluation, ())
            write_card(contents, save_directory, beside=tokenizer_beside(_module(self)))
        stock: Any = object.__new__(stock_class(type(self)))
        # The same weights seen as the stock class. The configuration is a copy, because saving writes into it.
        stock.__dict__ = {**vars(self), "config": copy.deepcopy(vars(self)["config"])}
        if hasattr(stock.config, "auto_map"):
            del stock.config.auto_map
        return type(stock).save_pretrained(stock, save_directory, *args, **kwargs)


def stock_class(cls: type) -> type:
    """The class of transformers behind an explainable one."""
    return next(base for base in cls.__mro__ if not issubclass(base, MambaLRPMixin))


def _check_family(cls: type, source: Any, options: "Mapping[str, Any]") -> str:
    """Name of the class that saved the checkpoint, where its configuration says it.

    Raises:
        UnknownArchitectureError: a checkpoint of another family than the class's.
    """
    try:
        config, _ = PretrainedConfig.get_config_dict(source, **{k: options[k] for k in HUB_OPTIONS if k in options})
    except (OSError, ValueError, TypeError):
        return ""  # transformers meets the same and says so in its own words
    stock: Any = stock_class(cls)
    family, own = config.get("model_type"), stock.config_class.model_type
    if family in FAMILIES and family != own:
        task = stock.__name__.partition("For")[2]
        right = CONFIG_MAPPING[family].__name__.replace("Config", f"LRPFor{task}")
        raise UnknownArchitectureError(
            f"{source} is a {family!r} checkpoint, {cls.__name__} is for {own!r}. Load it with {right} or "
            f"AutoMambaLRPFor{task}."
        )
    return str((config.get("architectures") or [""])[0])


def _contents(model: Any, explanations: Any, evaluation: Any, tags: "Sequence[str]") -> Contents:
    name = stock_class(type(model)).__name__
    return card_contents(model, name, explanations=explanations, evaluation=evaluation, tags=tags)


def _module(model: Any) -> nn.Module:
    module: nn.Module = model
    return module
