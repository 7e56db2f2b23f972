"""Suggests the key, option, command or file that was probably meant."""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

MIN_SIMILARITY = 0.7  # The ratio of difflib below which a name is no suggestion.
MAX_LISTED = 12  # Names that are listed where none is near.

# Our name -> what users of transformers, Lightning, scikit-learn and nanoGPT type.
_SYNONYMS = {
    "trainer.learning_rate": "lr rate peak_lr base_lr max_lr eta0",
    "trainer.epochs": "epochs max_epochs num_epochs n_epochs num_train_epochs",
    "trainer.max_steps": "max_steps steps num_steps train_steps total_steps max_iters iters",
    "trainer.optimizer.weight_decay": "weight_decay wd decay",
    "trainer.step.max_grad_norm": "max_grad_norm clip grad_clip clip_grad_norm gradient_clip_val",
    "trainer.step.accumulate": "accumulate grad_accum gradient_accumulation_steps accumulate_grad_batches",
    "trainer.step.dtype": "fp16 bf16 dtype precision torch_dtype",
    "trainer.schedule.warmup": "warmup warmup_steps warmup_ratio num_warmup_steps",
    "trainer.parallel": "gpus devices accelerator strategy",
    "trainer/optimizer": "optimizer optim",
    "trainer/schedule": "scheduler lr_scheduler lr_scheduler_type schedule",
    "trainer/loss": "loss criterion loss_fn",
    "data.batch_size": "batch_size bs bsz batch per_device_train_batch_size micro_batch_size",
    "data.eval_batch_size": "eval_batch_size per_device_eval_batch_size",
    "data.seq_len": "seq_len max_length max_len seq_length max_seq_length block_size context_length",
    "data.source": "path data_path data_dir train_file dataset dataset_name",
    "data.valid_fraction": "test_size valid_size val_size validation_split validation_fraction",
    "data.target": "label label_column y target_column",
    "data.prefetch": "num_workers dataloader_num_workers",
    "data.exclude": "drop ignore drop_columns ignore_columns",
    "data.tokenizer.vocab_size": "vocab n_vocab vocab_size",
    "model.num_layers": "num_layers layers n_layers n_layer depth num_hidden_layers",
    "model.num_heads": "num_heads heads n_heads n_head num_attention_heads",
    "model.hidden_size": "hidden_size hidden hidden_dim dim d_model n_embd width",
    "model.intermediate_size": "intermediate_size ffn ffn_dim d_ff feed_forward mlp_dim",
    "model.dropout": "dropout hidden_dropout_prob",
    "model/size": "size model_size",
    "callbacks.early_stopping.patience": "patience early_stopping_patience",
    "hydra.run.dir": "output_dir out_dir save_dir default_root_dir logging_dir",
    "seed": "random_seed random_state seed_everything",
    "resume": "ckpt_path resume_from_checkpoint",
    "name": "run_name experiment_name",
    "max_tokens": "max_new_tokens num_tokens",
    "run": "model model_path run_dir",
    "train": "fit",
    "evaluate": "test",
}
_MEANT = {}
for ours, typed_names in _SYNONYMS.items():
    _MEANT.update(dict.fromkeys(typed_names.split(), ours))


def nearest(typed: str, valid: Iterable[str]) -> str | None:
    """What another library's name means, else the name with the same letters, else the closest one, if one is close."""
    names = sorted({*valid})
    if _MEANT.get(typed.lower()) in names:
        return _MEANT[typed.lower()]
    same_letters = [name for name in names if sorted(name) == sorted(typed)]
    close = same_letters or get_close_matches(typed, names, n=1, cutoff=MIN_SIMILARITY)
    return next(iter(close), None)


def did_you_mean(name: str | None) -> str:
    return f"; did you mean {name}?" if name else ""


def suggestion(typed: str, valid: Iterable[str], prefix: str = "") -> str:
    """`; did you mean x?`, else the valid names if they are few, else nothing."""
    names = sorted({*valid})
    near = nearest(typed, names)
    if near:
        return did_you_mean(prefix + near)
    if 0 < len(names) <= MAX_LISTED:
        return f"; there is {', '.join(names)}"
    return ""


def key_suggestion(typed: str, keys: Iterable[str], path: str, elsewhere: Iterable[str]) -> str:
    """What another library's name means here; else a near key of the node at `path`, a key of that name elsewhere, or
    the keys of the node.
    """
    meant = _MEANT.get(typed.lower(), "")
    others = list(elsewhere)
    if "/" in meant or meant.startswith("hydra.") or meant in others:
        return did_you_mean(meant)
    if nearest(typed, keys) is None:
        moved = [key for key in others if key.endswith(f".{typed}")]
        if len(moved) == 1:
            return did_you_mean(moved[0])
    return suggestion(typed, keys, f"{path}." if path else "")


def nearest_path(path: Path) -> str:
    """`; did you mean outputs/tickets?` with the closest name in the folder of a path, else nothing."""
    with suppress(OSError, ValueError):
        near = nearest(path.name, os.listdir(path.parent))
        if near and near != path.name:
            return did_you_mean(str(path.parent / near))
    return ""


def no_such_folder(path: Path, expected: str) -> str:
    """`outputs/ticket: no such folder; did you mean outputs/tickets?`, or what was expected if no name is near."""
    if os.path.isfile(path):
        return f"{path}: a file, expected {expected}"
    return f"{path}: no such folder{nearest_path(path) or f'; expected {expected}'}"
