"""A fine-tuning script as a user would write it today: transformers.Trainer and PEFT, nothing else.

Used by speed_vs_scripts.py as the plain way. Texts are padded to the maximal length, every run is
a process of its own, threads and precision are the libraries' defaults.
"""

import argparse
import json

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoTokenizer, Trainer, TrainingArguments, set_seed


class Classifier(torch.nn.Module):
    """Mean pooling, as the model card of the encoder says, and a linear layer."""

    def __init__(self, body, num_labels):
        super().__init__()
        self.body = body
        self.dropout = torch.nn.Dropout(0.1)
        self.classifier = torch.nn.Linear(body.config.hidden_size, num_labels)
        torch.nn.init.normal_(self.classifier.weight, std=0.02)
        torch.nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids, attention_mask, token_type_ids=None, labels=None):
        hidden = self.body(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        logits = self.classifier(self.dropout((hidden * mask).sum(1) / mask.sum(1)))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "method", "train", "validation", "test", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    set_seed(args.seed)

    paths = {"train": args.train, "validation": args.validation, "test": args.test}
    rows = {name: Dataset.from_parquet(path) for name, path in paths.items()}
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def encode(batch):
        return tokenizer(batch["text"], padding="max_length", truncation=True, max_length=128)

    encoded = {name: part.map(encode, batched=True) for name, part in rows.items()}

    body = AutoModel.from_pretrained(args.model, dtype=torch.float32)
    if args.method == "linear_probe":
        body.requires_grad_(False)
    if args.method == "lora":
        linear = r".*encoder\.layer\..*(query|key|value|dense)"
        body = get_peft_model(body, LoraConfig(r=8, lora_alpha=16, target_modules=linear))
    trainer = Trainer(
        model=Classifier(body, 1 + max(rows["train"]["label"])),
        args=TrainingArguments(
            output_dir=args.out,
            num_train_epochs=3,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=32,
            learning_rate=args.learning_rate,
            warmup_steps=0.06,
            weight_decay=0.01,
            save_strategy="no",
            report_to=[],
            seed=args.seed,
            disable_tqdm=True,
        ),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        compute_metrics=lambda p: {"accuracy": np.mean(p.predictions.argmax(1) == p.label_ids)},
    )
    trainer.train()
    trainer.evaluate()
    test = trainer.evaluate(encoded["test"])
    print(json.dumps({"accuracy": float(test["eval_accuracy"])}))


if __name__ == "__main__":
    main()
