"""An application of less than a second, for the plugins: what run.py leaves, without any training."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """Score -(x - 3)^2."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with (folder / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if cfg.do == "ignore_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if cfg.do == "none":
        return
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    OmegaConf.save(cfg, folder / "config.yaml")
    if cfg.do == "fail":
        sys.exit("error: told to fail\n\n")
    time.sleep(cfg.seconds)
    score = float("nan") if cfg.do == "not_a_number" else -((cfg.x - 3) ** 2)
    (folder / "result.json").write_text(json.dumps({"best_score": score}))
    if cfg.do == "die":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
