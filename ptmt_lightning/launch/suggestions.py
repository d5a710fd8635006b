"""What a user may have meant who types a key or a choice that does not exist."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

# What other frameworks call settings of this one; looked up by the last part of a key, without its underscores.
_ELSEWHERE = {
    "optimizer.learning_rate": "lr learningrate initlr baselr",
    "optimizer.weight_decay": "wd weightdecay l2",
    "optimizer.warmup_ratio": "warmup warmupratio warmupsteps warmupproportion",
    "optimizer.schedule": "scheduler lrscheduler lrschedulertype",
    "trainer.max_epochs": "epoch epochs maxepochs numepochs nepochs numtrainepochs maxepoch",
    "trainer.max_steps": "steps maxsteps numsteps iterations maxiter numtrainsteps",
    "trainer.devices": "gpu gpus ngpu ngpus numgpus numdevices devices nproc nprocpernode worldsize",
    "trainer.num_nodes": "nodes nnodes numnodes",
    "trainer.accelerator": "device accelerator cuda usecuda nocuda",
    "trainer.gradient_clip_val": "clip gradclip gradientclip maxgradnorm gradnorm clipgradnorm clipnorm",
    "trainer.accumulate_grad_batches": "accumulate gradaccum accumsteps gradientaccumulationsteps gradaccumsteps",
    "trainer.log_every_n_steps": "loggingsteps logevery loginterval",
    "trainer.check_val_every_n_epoch": "evalevery evaluationstrategy valevery evalstrategy",
    "dataset.batch_size": "batch bs batchsize trainbatchsize perdevicetrainbatchsize pergpubatchsize mbsz",
    "dataset.eval_batch_size": "evalbatchsize valbatchsize testbatchsize perdeviceevalbatchsize",
    "dataset.path": "data datadir datapath dataroot dataset_path datafolder trainfile input inputdir",
    "dataset.train_fraction": "fraction subset trainfraction maxtrainsamples",
    "backbone.name": (
        "modelname modelnameorpath modelpath pretrained pretrainedmodel pretrainedmodelnameorpath plm encoder lm "
        "transformer tokenizer modelid checkpointpath bert"
    ),
    "backbone.max_length": "maxlen maxlength maxseqlen maxseqlength seqlen seqlength sequencelength",
    "backbone.freeze": "freeze freezeencoder freezebackbone",
    "backbone.lora_rank": "lora lorar rank",
    "backbone.attention": "attn attnimplementation attention",
    "impl.num_workers": "workers numworkers dataloadernumworkers nworkers",
    "impl.precision": "fp16 bf16 amp precision dtype mixedprecision halfprecision torchdtype",
    "impl.compile": "compile torchcompile",
    "callbacks.early_stopping.patience": "patience earlystopping earlystoppingpatience earlystop",
    "model.threshold": "threshold thresholds cutoff",
    "monitor": "metric metricforbestmodel earlystoppingmetric",
    "seed": "randomseed manualseed randomstate rng rngseed seeds",
    "hydra.run.dir": "out output outdir outputdir outputpath savedir savepath logdir workdir rundir expdir",
    "resume": "resumefrom resumefromcheckpoint ckpt ckptpath checkpoint loadcheckpoint restore",
    "experiment": "exp expname experimentname",
    "hydra.sweeper.n_trials": "trials ntrials numtrials",
    "logger": "wandb tensorboard reportto usewandb",
    "keep_checkpoints": "savecheckpoints savetotallimit",
    "overwrite": "overwriteoutputdir force",
}
_MEANT = {word: key for key, words in _ELSEWHERE.items() for word in words.split()}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like ``word``, None if none is near."""
    found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.65)
    return found[0] if found else None


def key_meant(key: str, known: Collection[str]) -> str | None:
    """Return the key that the user likely meant; None if none is near.

    A slip of the pen beside other settings of its group comes first, then what the key is called elsewhere, then any
    slip, then keys with the same last part.

    Args:
        key: as typed.
        known: all keys and groups; settings of Hydra, ``hydra.``, are known anyway.
    """
    group, _, last = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if group and name.rpartition(".")[0] == group}
    if slip := nearest(last, siblings):
        return siblings[slip]
    meant = _MEANT.get(re.sub(r"[^a-z0-9]", "", last.lower()))
    if meant is not None and (meant in known or meant.startswith("hydra.")):
        return meant
    if slip := nearest(key, (name for name in known if "." in name or not group)):
        return slip
    lasts: dict[str, str] = {}
    for other in sorted(known, key=lambda name: (name.count("."), name), reverse=True):
        lasts[other.rpartition(".")[2]] = other  # the shallowest stays
    near = nearest(last, lasts) if len(last) > 3 else last if last in lasts else None
    return lasts[near] if near else None


def hint(meant: str | None) -> str:
    """Return the end of a message: the suggestion, if there is one."""
    return f"; did you mean {meant!r}?" if meant else ""
