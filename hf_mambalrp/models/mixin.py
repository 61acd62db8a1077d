"""What a model of texts, its class or a loaded one, gets from this package: explanations and hidden attention."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from hf_mambalrp.attention import Kind, Part, Reduce
from hf_mambalrp.calls.explain import Options, explain_batch
from hf_mambalrp.calls.explain_generation import explain_generated
from hf_mambalrp.calls.hidden_attention import attend
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.models.checkpoints import warn_of_random_weights
from hf_mambalrp.models.stock import StockMixin, module_of
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.hidden_attention import HiddenAttention

if TYPE_CHECKING:
    from collections.abc import Mapping


class MambaLRPMixin(StockMixin):
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
            method: "mambalrp", "expected_mambalrp", "lrp_ln", "gradient_x_input", "integrated_gradients", "smoothgrad",
                "occlusion", "raw_attention", "attention_rollout", "mamba_attribution", "latim" or "random";
                :data:`hf_mambalrp.methods.METHODS` has all, with their sources.
            per_layer: also return relevance at the embedding and after every block, (num_layers + 1, B, L), and what
                each part of a block reads of it, ``parts``.
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
            subject_of(module_of(self)),
            inputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            tokenizer=tokenizer,
            target=target,
            contrast=contrast,
            position=position,
            options=Options(method, per_layer, chunk_size, backend, method_options, check_forward),
        ).result()

    def explain_generation(
        self,
        inputs: "str | list[str] | Tensor | Mapping[str, Any] | None" = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tokenizer: Any = None,
        max_new_tokens: int | None = None,
        contrast: "int | str | list[int | str] | Tensor | None" = None,
        method: str = "mambalrp",
        chunk_size: int | str = "auto",
        backend: str = "auto",
        check_forward: bool = True,
        **generate_options: Any,
    ) -> GenerationExplanation:
        """Generate, then explain the logit of every generated token with respect to everything before it.

        With a contrast it is the logit less that of another token at the same place: why this token rather than that.

        One forward over prompt and generated tokens serves all of them; each token costs one backward.

        Args:
            inputs: a text, a list of texts, token ids (B, L), or a tokenizer's output.
            input_ids: (B, L).
            attention_mask: (B, L).
            tokenizer: as for :meth:`explain`.
            max_new_tokens: at most as many tokens a row; None is what ``generation_config`` or the model's own says, 20
                where neither does.
            contrast: a token's id or text, or one a row, with which every generated token is compared; "runner-up" is
                at every step the token with the highest logit but for the generated one.
            method: a method that is one modified gradient: "mambalrp", "lrp_ln" or "gradient_x_input".
            chunk_size: as for :meth:`explain`.
            backend: as for :meth:`explain`.
            check_forward: as for :meth:`explain`.
            **generate_options: those of the method, such as ``attention_rule``, and those of ``generate``, such as
                ``generation_config`` or ``stop_strings``. What is given
                here wins over ``generation_config``, that over the model's own, as in transformers; greedy where none
                of them says otherwise. Each row gets the tokens that it gets alone: ``generate`` sees no padding, and
                one row at a time where more than end tokens and lengths decide when it ends (so a stopping criterion
                or logits processor of one's own is called with one row).

        Returns:
            A :class:`GenerationExplanation`: ``relevance`` (B, generated, all), prompts padded on the left.

        Raises:
            UnknownArchitectureError: a classifier.
            OptionError: an option that ``generate`` does not know or cannot do with this model; several sequences a
                row; a target, which belongs to :meth:`explain`.
            TargetError: a contrast that is not one token.
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
            subject_of(module_of(self)),
            inputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            contrast=contrast,
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
        part: Part | None = None,
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

        A hybrid's softmax attention is o_i = sum_j A_ij v_j for every head, A = softmax(s q k^T) with q and k as the
        model makes them (RoPE, norms, groups): not signed, rows sum to 1. Before the values and o_proj nothing but an
        output gate multiplies it, so unified attention is sigmoid(gate_i) A_ij, and where there is no gate A. Of
        Zamba's shared block it is the attention in it, over [stream, embeddings].

        Nothing of size (E, L, L) is held but for ``reduce="none"``; of a few positions not even (L, L).

        Args:
            inputs: a text, a list of texts, token ids (B, L), or a tokenizer's output.
            input_ids: (B, L).
            attention_mask: (B, L), 1 for tokens, 0 for padding on either side; rows and columns of padding are 0.
            tokenizer: as for :meth:`explain`.
            layers: their numbers from 0, negative from the last; None is all in which something mixes positions.
            part: of a hybrid "ssm", the state-space mixers, "delta", the gated delta nets, "conv", the short
                convolutions, "linear", linear attention and RG-LRU, or "attention"; None is all, one matrix each.
            reduce: "mean" over the E channels; "none" for every channel (for raw Mamba-2 and attention every head,
                whose channels share their matrix), of one part; or a function of a block of query rows (B, E, R, L)
                -> (B, R, L).
            kind: "raw" or "unified".
            positions: of the queries, negative from the last real token; None is all.
            check_forward: as for :meth:`explain`.
            **tokenizer_extras: what ``**tokenizer(texts)`` may carry besides ids and mask, such as ``token_type_ids``;
                not read.

        Returns:
            A :class:`HiddenAttention`: ``matrix`` (layers, B, R, L), or (layers, B, E, R, L), float32 on the CPU;
            ``matrix[k]`` is of ``layers[k]`` and ``parts[k]``, in a layer "ssm" and "attention" in the model's order.

        Raises:
            OptionError: layers, a part or positions that are not there, a layer without the part, an unknown kind or
                reduction, ``reduce="none"`` of both parts, a function that returns another shape.
            Errors of :meth:`explain` for the input and the model.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.", layers=[0, -1])
            >>> attention.matrix.shape
            torch.Size([2, 1, 4, 4])
        """
        return attend(
            subject_of(module_of(self)),
            inputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            tokenizer=tokenizer,
            layers=layers,
            part=part,
            reduce=reduce,
            kind=kind,
            positions=positions,
            check_forward=check_forward,
            extras=tokenizer_extras,
        )
