"""A tiny model and a tokenizer of each family, with random weights, in a folder as a user has it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

from ptmt_lightning.backbones import FAMILIES, word_tokenizer

_SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
# What each family calls otherwise, or has besides.
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "electra": {"embedding_size": 24},
    "albert": {"embedding_size": 24},
    "distilbert": {
        "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "dropout": 0.0, "attention_dropout": 0.0,
    },
    "mpnet": {},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8},
    "deberta-v2": {
        "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4, "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
    },
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "bart": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
    },
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
    "gpt2": {
        "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
    },
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
}  # fmt: skip
CLASSES: dict[str, Any] = {
    "encoder": AutoModelForMaskedLM, "decoder": AutoModelForCausalLM, "encoder-decoder": AutoModelForSeq2SeqLM,
}  # fmt: skip
_WORDS = ("bert", "electra", "distilbert")  # WordPiece; of the others byte-level BPE stands for all


def save_family(folder: Path, model_type: str, texts: Iterable[str], *, head: bool = True, **changes: Any) -> Path:
    """Write a folder with a tiny model of that family; without ``head`` the encoder alone."""
    torch.manual_seed(0)
    family = FAMILIES[model_type]
    tokenizer: Any = word_tokenizer(texts, 100) if model_type in _WORDS else byte_tokenizer(texts, model_type)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep", "mask")}
    special |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family.form == "encoder":
        special |= {"bos_token_id": special["cls_token_id"], "eos_token_id": special["sep_token_id"]}
    settings = _SIZES | CONFIGS[model_type] | {"vocab_size": len(tokenizer)} | special | changes
    model: Any = CLASSES[family.form].from_config(AutoConfig.for_model(model_type, **settings))
    with torch.no_grad():
        if getattr(model.get_output_embeddings(), "bias", None) is not None:
            model.get_output_embeddings().bias.normal_(std=0.02)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(std=0.02)
    (model if head else model.base_model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_ROBERTA = {
    "bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "cls": "<s>", "sep": "</s>",
}  # fmt: skip
_SPECIAL = {
    "t5": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    "gpt2": {"bos": "<|endoftext|>", "eos": "<|endoftext|>"},
    "llama": {"unk": "<unk>", "bos": "<s>", "eos": "</s>"},
    "qwen2": {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    "qwen3": {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
}


def byte_tokenizer(texts: Iterable[str], model_type: str = "roberta") -> PreTrainedTokenizerFast:
    """Byte-level BPE, with the special tokens of the family."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = _SPECIAL.get(model_type, _ROBERTA)
    special = list(dict.fromkeys(names.values()))
    if model_type == "t5":
        special += [f"<extra_id_{i}>" for i in range(4)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{name}_token": token for name, token in names.items()}
    )
